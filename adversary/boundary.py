"""Ways onto the decision boundary that label-only attacks share: where to start, and the binary search."""

from collections.abc import Callable

import numpy as np

from adversary.attack import Array, Meter

START_TOLERANCE = 1e-3  # of the blend with noise, as in HopSkipJump's code


def adversarial(meter: Meter, point: Array) -> bool:
    """Whether one point is answered with another label."""
    return bool(meter.adversarial(point[None])[0])


def noise(meter: Meter, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Uniform noise that the oracle gets wrong; draws until there is some, or the budget is spent."""
    while True:
        point = rng.uniform(0.0, 1.0, shape)
        if adversarial(meter, point):
            return point


def start(meter: Meter, x: Array, rng: np.random.Generator, given: Array | None = None) -> Array:
    """An adversarial point: the given one as it is, or noise blended with x as far as it stays adversarial."""
    if given is not None:
        point = np.asarray(given, np.float64)
        if adversarial(meter, point):
            return point
    return blend(meter, x, noise(meter, x.shape, rng), START_TOLERANCE)


def bisect(meter: Meter, path: Callable[[float], Array], low: float, high: float, tolerance: float) -> float:
    """Binary search along a path whose upper end is adversarial; returns a place on the adversarial side."""
    while high - low > tolerance:
        middle = (low + high) / 2.0
        if adversarial(meter, path(middle)):
            high = middle
        else:
            low = middle
    return high


def blend(meter: Meter, x: Array, point: Array, tolerance: float) -> Array:
    """Binary search between x and an adversarial point, to a share `tolerance` of their distance."""

    def path(share: float) -> Array:
        return (1.0 - share) * x + share * point

    return path(bisect(meter, path, 0.0, 1.0, tolerance))
