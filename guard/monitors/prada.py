"""Whether the distances between a caller's queries are distributed as those of natural inputs are: about normally.

For each predicted class a growing set of rows; a row's distance is the least to the set of its class, and it joins the
set where that exceeds the threshold T = max(T, mean - deviation of the class's accepted distances). The distances of
all classes, without those that lie 3 deviations out, are tested for normality by Shapiro and Wilk's W.

Source:  PRADA, Juuti et al. 2019, arXiv:1805.02628; W by Royston 1995, Applied Statistics 44, algorithm AS R94. Mended
         against the published code: distances that are all equal are as far from normal as can be instead of never
         alarming; a threshold per class; each window is judged once, as a p-value against clean windows of the same
         number of rows, instead of an alarm at a fixed W every ten queries that may clear again; positions are floats
         (raw bytes wrap around).
Answers: extraction by queries made from each other (Papernot's JBDA, Tramer's, T-RND).
         Known bypass: natural images (Knockoff, Orekondy et al. 2019), Sybils, padding with rows that mend the
         shape, and rounds longer than the window: what is made from rows of an earlier window is far from all of this.
Args:    recent: `window` rows, oldest first: positions, whose distances are about those of the pooled inputs (they
         stand in for L2 in the input space), and labels.
Returns: 1 - W in [0, 1], standardised for the number of distances (Royston's z); higher = less normal. FEWEST distances
         or fewer tell nothing: the least score.
Cost:    0.003 ms a row at a window of 256; no upstream row, nothing kept.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from guard.registry import register
from guard.types import Array, Recent

FEWEST = 12
LEAST = -10.0
_OUTLYING = 3.0
_ALL_EQUAL = 1e-9
_W_LEAST = 1e-6
_INNER = (-2.706056, 4.434685, -2.07119, -0.147981, 0.221157)  # of the last weight, powers 5 to 1 of n^(-1/2)
_NEXT = (-3.582633, 5.682633, -1.752461, -0.293762, 0.042981)  # of the last but one


@register("monitor", "prada")
@dataclass(frozen=True)
class Prada:
    """window: rows judged together; the longest by default, as the paper's growing sets have no end."""

    window: Annotated[int, Field(ge=32, le=256)] = 256

    def judge_window(self, recent: Recent) -> float:
        """-> the score."""
        distances = least_distances(recent.positions.astype(np.float64), recent.labels)
        spread = float(distances.std()) if len(distances) else 0.0
        if spread > _ALL_EQUAL:
            distances = distances[np.abs(distances - distances.mean()) < _OUTLYING * spread]
        return standardised(shapiro_wilk(distances), len(distances)) if len(distances) > FEWEST else LEAST


def least_distances(rows: Array, labels: Array) -> NDArray[np.float64]:
    """(N, D), (N,) in order of arrival -> a row's distance to its class's growing set, but for the first of a class."""
    between = _distances(rows)
    members: dict[int, list[int]] = {}
    sums: dict[int, tuple[int, float, float]] = {}  # of what was accepted: how many, their mean, their variance's sum
    thresholds: dict[int, float] = {}
    found = []
    for i, label in enumerate(labels.tolist()):
        if label not in members:
            members[label], sums[label], thresholds[label] = [i], (0, 0.0, 0.0), 0.0
            continue
        least = float(between[i, members[label]].min())
        found.append(least)
        if least > thresholds[label]:
            members[label].append(i)
            count, mean, spread = sums[label]
            off, count = least - mean, count + 1
            mean += off / count
            spread += off * (least - mean)
            sums[label] = count, mean, spread
            thresholds[label] = max(thresholds[label], mean - math.sqrt(max(0.0, spread) / count))
    return np.asarray(found)


def shapiro_wilk(values: Array) -> float:
    """(n,), n > FEWEST -> W in (0, 1], 1 for normal ones; 0 where all are equal."""
    x = np.sort(np.asarray(values, dtype=np.float64))
    x = x - x.mean()
    total = float((x**2).sum())
    if total <= _ALL_EQUAL**2 * len(x):
        return 0.0
    return min(1.0, float((_weights(len(x)) @ x) ** 2 / total))


def standardised(w: float, n: int) -> float:
    """Royston's z of W for n > 11 values: about standard normal where they are normal, large where they are not."""
    log = math.log(n)
    mean = 0.0038915 * log**3 - 0.083751 * log**2 - 0.31082 * log - 1.5861
    deviation = math.exp(0.0030302 * log**2 - 0.082676 * log - 0.4803)
    return max(LEAST, (math.log(max(1.0 - w, _W_LEAST)) - mean) / deviation)


@lru_cache(maxsize=512)
def _weights(n: int) -> NDArray[np.float64]:
    """(n,) Royston's approximation of the weights, of length 1 and antisymmetric."""
    normal = NormalDist()
    m = np.array([normal.inv_cdf((i - 0.375) / (n + 0.25)) for i in range(1, n + 1)])
    length, small = float(m @ m), 1.0 / math.sqrt(n)
    last = float(np.polyval([*_INNER, m[-1] / math.sqrt(length)], small))
    second = float(np.polyval([*_NEXT, m[-2] / math.sqrt(length)], small))
    rest = (length - 2.0 * m[-1] ** 2 - 2.0 * m[-2] ** 2) / (1.0 - 2.0 * last**2 - 2.0 * second**2)
    a: NDArray[np.float64] = m / math.sqrt(rest)
    a[-1], a[-2], a[0], a[1] = last, second, -last, -second
    a.flags.writeable = False
    return a


def _distances(rows: Array) -> NDArray[np.float64]:
    lengths = (rows**2).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(lengths[:, None] + lengths[None] - 2.0 * rows @ rows.T, 0.0)))
