"""Whether traffic still is like the clean inputs of the fit, told from p-values alone.

Source:  exact tail of the beta-binomial law, which two-sample ranks follow (Wilks 1941, for tolerance limits): of new
         clean rows, the share whose conformal p-value against n calibration rows is at most k / (n + 1) is Beta(k, n +
         1 - k) over calibration sets, so that the luck of the calibration set is part of the test. One-sided
         Kolmogorov-Smirnov distance, to look at.
Answers: inputs that have come to look more suspicious than those of the fit (another camera, another season), for which
         detectors fire more often than the budget says. Scores that sink do no harm and raise no alarm.
Choices: only rows count that are presumably clean. Rows that a detector flagged, and all of a query whose caller a
         monitor flagged, are left out; given that p is above the stage's threshold k_t / (n + 1), it is at most
         k / (n + 1) with a probability that is Beta(k - k_t, n + 1 - k) over calibration sets.
         Tests at QUANTILES of the last WINDOW rows, at every EVERY-th row. Look j has the level rate 6 / (pi j)^2,
         shared by the quantiles: so a stage whose p-values are valid raises an alarm *ever* with probability `rate` at
         most, however long it is watched. (Rows that other detectors flagged are missing, too: where detectors
         contradict each other, that makes a small p-value more likely by at most 1 / (1 - budget).)
         Where more than half of the last rows are flagged, and that is beyond chance, the alarm is raised, too: inputs
         that have changed altogether look like an attack by everybody, and somebody has to see which it is.
Bypass:  an attacker who stays below every threshold looks like drift. Rows that are sent over and over again, as probes
         do, count each time.
Cost:    some 50 us a look and stage, an append a row.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from guard.techniques import COHORT
from guard.types import Array, Finding

WINDOW = 1000
EVERY = 250
QUANTILES = (0.02, 0.05, 0.1, 0.2, 0.5)
RATE = 0.01
"""How likely a stage that does not drift is to raise an alarm, ever."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One stage: the p-value at which it fires, and how many clean scores it was calibrated with."""

    threshold: float
    calibrated: int


@dataclass(frozen=True, slots=True)
class Report:
    """What one look has found.

    rows:     presumably clean ones in the window.
    distance: the most by which the share of p-values up to some value exceeds what it should be; 0 to 1.
    expected: share of clean rows that the stage may flag.
    observed: share of the last rows that it flagged, whoever sent them but flagged callers.
    alarm:    small p-values are more frequent than chance allows, or most rows are flagged.
    """

    rows: int
    distance: float
    expected: float
    observed: float
    alarm: bool


class Drift:
    """The stages of one model. Not for several threads at once.

    stages: by name. reports: of those that have been looked at.
    """

    def __init__(self, stages: Mapping[str, Watched], rate: float = RATE) -> None:
        self.stages = MappingProxyType(dict(stages))
        self._windows = {name: _Window(stage, rate) for name, stage in stages.items()}

    @property
    def reports(self) -> Mapping[str, Report]:
        """The latest look at each stage."""
        return {name: window.report for name, window in self._windows.items() if window.report is not None}

    def add(self, findings: Iterable[Finding]) -> Mapping[str, Report]:
        """What was found on one query; returns the looks that were due."""
        found = tuple(findings)
        own = [f for f in found if f.kind == "detector" and f.stage in self.stages and f.p_values]
        if not own or any(f.kind == "monitor" and f.fired and not f.stage.startswith(COHORT) for f in found):
            return {}
        rows = len(own[0].p_values)
        p_values = {f.stage: np.asarray(f.p_values) for f in own if len(f.p_values) == rows}
        flagged = np.any([p <= self.stages[name].threshold for name, p in p_values.items()], axis=0)
        looked = {name: self._windows[name].add(p, flagged) for name, p in p_values.items()}
        return {name: report for name, report in looked.items() if report is not None}


class _Window:
    """The last rows of one stage."""

    def __init__(self, stage: Watched, rate: float) -> None:
        self._stage, self._rate = stage, rate
        self._ranks: deque[int] = deque(maxlen=WINDOW)
        self._fired: deque[bool] = deque(maxlen=WINDOW)
        self._fresh = self._looks = 0
        self.report: Report | None = None

    def add(self, p_values: Array, flagged: Array) -> Report | None:
        """(N,) p-values, and rows that are left out; the look, where one was due."""
        ranks = np.rint(p_values[~flagged] * (self._stage.calibrated + 1))
        self._ranks.extend(ranks.astype(int).tolist())
        self._fired.extend((p_values <= self._stage.threshold).tolist())
        self._fresh += len(p_values)
        if self._fresh < EVERY:
            return None
        self._fresh, self._looks = 0, self._looks + 1
        self.report = self._look()
        return self.report

    def _look(self) -> Report:
        ranks = np.sort(np.fromiter(self._ranks, dtype=np.int64))
        n, fires = self._stage.calibrated, rank_of(self._stage.threshold, self._stage.calibrated)
        tails = [
            tail(int(np.searchsorted(ranks, last, side="right")), len(ranks), last - fires, n + 1 - last)
            for last in (rank_of(quantile, n) for quantile in QUANTILES)
            if fires < last <= n
        ]
        fired = sum(self._fired)
        if 2 * fired > len(self._fired):
            tails.append(tail(fired, len(self._fired), fires, n + 1 - fires) if fires else 0.0)
        return Report(
            rows=len(ranks),
            distance=distance(ranks, fires, n),
            expected=self._stage.threshold,
            observed=fired / len(self._fired),
            alarm=min(tails, default=1.0) <= self._rate * 6 / (math.pi * self._looks) ** 2 / (len(QUANTILES) + 1),
        )


def rank_of(p: float, calibrated: int) -> int:
    """The largest k with k / (n + 1) <= p, in the arithmetic of the p-values themselves."""
    k = min(max(int(p * (calibrated + 1)) + 1, 0), calibrated + 1)
    while k > 0 and k / (calibrated + 1.0) > p:
        k -= 1
    return k


def tail(count: int, rows: int, a: int, b: int) -> float:
    """P(X >= count) for X of the beta-binomial law: `rows` draws, each with one probability that is Beta(a, b)."""
    if count <= 0:
        return 1.0
    log_first = (
        math.lgamma(rows + 1)
        - math.lgamma(count + 1)
        - math.lgamma(rows - count + 1)
        + _log_beta(count + a, rows - count + b)
        - _log_beta(a, b)
    )
    x = np.arange(count, rows, dtype=np.float64)
    ratios = (rows - x) * (a + x) / ((x + 1) * (b + rows - x - 1))
    return min(1.0, math.exp(log_first) * (1.0 + float(np.cumprod(ratios).sum())))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def distance(ranks: NDArray[np.int64], fires: int, calibrated: int) -> float:
    """(N,) sorted ranks above `fires` -> how far their distribution rises above the uniform one at most."""
    if not len(ranks):
        return 0.0
    upto = np.searchsorted(ranks, ranks, side="right") / len(ranks)
    return float(max(0.0, (upto - (ranks - fires) / (calibrated + 1 - fires)).max()))
