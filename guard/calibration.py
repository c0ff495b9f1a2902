"""Scores to p-values.

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

What a p-value adds up to over time is `guard.evidence`.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guard.types import Array

_FEW = 8


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

    def p_value(self, score: float) -> float:
        """The same of one score."""
        n = self.scores.size
        return (1.0 + n - bisect_left(self.scores, score)) / (n + 1.0)

    def plain(self, scores: Array) -> tuple[float, ...]:
        """The same as plain numbers; a few scores take less than an array's overhead."""
        if len(scores) <= _FEW:
            return tuple([self.p_value(score) for score in scores.tolist()])
        return tuple(self.p_values(scores).tolist())

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


def wilson_interval(hits: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The Wilson score interval of a rate, 95 % by default; (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    rate = hits / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)
