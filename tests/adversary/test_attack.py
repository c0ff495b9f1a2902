import numpy as np
import pytest

from adversary.attack import REFUSED, BudgetSpent, Meter, norms


class Threshold:
    """Labels 1 where the first value passes 0.5; refuses where it passes 0.9."""

    def __init__(self):
        self.calls = []

    def labels(self, x):
        self.calls.append(len(x))
        return np.where(x[:, 0] > 0.9, REFUSED, (x[:, 0] > 0.5).astype(np.int64))


def test_norms_by_hand():
    delta = np.array([[[3.0, -4.0]], [[0.0, 0.0]]])
    assert norms(delta, "linf").tolist() == [4.0, 0.0]
    assert norms(delta, "l2").tolist() == [5.0, 0.0]
    assert norms(delta, "l1").tolist() == [7.0, 0.0]
    assert norms(delta, "l0").tolist() == [2.0, 0.0]
    assert norms(delta[..., None], "l0").tolist() == [2.0, 0.0]
    assert norms(np.zeros((0, 3)), "l2").tolist() == []


def test_a_refusal_is_no_success():
    meter = Meter(Threshold(), 0, 10, 10)
    assert meter.adversarial(np.array([[0.1], [0.6], [0.95]])).tolist() == [False, True, False]


def test_rows_travel_in_batches_and_all_count():
    oracle = Threshold()
    meter = Meter(oracle, 0, 10, 3)
    meter.adversarial(np.zeros((7, 1)))
    assert max(oracle.calls) <= 3
    assert (sum(oracle.calls), meter.spent, meter.left) == (7, 7, 3)


def test_nothing_is_sent_past_the_budget():
    oracle = Threshold()
    meter = Meter(oracle, 0, 2, 3)
    with pytest.raises(BudgetSpent):
        meter.adversarial(np.zeros((3, 1)))
    assert oracle.calls == []
