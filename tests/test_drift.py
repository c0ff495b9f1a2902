"""Drift: exact tails, alarms within the stated rate, and changes that are told in time."""

import math

import numpy as np
import pytest
from scipy import stats

from guard.calibration import Calibration
from guard.drift import EVERY, QUANTILES, RATE, WINDOW, Drift, Watched, distance, rank_of, tail
from guard.types import Array, Finding, Mode

BUDGET = 0.01


@pytest.mark.parametrize(("rows", "a", "b"), [(1000, 40, 961), (1000, 1, 2000), (250, 490, 511), (10, 3, 1)])
def test_tails_are_those_of_the_beta_binomial_law(rows: int, a: int, b: int) -> None:
    for count in (0, 1, rows // 20, rows // 2, rows - 1, rows):
        expected = np.exp(stats.betabinom.logpmf(np.arange(count, rows + 1), rows, a, b)).sum()  # sf cancels
        assert tail(count, rows, a, b) == pytest.approx(expected, rel=1e-6, abs=1e-290)


@pytest.mark.parametrize("n", [99, 1000, 4999])
def test_ranks_agree_with_the_p_values(n: int) -> None:
    p_values = np.arange(1, n + 2) / (n + 1.0)
    for p in (0.0, 0.01, 0.02, 0.3, float(p_values[7]), float(np.nextafter(p_values[7], 0)), 1.0):
        assert rank_of(p, n) == (p_values <= p).sum()


def test_the_distance_is_the_one_sided_one() -> None:
    assert distance(np.zeros(0, np.int64), 0, 99) == 0
    assert distance(np.array([50]), 0, 99) == pytest.approx(0.5)
    assert distance(np.array([10, 10, 100, 100]), 0, 99) == pytest.approx(0.4)
    assert distance(np.array([100, 100]), 0, 99) == 0
    rng = np.random.default_rng(0)
    ranks = np.sort(rng.integers(1, 101, 500))
    expected = stats.ks_1samp(ranks, lambda x: x / 100, alternative="greater").statistic
    assert distance(ranks, 0, 99) == pytest.approx(expected, abs=0.011)  # the law steps


def finding(p_values: Array, stage: str = "s", kind: str = "detector", threshold: float = BUDGET) -> Finding:
    p = tuple(map(float, p_values))
    return Finding(stage, kind, Mode.SHADOW, scores=p, p_values=p, threshold=threshold)  # type: ignore[arg-type]


def watched(calibrated: int = 2000) -> Drift:
    return Drift({"s": Watched(BUDGET, calibrated)})


def traffic(shift: float, seed: int, *, calibrated: int = 2000, looks: int = 1, law: str = "normal") -> list[bool]:
    """The looks at one stream of scores, calibrated on a set of its own; `shift`: by how much scores rise."""
    rng = np.random.default_rng(seed)
    scores = {"normal": rng.normal, "ties": lambda size: np.floor(rng.exponential(3, size))}[law]
    clean, drift = Calibration.of(scores(size=calibrated)), watched(calibrated)
    alarms = []
    while len(alarms) < looks:
        reports = drift.add([finding(clean.p_values(scores(size=EVERY) + shift))])
        alarms += [report.alarm for report in reports.values()]
    return alarms


@pytest.mark.parametrize(("calibrated", "law"), [(200, "normal"), (2000, "normal"), (2000, "ties")])
def test_alarms_without_a_change_are_as_rare_as_stated(calibrated: int, law: str) -> None:
    """200 streams of 20 looks (5,000 rows): at most 1 % of them may ever raise an alarm."""
    ever = sum(any(traffic(0.0, seed, calibrated=calibrated, looks=20, law=law)) for seed in range(200))
    assert stats.binom.sf(ever - 1, 200, RATE) > 0.001  # so many are not more than the stated rate explains


def test_a_calibration_sets_luck_is_no_drift() -> None:
    """The control: with tails that take the calibration for the truth, 100 clean rows of it raise alarms by luck."""
    naive = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        clean = Calibration.of(rng.normal(size=100))
        p = clean.p_values(rng.normal(size=WINDOW))
        counts = [(p <= q).sum() for q in QUANTILES]
        naive += any(
            stats.binom.sf(c - 1, WINDOW, q) <= RATE / len(QUANTILES) for c, q in zip(counts, QUANTILES, strict=True)
        )
    assert naive > 20  # stated: 2


def test_rows_that_become_more_suspicious_are_told() -> None:
    """Normal scores that rise by 0.35 deviations flag 2.4 % of clean rows where 1 % was agreed."""
    assert all(any(traffic(0.35, seed, looks=12)) for seed in range(40))
    assert not any(any(traffic(-0.35, seed, looks=12)) for seed in range(40))  # less suspicious: no harm


def test_flagged_rows_and_flagged_callers_are_left_out() -> None:
    rng = np.random.default_rng(0)
    clean, attack = rng.uniform(BUDGET, 1, (40, 50)), np.full(50, 0.001)
    drift = watched()
    for p in clean:
        drift.add([finding(p), finding([0.001], kind="monitor", stage="m", threshold=0.01)])
        assert not drift.reports
    for p in clean:
        drift.add([finding(np.concatenate([p, attack]))])
    (report,) = drift.reports.values()
    assert not report.alarm
    assert report.rows == WINDOW
    assert report.observed == pytest.approx(0.5)
    assert report.expected == BUDGET
    for p in clean:
        drift.add([finding(p * 0.5 + BUDGET)])
    assert drift.reports["s"].alarm
    assert drift.reports["s"].distance > 0.4


def test_a_row_that_one_stage_flags_counts_for_none() -> None:
    drift = Drift({"s": Watched(BUDGET, 999), "t": Watched(BUDGET, 999)})
    rng = np.random.default_rng(0)
    for _ in range(WINDOW // 50):
        p = rng.uniform(0.02, 1, 100)
        attacked = np.where(np.arange(100) < 50, 0.02, p)  # just above this stage's threshold
        flagged = np.where(np.arange(100) < 50, 0.001, p)
        drift.add([finding(attacked), finding(flagged, stage="t")])
    assert {name: report.alarm for name, report in drift.reports.items()} == {"s": False, "t": False}
    for _ in range(WINDOW // 50):
        drift.add([finding(attacked)])  # the control: nobody else says that they are no clean rows
    assert drift.reports["s"].alarm


def test_inputs_that_have_changed_altogether_are_told() -> None:
    """Every row flagged: none is left to be tested, and the alarm is raised all the same."""
    drift = watched()
    drift.add([finding(np.full(EVERY, 0.001))])
    report = drift.reports["s"]
    assert (report.rows, report.distance, report.observed, report.alarm) == (0, 0.0, 1.0, True)
    mostly = Drift({"s": Watched(0.6, 999)})  # a stage that may flag most rows is not told off for it
    mostly.add([finding(np.random.default_rng(0).uniform(size=EVERY), threshold=0.6)])
    assert mostly.reports["s"].observed > 0.5
    assert not mostly.reports["s"].alarm
    never = Drift({"s": Watched(0.001, 99)})  # it cannot flag a row, as far as its calibration goes
    never.add([finding(np.full(EVERY, 0.0005))])
    assert never.reports["s"].alarm


def test_a_look_is_due_every_so_many_rows() -> None:
    drift, looks = watched(), 0
    for i in range(1, 1001):
        got = drift.add([finding([0.5])])
        looks += len(got)
        assert looks == i // EVERY
    assert drift.add([]) == {}
    assert drift.add([finding([0.5], stage="other"), Finding("s", "detector", Mode.ENFORCE, error="broken")]) == {}
    drift.add([finding(np.full(5000, 0.5))])
    assert drift.reports["s"].rows == WINDOW


def test_levels_sum_to_the_rate() -> None:
    assert sum(6 / (math.pi * j) ** 2 for j in range(1, 200_000)) == pytest.approx(1, abs=1e-5)


def test_thresholds_that_leave_nothing_to_test() -> None:
    drift = Drift({"s": Watched(0.9, 99)})
    drift.add([finding(np.full(EVERY, 0.95), threshold=0.9)])
    assert not drift.reports["s"].alarm
    drift = Drift({"s": Watched(0.0, 3)})
    drift.add([finding(np.full(EVERY, 0.25), threshold=0.0)])
    assert drift.reports["s"].alarm


def test_a_cohort_that_is_alarming_is_not_the_callers_fault() -> None:
    """Were it, an alarm over all callers would blind the watch over drift."""
    drift = Drift({"d": Watched(0.01, 99)})
    own = Finding("d", "detector", Mode.ENFORCE, (0.0,) * EVERY, (0.5,) * EVERY, 0.01)
    caller = Finding("alert", "monitor", Mode.ENFORCE, (3.0,), (0.0,), 1.0)
    cohort = Finding("cohort global", "monitor", Mode.SHADOW, (1.0,), (0.0,), 0.0)
    assert drift.add((own, caller)) == {}
    assert set(drift.add((own, cohort))) == {"d"}
