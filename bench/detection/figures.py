"""What scores come to: AUROC with DeLong's interval, detection at a false-positive rate, with Wilson's.

Scores of clean inputs against those of adversarial ones, higher = more suspicious. A detection rate at 1 % or 5 % puts
the threshold at that quantile of the clean scores; its interval is of the adversarial inputs alone.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from adversary.attack import Array
from adversary.scores import Rate, finite, rate, tpr_at_fpr

RATES = (0.01, 0.05)
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Area:
    """The chance that an adversarial input scores above a clean one, ties counted half; its 95 % interval."""

    value: float
    interval: tuple[float, float]

    def plain(self) -> dict[str, Any]:
        """As data for JSON."""
        return {"value": finite(self.value), "interval_95": [finite(end) for end in self.interval]}


def area(clean: Array, hostile: Array) -> Area:
    """(n,), (m,) scores -> the AUROC.

    Source: DeLong, DeLong, Clarke-Pearson 1988; the fast form of Sun, Xu 2014. The interval is taken on the logit's
    scale, so that it stays within 0 and 1; where all pairs are in order, its width is that of Wilson's for the fewer.
    """
    if not len(clean) or not len(hostile):
        return Area(math.nan, (0.0, 1.0))
    of_hostile, of_clean = _placements(clean, hostile), 1.0 - _placements(hostile, clean)
    value = float(of_hostile.mean())
    variance = _variance(of_hostile) / len(hostile) + _variance(of_clean) / len(clean)
    if variance <= 0.0 or not 0.0 < value < 1.0:
        few = min(len(clean), len(hostile))
        return Area(value, Rate(round(value * few), few).interval)
    centre, half = math.log(value / (1.0 - value)), _Z95 * math.sqrt(variance) / (value * (1.0 - value))
    return Area(value, (_logistic(centre - half), _logistic(centre + half)))


def _placements(below: Array, above: Array) -> Array:
    """(n,), (m,) -> (m,) the share of `below` that each lies above, ties counted half."""
    ranked = np.sort(np.asarray(below, np.float64))
    left, right = (np.searchsorted(ranked, np.asarray(above, np.float64), side) for side in ("left", "right"))
    return np.asarray((left + right) / (2.0 * len(ranked)))


def _variance(values: Array) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else 0.0


@dataclass(frozen=True, slots=True)
class Detected:
    """One detector on one attack. tpr: at RATES."""

    auroc: Area
    tpr: tuple[Rate, ...]

    def plain(self) -> dict[str, Any]:
        """As data for JSON."""
        at = {f"tpr_at_{100 * share:g}_fpr": found.plain() for share, found in zip(RATES, self.tpr, strict=True)}
        return {"auroc": self.auroc.plain(), **at}


def detected(clean: Array, hostile: Array) -> Detected:
    """(n,), (m,) scores -> the figures."""
    if not len(hostile):
        return Detected(area(clean, hostile), tuple(Rate(0, 0) for _ in RATES))
    return Detected(area(clean, hostile), tuple(tpr_at_fpr(clean, hostile, share)[0] for share in RATES))


def fired(p_values: Array, threshold: float) -> Rate:
    """(N,) -> how many are at or below the threshold."""
    return rate(np.asarray(p_values) <= threshold)
