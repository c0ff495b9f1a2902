"""Scores to p-values, and p-values over time to evidence.

**Conformal p-values** (Vovk, Gammerman, Shafer 2005; for outlier detection Bates et al. 2023, arXiv:2104.08279): with n
clean calibration scores, p(s) = (1 + #{calibration >= s}) / (n + 1). If the clean scores and s are exchangeable,
P(p <= a) <= a for every a, whatever the score's distribution. Ties count against the detection, so the test is valid
for discrete scores too.

**One budget for many stages.** A row's statistic over K stages is T = min_k p_k / w_k (a weighted minimum, Westfall and
Young 1993). Its own clean distribution is that of the n calibration rows, each ranked among themselves and the row in
question: n + 1 exchangeable rows to which the same is done, so that no rows have to be set apart. (A calibration row's
p_k is counted without the row in question, which can only make it smaller, and the test stricter.) A stage fires at
p_k <= w_k t, where T <= t holds for floor(budget (n + 1)) - 1 calibration rows at most: so a clean row makes any stage
fire with probability at most the budget, whatever the stages have to do with each other. Where they see the same thing,
each gets more than its share of the budget; splitting it (Bonferroni) would assume the worst.

**Evidence over time.** A p-value becomes an e-value (expectation at most 1 under the null) by the mixture calibrator of
Vovk and Wang 2021 (arXiv:1912.06116): e(p) = (1 - p + p ln p) / (p ln(p)^2), the average of k p^(k-1) over k in (0, 1).
A caller turns hostile at an unknown time, so the e-process is a mixture over the start k with weights
w_k = 1 / (k (k + 1)), which sum to 1:

    S_n = (S_{n-1} + w_n) e_n,        M_n = S_n + 1 / (n + 1)

M is a non-negative supermartingale with M_0 = 1 where the p-values are valid given the past; by Ville's inequality
P(exists n: M_n >= 1/alpha) <= alpha. Waiting n queries before turning hostile costs only a factor n^2 of evidence.

Not covered: the calibration set is finite and used again and again, so p-values of one caller share its luck (the rate
a caller sees is alpha only on average over calibration sets); retries and video frames are not exchangeable with it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guard.types import Array

_LEAST_P = 1e-300
_NEARLY_ONE = -1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The sorted scores of one stage on clean inputs: (n,) float64, finite."""

    scores: NDArray[np.float64]

    @classmethod
    def of(cls, scores: Array) -> "Calibration":
        """Keep the scores of clean inputs. Raises ValueError where there are none or one is not finite."""
        kept = np.sort(np.asarray(scores, dtype=np.float64).ravel())
        if kept.size == 0:
            raise ValueError("no calibration scores")
        if not np.isfinite(kept).all():
            raise ValueError("calibration scores must be finite")
        kept.flags.writeable = False
        return cls(kept)

    def p_values(self, scores: Array) -> NDArray[np.float64]:
        """(N,) scores, finite -> (N,) conformal p-values in [1 / (n + 1), 1]."""
        n = self.scores.size
        as_extreme = n - np.searchsorted(self.scores, np.asarray(scores, dtype=np.float64), side="left")
        return np.asarray((1.0 + as_extreme) / (n + 1.0), dtype=np.float64)

    def own_p_values(self, scores: Array) -> NDArray[np.float64]:
        """The same for the calibration rows themselves: each counts itself, and nobody else is added."""
        return np.asarray(self.p_values(scores) - self.least, dtype=np.float64)

    @property
    def least(self) -> float:
        """The smallest p-value there can be; a threshold below it never fires."""
        return 1.0 / (self.scores.size + 1.0)


def weighted_least(p_values: Array, weights: Array) -> NDArray[np.float64]:
    """(N, K) p-values, (K,) positive weights -> (N,) the statistic T."""
    return np.asarray((np.asarray(p_values, dtype=np.float64) / np.asarray(weights, dtype=np.float64)).min(axis=1))


def joint_threshold(statistics: Array, budget: float) -> float:
    """(n,) T of clean rows -> the largest t such that T <= t holds for a clean row with probability `budget` at most.

    0 where n rows cannot show so small a rate.
    """
    ordered = np.sort(np.asarray(statistics, dtype=np.float64))
    allowed = math.floor(budget * (ordered.size + 1) + 1e-9) - 1
    if allowed < 0:
        return 0.0
    return float(np.nextafter(ordered[min(allowed, ordered.size - 1)], 0.0))


def log_e_value(p: float) -> float:
    """The logarithm of the mixture calibrator at p in (0, 1]: +large for small p, ln(1/2) at 1."""
    p = max(p, _LEAST_P)
    log_p = math.log(p)
    if log_p > _NEARLY_ONE:  # the quotient is 0/0 at 1; its series there is 1/2 - ln(p)/6
        return math.log(0.5 - log_p / 6.0)
    return math.log(1.0 - p + p * log_p) - log_p - 2.0 * math.log(-log_p)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The state of one e-process: log S_n and n. Starts as Evidence()."""

    log_sum: float = -math.inf
    count: int = 0

    def add(self, log_e_values: Iterable[float]) -> "Evidence":
        """One step an e-value."""
        log_sum, count = self.log_sum, self.count
        for log_e in log_e_values:
            count += 1
            log_sum = float(np.logaddexp(log_sum, -math.log(count * (count + 1.0)))) + log_e
        return Evidence(log_sum, count)

    @property
    def log_value(self) -> float:
        """The logarithm of M_n: 0 at the start."""
        return float(np.logaddexp(self.log_sum, -math.log(self.count + 1.0)))

    @property
    def p_value(self) -> float:
        """min(1, 1 / M_n): at most alpha, ever, with probability at most alpha."""
        return math.exp(-max(0.0, self.log_value))


def wilson_interval(hits: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The Wilson score interval of a rate, 95 % by default; (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    rate = hits / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)
