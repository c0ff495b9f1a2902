"""What counts a library's queries: by hand, on a model of two values."""

import numpy as np
import pytest

from adversary.attack import BudgetSpent
from adversary.runner import NEVER
from bench.attacks.gauge import Gauge, Reached

X = np.array([[0.5, 0.5]], np.float32)


def bright(x):
    """Class 1 where the values' sum is above 1.5."""
    return np.stack([np.full(len(x), 1.5), x.sum(axis=1)], axis=1)


def gauge(**changed):
    return Gauge(**{"answer": bright, "x": X, "y": 0, "norm": "linf", "eps": 0.3, "budget": 5, **changed})


def test_an_image_that_was_asked_for_before_costs_nothing():
    one = gauge(budget=2)
    for _ in range(3):
        assert one(np.concatenate([X, X])).tolist() == [[1.5, 1.0], [1.5, 1.0]]
    assert (one.rows, one.queries) == (6, 1)
    one(X + 0.1)
    assert (one.rows, one.queries) == (7, 2)


def test_float64_is_asked_as_the_float32_that_travels():
    one = gauge()
    one(X.astype(np.float64))
    one(X + 1e-12)
    assert one.queries == 1


def test_no_query_past_the_budget_reaches_the_model():
    asked = []
    one = gauge(answer=lambda x: asked.append(x) or bright(x), budget=2)
    with pytest.raises(BudgetSpent):
        one(np.stack([X[0], X[0] - 0.1, X[0] - 0.2]))
    assert len(asked) == one.queries == 2


def test_it_ends_at_the_first_wrong_answer_within_eps():
    one = gauge()
    one(X)
    with pytest.raises(Reached):
        one(np.stack([X[0] + 0.2, X[0] + 0.5, X[0] + 0.3, X[0] + 0.4]))  # right; too far; wrong within eps; not asked
    assert (one.queries, one.reached_at) == (4, 4)
    assert one.nearest == pytest.approx(X + 0.3)


def test_without_success_the_nearest_wrong_answer_is_kept():
    one = gauge(eps=0.1)
    one(np.stack([X[0] + 0.5, X[0] + 0.4, X[0] + 0.45, X[0] + 0.1]))
    assert one.reached_at == NEVER
    assert one.nearest == pytest.approx(X + 0.4)
    assert gauge().nearest is None
