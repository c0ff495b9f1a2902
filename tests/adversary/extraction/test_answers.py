"""What a thief sends and is told."""

import numpy as np
import pytest

from adversary.attack import BudgetSpent
from adversary.extraction.answers import Loot, Thief, milestones
from tests.adversary.evasion.oracles import InMemory, linear

X = np.linspace(0, 1, 10, dtype=np.float32)[:, None]


def thief(oracle, **changed):
    return Thief(oracle, **{"budget": 10, "classes": 2, "answers": "scores", "batch": 3, **changed})


def test_calls_are_parcelled_and_counted():
    oracle = linear([1.0], 0.5)
    one = thief(oracle)
    p = one.ask(X)
    assert p.shape == (10, 2)
    assert p[:, 1].tolist() == pytest.approx(1 / (1 + np.exp(0.5 - X[:, 0])))
    assert max(oracle.calls) == 3
    assert (one.spent, one.left) == (10, 0)


def test_a_label_is_a_row_with_a_single_one():
    assert thief(linear([1.0], 0.5), answers="labels").ask(X[[0, 9]]).tolist() == [[1, 0], [0, 1]]


def test_nothing_is_sent_past_the_budget():
    oracle = linear([1.0], 0.5)
    one = thief(oracle, budget=4)
    with pytest.raises(BudgetSpent):
        one.ask(X)
    assert oracle.sent == 0
    assert one.take(X).x[:, 0].tolist() == X[:4, 0].tolist()
    assert len(one.take(X)) == 0
    assert oracle.sent == 4


@pytest.mark.parametrize("answers", ["scores", "labels"])
def test_what_is_refused_is_left_out(answers):
    one = thief(linear([1.0], 0.5, refuse=lambda sent, x: sent == 3), answers=answers)
    loot = one.take(X)
    assert one.spent == 10
    assert len(loot) == 10 - 3
    assert np.isfinite(loot.p).all()
    assert X[3, 0] not in loot.x


def test_rows_without_an_answer_within_a_call():
    class Half(InMemory):
        def probabilities(self, x):
            p = super().probabilities(x)
            p[1::2] = np.nan
            return p

    assert len(thief(Half(linear([1.0], 0.5).logits), batch=10).take(X)) == 5


def test_an_answer_of_other_classes_is_an_error():
    with pytest.raises(ValueError, match="not with 3 classes"):
        thief(linear([1.0], 0.5), classes=3).ask(X)
    with pytest.raises(ValueError, match="label 1, of 1 classes"):
        thief(linear([1.0], 0.5), classes=1, answers="labels").ask(X)


@pytest.mark.parametrize("changed", [{"budget": 0}, {"batch": 0}])
def test_a_thief_without_means(changed):
    with pytest.raises(ValueError, match="of one row"):
        thief(linear([1.0], 0.5), **changed)


def test_loot_adds_up():
    a = Loot(X[:2], np.array([[0.9, 0.1], [0.2, 0.8]]))
    both = a + a.part(np.array([1]))
    assert both.labels.tolist() == [0, 1, 1]
    assert len(both) == 3


def test_copies_are_made_on_the_way():
    assert milestones(800) == [100, 200, 400, 800]
    assert milestones(1) == [1]
