"""Sign-OPT: descends the distance to the boundary as a function of direction, by the signs of its slopes.

Source: Cheng, Singh, Chen, Chen, Liu, Hsieh 2020, arXiv:1909.10773 (single-query gradient signs, l2), with the search
        for the distance of Cheng et al. 2019, arXiv:1807.04457.
Access: labels. Norm: l2. Cost: up to `budget` queries a victim; the first direction alone takes some hundreds.
Limits: line searches walk in steps of one per cent: a stateful monitor sees runs of near-duplicates.

Starts along the best of 100 Gaussian directions, or towards uniform noise where none of them will do. The probes of a
gradient are independent and travel up to `batch` a call, the first directions too. What is sent is clipped to [0, 1],
where the authors' code sends values outside. A refused query counts as not adversarial.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from adversary import boundary
from adversary.attack import Array, BudgetSpent, LabelOracle, Meter, Result
from adversary.walks import approach

_FIRST_TOLERANCE = 1e-3
_LOCAL_TOLERANCE = 1 / 500  # of beta
_NEAR = 0.01  # a step along a ray
_FARTHEST = 20.0
_TRIES = 15  # of a step size, growing or shrinking
_CLEAR = 1e-4  # beyond the boundary: the distance is known so well that another batch's rounding would undo it
_LEAST_ALPHA, _LEAST_BETA = 1e-4, 1e-8


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    directions: int = 100,
    probes: int = 200,
    alpha: float = 0.2,
    beta: float = 1e-3,
    batch: int = 64,
) -> Result:
    """Stops at l2 <= eps or when the budget is spent.

    directions, probes:  how many are tried at first, and for each gradient.
    alpha, beta:         the first step among directions, and how far apart probes are.
    """

    def walk(i: int, meter: Meter) -> Iterator[Array]:
        rays = _Rays(np.asarray(x[i], np.float64), meter)
        theta, distance = np.zeros(x[i].shape), math.inf
        for theta, distance in _first(rays, rng, directions):
            yield rays.point(theta, distance)
        yield from _descend(rays, theta, distance, lambda *at: _slope(rays, rng, probes, *at), alpha, beta)

    return approach(target, x, y, eps=eps, norm="l2", budget=budget, batch=batch, walk=walk)


@dataclass(frozen=True, slots=True, eq=False)
class _Rays:
    """From x, along unit directions."""

    x: Array
    meter: Meter

    def point(self, theta: Array, distance: float) -> Array:
        """As it may be sent."""
        return np.asarray(np.clip(self.x + distance * theta, 0.0, 1.0))

    def hit(self, theta: Array, distance: float) -> bool:
        """Whether that point is adversarial."""
        return boundary.adversarial(self.meter, self.point(theta, distance))

    def search(self, theta: Array, low: float, high: float, tolerance: float) -> float:
        """The adversarial end of the interval that holds the boundary."""
        return boundary.bisect(self.meter, lambda distance: self.point(theta, distance), low, high, tolerance)

    def near(self, theta: Array, guess: float, tolerance: float) -> float:
        """The distance of the boundary, close to a guess; infinite where it is too far off."""
        low = high = guess
        if self.hit(theta, guess):
            low *= 1.0 - _NEAR
            while self.hit(theta, low):
                low *= 1.0 - _NEAR
                if low <= tolerance:
                    return low
        else:
            high *= 1.0 + _NEAR
            while not self.hit(theta, high):
                high *= 1.0 + _NEAR
                if high > _FARTHEST:
                    return math.inf
        return self.search(theta, low, high, tolerance)


def _unit(direction: Array) -> Array:
    return np.asarray(direction / max(float(np.linalg.norm(direction)), np.finfo(np.float64).tiny))


def _first(rays: _Rays, rng: np.random.Generator, directions: int) -> Iterator[tuple[Array, float]]:
    """Random directions, each better than the one before."""
    best = math.inf
    size = (min(directions, max(rays.meter.left, 1)), *rays.x.shape)
    drawn = rng.standard_normal(size)
    while math.isinf(best):
        for direction in drawn[rays.meter.adversarial(np.clip(rays.x + drawn, 0.0, 1.0))]:
            theta, length = _unit(direction), float(np.linalg.norm(direction))
            if length > best and not rays.hit(theta, best):
                continue
            best_here = rays.search(theta, 0.0, min(length, best), _FIRST_TOLERANCE)
            if best_here < best:
                best = best_here
                yield theta, best
        drawn = rng.uniform(0.0, 1.0, (1, *rays.x.shape)) - rays.x


def _slope(rays: _Rays, rng: np.random.Generator, probes: int, theta: Array, distance: float, beta: float) -> Array:
    """The mean of directions, each with the sign of the distance's change along it."""
    if rays.meter.left < 1:
        raise BudgetSpent
    drawn = rng.standard_normal((min(probes, rays.meter.left), *theta.shape))
    drawn = np.stack([_unit(direction) for direction in drawn])
    sent = np.stack([rays.point(_unit(theta + beta * direction), distance) for direction in drawn])
    return np.tensordot(np.where(rays.meter.adversarial(sent), -1.0, 1.0), drawn, axes=1) / len(drawn)


def _descend(
    rays: _Rays,
    theta: Array,
    distance: float,
    slope: Callable[[Array, float, float], Array],
    alpha: float,
    beta: float,
) -> Iterator[Array]:
    """Gradient descent; alpha doubles while that helps, and is quartered until something does."""
    while beta >= _LEAST_BETA:
        gradient, start = slope(theta, distance, beta), theta
        before = distance

        def tried(step: float, at: Array = start, down: Array = gradient) -> tuple[Array, float]:
            candidate = _unit(at - step * down)
            return candidate, rays.near(candidate, distance, beta * _LOCAL_TOLERANCE)  # noqa: B023 - called at once

        for _ in range(_TRIES):
            candidate, here = tried(alpha)
            alpha *= 2.0
            if here >= distance:
                break
            theta, distance = candidate, here
        for _ in range(_TRIES if distance >= before else 0):
            alpha *= 0.25
            candidate, here = tried(alpha)
            if here < distance:
                theta, distance = candidate, here
                break
        if distance < before and rays.hit(theta, distance + _CLEAR):
            yield rays.point(theta, distance + _CLEAR)
        if alpha < _LEAST_ALPHA:
            alpha, beta = 1.0, beta * 0.1
