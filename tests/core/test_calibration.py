"""p-values and evidence: hand-computed values, validity under the null, power under an attack."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.calibration import Calibration, wilson_interval
from guard.evidence import FRACTIONS, log_e_value


def test_p_values_by_hand() -> None:
    calibration = Calibration.of(np.array([3.0, 1.0, 2.0, 2.0]))
    # (1 + #{calibration >= s}) / 5
    assert calibration.p_values(np.array([0.0, 1.0, 2.0, 2.5, 3.0, 9.0])).tolist() == [1.0, 1.0, 0.8, 0.4, 0.4, 0.2]
    assert calibration.least == 0.2


@pytest.mark.parametrize(
    ("scores", "text"), [([], "no calibration"), ([1.0, math.nan], "finite"), ([math.inf], "finite")]
)
def test_unusable_calibration_is_refused(scores: list[float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Calibration.of(np.array(scores))


def test_calibration_scores_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Calibration.of(np.array([1.0])).scores[0] = 2.0


@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_p_values_are_super_uniform_even_with_ties(n: int, levels: int, seed: int) -> None:
    """Averaged over which of n + 1 exchangeable scores is the new one, P(p <= a) <= a."""
    scores = np.random.default_rng(seed).integers(0, levels, n + 1).astype(float)
    p = np.array([Calibration.of(np.delete(scores, i)).p_values(scores[i : i + 1])[0] for i in range(n + 1)])
    for a in np.unique(p):
        assert (p <= a).mean() <= a + 1e-12


@pytest.mark.parametrize("n", [200, 500, 2000])
def test_evidence_does_not_grow_with_the_bad_luck_of_a_calibration_set(n: int) -> None:
    """What a benign caller's evidence grows by with a query, over 100 calibration sets; it may be judged by one for
    ever. That p-values end at 1 / (n + 1) takes more from the mixture's heavy tail than luck gives."""
    rng, scores = np.random.default_rng(3), (np.arange(5_000) + 0.5) / 5_000
    for _ in range(100):
        p_values = Calibration.of(rng.random(n)).p_values(scores)
        e_values = np.array([math.exp(log_e_value(float(p))) for p in p_values])
        for fraction in FRACTIONS:
            assert np.log1p(fraction * (e_values - 1)).mean() < 0


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 0, 0.0, 1.0), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval(hits: int, n: int, low: float, high: float) -> None:
    """The last row is the worked example of Newcombe 1998."""
    assert wilson_interval(hits, n) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
