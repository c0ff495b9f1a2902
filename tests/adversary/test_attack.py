import numpy as np
import pytest

from adversary.attack import REFUSED, BudgetSpent, Meter, Refused, ScoreMeter, norms


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


class Thirds:
    """Probabilities by hand: as they are told; the whole call is refused where a row's first value passes 0.9."""

    def __init__(self, *rows):
        self.rows, self.calls = rows, []

    def probabilities(self, x):
        self.calls.append(len(x))
        if (x[:, 0] > 0.9).any():
            return Refused("PERMISSION_DENIED", "")
        return np.array([self.rows[round(float(row[0]) * 10)] for row in x])


def test_scores_by_hand():
    meter = ScoreMeter(Thirds((0.5, 0.25, 0.25), (0.2, 0.5, 0.3), (1.0, 0.0, 0.0)), 0, 10, 10)
    scores = meter.scores(np.array([[0.0], [0.1], [0.2]]))
    assert scores.own.tolist() == pytest.approx([np.log(0.5), np.log(0.2), 0.0])
    assert scores.margin.tolist() == pytest.approx([np.log(2.0), np.log(0.4), -np.log(1e-30)])
    assert scores.won.tolist() == [False, True, False]


def test_refused_scores_are_no_numbers_and_no_success():
    oracle = Thirds((0.2, 0.8))
    meter = ScoreMeter(oracle, 0, 10, 2)
    scores = meter.scores(np.array([[0.0], [0.0], [0.95], [0.0]]))
    assert np.isnan(scores.own).tolist() == np.isnan(scores.margin).tolist() == [False, False, True, True]
    assert scores.won.tolist() == [True, True, False, False]
    assert (oracle.calls, meter.spent, meter.left) == ([2, 2], 4, 6)


def test_no_score_is_asked_past_the_budget():
    oracle = Thirds((0.5, 0.5))
    with pytest.raises(BudgetSpent):
        ScoreMeter(oracle, 0, 2, 3).scores(np.zeros((3, 1)))
    assert oracle.calls == []
