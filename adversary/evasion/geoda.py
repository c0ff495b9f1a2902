"""GeoDA: takes the boundary for flat, estimates its normal by labels, and looks for it along that normal from x.

Source: Rahmati, Moosavi-Dezfooli, Frossard, Dai 2020, arXiv:2003.06468.
Access: labels. Norm: l2, or linf along the normal's signs. Cost: up to `budget` queries a victim.
Limits: images only. A strongly curved boundary, or a normal outside of the low frequencies, keeps it far off.

The queries of all steps grow by (3/5)^(-2/3) from the 50 to 80 of the first, and their estimates add up; probes are
noise of low frequencies and travel up to `batch` a call. What remains after the last step goes on with its number.
Along the normal the radius grows from the last distance, doubling, where the authors' code makes steps of five times
the estimate, a length that depends on how the input is normalised. A refused query counts as not adversarial.
"""

import math
from collections.abc import Iterator
from itertools import chain, repeat

import numpy as np

from adversary import boundary
from adversary.attack import Array, BudgetSpent, LabelOracle, LpNorm, Meter, Result, norms
from adversary.bases import low_frequencies
from adversary.images import like, planes
from adversary.walks import approach

_FIRST_AT_MOST = 80  # queries of the first step
_SEARCHES = 25  # queries of a step that go into searches
_LARGE = 128  # pixels
_GROWTH = 2.0


def schedule(budget: int, growth: float) -> list[int]:
    """How many probes each step gets."""
    for steps in range(1, 64):
        parts = growth ** np.arange(steps)
        sizes = np.round(max(budget - steps * _SEARCHES, steps) * parts / parts.sum()).astype(int)
        if sizes[0] <= _FIRST_AT_MOST:
            return [max(1, int(size)) for size in sizes]
    raise AssertionError("no budget needs as many steps")


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    starts: Array | None = None,
    norm: LpNorm = "l2",
    share: float | None = None,
    sigma: float = 2e-4,
    tolerance: float = 1e-4,
    mu: float = 0.6,
    batch: int = 64,
) -> Result:
    """Stops within eps or when the budget is spent.

    starts:            (N, ...) inputs of another class to come from.
    share:             of each side's frequencies: by default the authors' third, but half of small images'.
    sigma, tolerance:  the probes' deviation, and how near to the boundary they are made, in l2.
    """
    channels, height, width = planes(x).shape[1:]
    if share is None:
        share = 1 / 3 if min(height, width) >= _LARGE else 1 / 2
    subspace = low_frequencies(height, width, share)

    def noise(n: int) -> Array:
        return like(subspace.lift(rng.standard_normal((n, channels, *subspace.small))), x)

    def walk(i: int, meter: Meter) -> Iterator[Array]:
        x0 = np.asarray(x[i], np.float64)
        point = boundary.start(meter, x0, rng, None if starts is None else starts[i])
        yield point
        point = boundary.blend(meter, x0, point, _relative(tolerance, point - x0))
        yield point
        normal = np.zeros(x0.shape)
        sizes = schedule(meter.left, mu ** (-2.0 / 3.0))
        for n in chain(sizes, repeat(sizes[-1])):
            if meter.left < 1:
                raise BudgetSpent
            probes = noise(min(n, meter.left))
            hits = meter.adversarial(np.clip(point + sigma * probes, 0.0, 1.0))
            normal += np.tensordot(np.where(hits, 1.0, -1.0), probes, axes=1) / len(probes)
            found = _along(x0, np.sign(normal) if norm == "linf" else normal, point, meter, norm, tolerance)
            if found is not None:
                point = found
                yield point

    return approach(target, x, y, eps=eps, norm=norm, budget=budget, batch=batch, walk=walk)


def _relative(tolerance: float, delta: Array) -> float:
    return tolerance / max(float(np.linalg.norm(delta)), tolerance)


def _along(x: Array, normal: Array, point: Array, meter: Meter, norm: LpNorm, tolerance: float) -> Array | None:
    """The boundary along a direction from x, as far as the corner of [0, 1]; None where there is none."""
    length = float(norms(normal[None], norm)[0])
    if length == 0.0:
        return None

    def path(radius: float) -> Array:
        return np.asarray(np.clip(x + radius * normal / length, 0.0, 1.0))

    low, high = 0.0, float(norms((point - x)[None], norm)[0])
    most = math.sqrt(x.size) if norm == "l2" else 1.0
    while not boundary.adversarial(meter, path(high)):
        low, high = high, high * _GROWTH
        if low > most:
            return None
    scale = 1.0 if norm == "l2" else math.sqrt(x.size)
    return path(boundary.bisect(meter, path, low, high, tolerance / scale))
