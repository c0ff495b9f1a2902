"""p-values and evidence: hand-computed values, validity under the null, power under an attack."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.calibration import Calibration, Evidence, log_e_value, wilson_interval


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


@pytest.mark.parametrize(("p", "e"), [(1.0, 0.5), (0.5, 0.63867394), (0.01, 4.45099226), (1e-4, 117.76194877)])
def test_e_values_are_the_integral_over_kappa(p: float, e: float) -> None:
    kappa = (np.arange(2_000_000) + 0.5) / 2_000_000
    assert np.mean(kappa * p ** (kappa - 1.0)) == pytest.approx(e, rel=1e-6)
    assert math.exp(log_e_value(p)) == pytest.approx(e, rel=1e-6)


def test_e_values_are_continuous_at_one_and_finite_at_zero() -> None:
    assert log_e_value(1.0 - 1e-4) == pytest.approx(log_e_value(1.0 - 1.0001e-4), abs=1e-7)
    assert math.isfinite(log_e_value(0.0))
    assert log_e_value(0.0) > log_e_value(1e-12) > 0


def test_e_values_average_to_one_under_the_null() -> None:
    """The midpoint rule on a logarithmic grid, since e is integrable but unbounded at 0."""
    log_p = np.linspace(math.log(1e-290), 0.0, 400_001)
    p = np.exp((log_p[1:] + log_p[:-1]) / 2)
    total = sum(math.exp(log_e_value(float(x))) * float(x) for x in p) * (log_p[1] - log_p[0])
    # what is missing below 1e-290 is the integral's tail, 1 / -ln(1e-290)
    assert total + 1 / -math.log(1e-290) == pytest.approx(1.0, abs=1e-4)


def test_evidence_starts_at_one() -> None:
    assert Evidence().log_value == 0.0
    assert Evidence().p_value == 1.0
    assert Evidence().add([]) == Evidence()


def test_evidence_by_hand() -> None:
    # S_1 = 1/2 * 8 = 4, M_1 = 4.5;  S_2 = (4 + 1/6) * 8 = 33.33, M_2 = 33.67
    one = Evidence().add([math.log(8)])
    assert math.exp(one.log_value) == pytest.approx(4.5)
    two = one.add([math.log(8)])
    assert two.count == 2
    assert math.exp(two.log_value) == pytest.approx(33.0 + 2.0 / 3.0)
    assert two.p_value == pytest.approx(1 / (33.0 + 2.0 / 3.0))
    assert Evidence().add([math.log(8)] * 2) == two


def test_benign_callers_are_rarely_ever_flagged() -> None:
    """Ville: of 2,000 callers with 300 uniform p-values each, at most about alpha ever reach 1/alpha."""
    rng = np.random.default_rng(7)
    alpha, callers, flagged = 0.05, 2000, 0
    for _ in range(callers):
        evidence = Evidence()
        for p in rng.random(300):
            evidence = evidence.add([log_e_value(float(p))])
            if evidence.p_value <= alpha:
                flagged += 1
                break
    low, _ = wilson_interval(flagged, callers)
    assert low <= alpha
    assert flagged > 0  # the control: the test is not vacuous


def test_an_attack_after_a_thousand_clean_queries_is_seen_within_ten() -> None:
    evidence = Evidence().add([log_e_value(1.0)] * 1000)
    assert evidence.p_value == 1.0
    assert evidence.add([log_e_value(1 / 5001)] * 10).p_value < 1e-3


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 0, 0.0, 1.0), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval(hits: int, n: int, low: float, high: float) -> None:
    """The last row is the worked example of Newcombe 1998."""
    assert wilson_interval(hits, n) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
