"""The judge's arithmetic: rates with intervals, robust accuracy, TPR at a fixed FPR, queries to detection, norms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adversary.attack import REFUSED, Array
from adversary.runner import NEVER, Outcome

_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Rate:
    """hits of n, with the 95 % Wilson score interval (Wilson 1927); n = 0 is not a number between 0 and 1."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """The share."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        if self.n == 0:
            return 0.0, 1.0
        p, n, z2 = self.hits / self.n, self.n, _Z95**2
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        return max(0.0, centre - half), min(1.0, centre + half)

    def plain(self) -> dict[str, Any]:
        """As data for JSON."""
        return {"hits": self.hits, "n": self.n, "rate": finite(self.value), "interval_95": list(self.interval)}

    def __str__(self) -> str:
        if self.n == 0:
            return "none"
        low, high = self.interval
        return f"{100 * self.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def rate(flags: Array | Sequence[bool]) -> Rate:
    """(N,) truths -> their rate."""
    flags = np.asarray(flags, bool)
    return Rate(int(flags.sum()), flags.size)


def success_rate(outcome: Outcome) -> Rate:
    """Of the victims answered rightly when clean: answered wrongly within eps."""
    return rate(outcome.success[outcome.attacked])


def robust_accuracy(outcome: Outcome) -> Rate:
    """Of all victims: answered rightly when clean, and not attacked with success."""
    return rate(outcome.attacked & ~outcome.success)


def detection_rate(outcome: Outcome) -> Rate:
    """Of the attacked victims: some query of the attack was refused."""
    return rate((outcome.detected_at != NEVER)[outcome.attacked])


def refused_rate(outcome: Outcome) -> Rate:
    """Of the attacked victims: the final adversarial input itself was refused."""
    return rate((outcome.adversarial == REFUSED)[outcome.attacked])


def median_of(values: Array) -> float:
    """The median, not a number where there is nothing."""
    return float(np.median(values)) if len(values) else math.nan


def queries_to_detection(outcome: Outcome) -> float:
    """The median number of rows until the first refusal, of the victims where there was one."""
    return median_of(outcome.detected_at[outcome.attacked & (outcome.detected_at != NEVER)])


def threshold_at(clean: Array, fpr: float) -> float:
    """The score that at most a share fpr of clean scores lies above."""
    if len(clean) == 0 or not 0.0 <= fpr < 1.0:
        raise ValueError("a threshold needs clean scores and a false-positive rate in [0, 1)")
    ranked = np.sort(np.asarray(clean, np.float64))
    return float(ranked[min(len(ranked) - 1, math.ceil(len(ranked) * (1.0 - fpr) - 1e-9) - 1)])


def tpr_at_fpr(clean: Array, attacked: Array, fpr: float) -> tuple[Rate, Rate]:
    """Scores, higher = more suspicious -> (true-positive rate, measured false-positive rate) above the threshold."""
    threshold = threshold_at(clean, fpr)
    return rate(np.asarray(attacked) > threshold), rate(np.asarray(clean) > threshold)


def summary(outcome: Outcome) -> dict[str, Any]:
    """Plain data for JSON. None where there is nothing to measure."""
    won = outcome.success
    return {
        "attack": outcome.attack,
        "norm": outcome.norm,
        "eps": finite(outcome.eps),
        "clean_accuracy": rate(outcome.attacked).plain(),
        "attack_success": success_rate(outcome).plain(),
        "robust_accuracy": robust_accuracy(outcome).plain(),
        "detected": detection_rate(outcome).plain(),
        "median_queries": finite(median_of(outcome.queries[outcome.attacked])),
        "median_queries_to_detection": finite(queries_to_detection(outcome)),
        "median_size_of_successes": finite(median_of(outcome.size[won])),
        "median_linf_of_successes": finite(median_of(outcome.linf[won])),
        "median_l2_of_successes": finite(median_of(outcome.l2[won])),
    }


def finite(value: float) -> float | None:
    """JSON has no word for what is not a number."""
    return float(value) if math.isfinite(value) else None
