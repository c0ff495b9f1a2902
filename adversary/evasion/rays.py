"""RayS: searches the corners of the linf ball for the nearest boundary, flipping ever smaller blocks of signs.

Source: Chen, Gu 2020, arXiv:2006.12792.
Access: labels. Norm: linf. Cost: up to `budget` queries a victim, one after the other. Nothing is random.
Limits: blocks follow the order of values in memory, so halves of the rows come first. A refused query counts as not
        adversarial, and one at the wrong moment costs a whole block.

A direction of signs that is adversarial at the best radius so far is searched for its boundary and kept if nearer;
otherwise one query has dismissed it.
"""

import math
from collections.abc import Iterator
from itertools import count

import numpy as np

from adversary import boundary
from adversary.attack import Array, LabelOracle, Meter, Result
from adversary.walks import approach

_TOLERANCE = 1e-3  # l2, as in the authors' code


def blocks(size: int) -> Iterator[slice]:
    """The whole, its halves, quarters ... single values, and from the start again."""
    for level in count():
        length = max(1, math.ceil(size / 2**level))
        for start in range(0, size, length):
            yield slice(start, min(start + length, size))


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
) -> Result:
    """Stops at linf <= eps or when the budget is spent."""
    del rng  # nothing is random here

    def walk(i: int, meter: Meter) -> Iterator[Array]:
        x0 = np.asarray(x[i], np.float64)
        signs, radius = np.ones(x0.size), math.inf
        for block in blocks(x0.size):
            tried = signs.copy()
            tried[block] *= -1.0
            here = _search(x0, tried.reshape(x0.shape), min(radius, 1.0), meter)
            if here < radius:
                signs, radius = tried, here
                yield np.clip(x0 + radius * signs.reshape(x0.shape), 0.0, 1.0)

    return approach(target, x, y, eps=eps, norm="linf", budget=budget, batch=1, walk=walk)


def _search(x: Array, signs: Array, radius: float, meter: Meter) -> float:
    """The boundary's radius along these signs, infinite where it lies beyond the given one."""

    def path(at: float) -> Array:
        return np.asarray(np.clip(x + at * signs, 0.0, 1.0))

    if not boundary.adversarial(meter, path(radius)):
        return math.inf
    return boundary.bisect(meter, path, 0.0, radius, _TOLERANCE / math.sqrt(x.size))
