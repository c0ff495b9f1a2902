import math

import numpy as np
import pytest

from guard.calibration import wilson_interval
from guard.evidence import FRACTIONS, Evidence, log_e_value


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
    p = next(p for p in np.geomspace(1e-6, 0.5, 200_001) if math.exp(log_e_value(float(p))) <= 8)  # e(p) is 8 there
    one = Evidence().add([p])
    bets = [1 - b + 8 * b for b in FRACTIONS]
    sums = [0.5 * bet for bet in bets]
    assert math.exp(one.log_value) == pytest.approx(np.mean(sums) + 1 / 2, rel=1e-3)
    two = one.add([p])
    sums = [(total + 1 / 6) * bet for total, bet in zip(sums, bets, strict=True)]
    assert two.count == 2
    assert math.exp(two.log_value) == pytest.approx(np.mean(sums) + 1 / 3, rel=1e-3)
    assert two.p_value == pytest.approx(math.exp(-two.log_value))
    assert Evidence().add([p] * 2) == two


def test_benign_callers_are_rarely_ever_flagged() -> None:
    """Ville: of 2,000 callers with 300 uniform p-values each, at most about alpha ever reach 1/alpha."""
    rng = np.random.default_rng(7)
    alpha, callers, flagged = 0.05, 2000, 0
    for _ in range(callers):
        evidence = Evidence()
        for p in rng.random(300):
            evidence = evidence.add([float(p)])
            if evidence.p_value <= alpha:
                flagged += 1
                break
    low, _ = wilson_interval(flagged, callers)
    assert low <= alpha
    assert flagged > 0  # the control: the test is not vacuous


def test_an_attack_after_a_thousand_clean_queries_is_seen_within_ten() -> None:
    evidence = Evidence().add([1.0] * 1000)
    assert evidence.p_value == 1.0
    assert evidence.add([1 / 5001] * 10).p_value < 1e-3


def test_one_hostile_query_of_a_hundred_is_seen_in_the_end() -> None:
    """Large bets lose on the benign ones what they win; the smallest fraction does not."""
    rng, evidence = np.random.default_rng(5), Evidence()
    for i in range(2_000):
        evidence = evidence.add([1e-5 if i % 100 == 99 else float(rng.random())])
    assert evidence.p_value < 1e-3
    assert evidence.log_sums[-1] > 10
    assert evidence.log_sums[0] < 0
