import json
import math

import numpy as np
import pytest

from adversary import scores
from adversary.attack import REFUSED
from adversary.runner import ANY, NEVER, Outcome
from adversary.scores import Rate


# Newcombe 1998 (Statistics in Medicine 17: 857-872), table I: the score method without continuity correction.
@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(hits, n, low, high):
    assert Rate(hits, n).interval == pytest.approx((low, high), abs=5e-5)


def test_nothing_measured_is_not_a_rate():
    assert math.isnan(Rate(0, 0).value)
    assert Rate(0, 0).interval == (0.0, 1.0)
    assert str(Rate(0, 0)) == "none"


def test_a_rate_reads_in_per_cent():
    assert str(Rate(81, 263)) == "30.8 % (25.5 to 36.6)"


def outcome(**changed):
    """Five victims: won, refused, withstood, wrong when clean, too far."""
    values = {
        "attack": "fake", "eps": 0.3, "norm": "linf",
        "y": np.zeros(5, int), "aim": np.full(5, ANY),
        "clean": np.array([0, 0, 0, 1, 0]), "adversarial": np.array([1, REFUSED, 0, 1, 1]),
        "size": np.array([0.3, 0.3, 0.3, 0.3, 0.5]), "linf": np.full(5, 0.3), "l2": np.ones(5),
        "queries": np.array([10, 20, 30, 0, 50]), "detected_at": np.array([NEVER, 7, 9, NEVER, NEVER]),
            "reached_at": np.array([10, NEVER, NEVER, NEVER, NEVER]),
        "x_adv": np.zeros((5, 1)),
    }  # fmt: skip
    return Outcome(**{**values, **changed})


def test_the_rates_of_an_attack():
    o = outcome()
    assert scores.success_rate(o) == Rate(1, 4)
    assert scores.robust_accuracy(o) == Rate(3, 5)
    assert scores.detection_rate(o) == Rate(2, 4)
    assert scores.refused_rate(o) == Rate(1, 4)
    assert scores.queries_to_detection(o) == 8.0


def test_the_size_in_the_attacks_own_norm_decides_what_is_too_far():
    assert scores.success_rate(outcome(norm="l0", eps=5.0, size=np.array([5.0, 1.0, 1.0, 1.0, 5.1]))) == Rate(1, 4)
    assert scores.success_rate(outcome(norm="l0", eps=6.0, size=np.array([5.0, 1.0, 1.0, 1.0, 5.1]))) == Rate(2, 4)


def test_the_summary_is_json_without_nan():
    document = scores.summary(outcome(detected_at=np.full(5, NEVER)))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["attack_success"] == {"hits": 1, "n": 4, "rate": 0.25, "interval_95": list(Rate(1, 4).interval)}
    assert document["median_queries_to_detection"] is None
    assert document["median_queries"] == 25.0
    assert document["median_linf_of_successes"] == 0.3


def test_tpr_at_fpr_by_hand():
    clean = np.arange(100) / 100  # 0.00 ... 0.99
    assert scores.threshold_at(clean, 0.04) == pytest.approx(0.95)
    tpr, fpr = scores.tpr_at_fpr(clean, np.array([0.94, 0.95, 0.951, 2.0]), 0.04)
    assert fpr == Rate(4, 100)
    assert tpr == Rate(2, 4)


def test_ties_never_pass_the_promised_fpr():
    clean = np.array([0.0] * 90 + [1.0] * 10)
    _, fpr = scores.tpr_at_fpr(clean, np.array([1.0]), 0.05)
    assert fpr.value <= 0.05
    with pytest.raises(ValueError, match="needs clean scores"):
        scores.threshold_at(np.array([]), 0.05)
    with pytest.raises(ValueError, match="needs clean scores"):
        scores.threshold_at(clean, 1.0)
