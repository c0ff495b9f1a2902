"""HopSkipJump: walks along the decision boundary towards x, seeing labels only.

Source: Chen, Jordan, Wainwright 2020, arXiv:1904.02144 (the untargeted l2 attack, geometric step sizes).
Access: labels. Norm: l2. Cost: up to `budget` queries a victim.

Each iteration: binary search onto the boundary; a Monte Carlo estimate of the gradient there from B_t = B_0 sqrt(t)
labels; a step of size ||x_t - x|| / sqrt(t), halved until it lands on the adversarial side. The queries of one estimate
are independent, so up to `batch` of them travel in one request. Victims are attacked one after the other.

A refused query counts as "not adversarial": this attacker learns no more from it. OARS (arXiv:2303.06280) does.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from adversary import boundary
from adversary.attack import Array, BudgetSpent, LabelOracle, Meter, Result
from adversary.walks import approach

_STEP_LEAST = 1e-6
_FIRST_RADIUS = 0.1
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Settings:
    """theta: the binary search's tolerance, a share of the distance; evaluations: B_0 and the most of B_t."""

    theta: float
    evaluations: tuple[int, int]


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    starts: Array | None = None,
    batch: int = 64,
    gamma: float = 1.0,
    initial_evaluations: int = 100,
    most_evaluations: int = 10_000,
) -> Result:
    """Stops at l2 <= eps or when the budget is spent.

    starts: (N, ...) inputs of another class to come from; by default uniform noise that the model answers wrongly.
    """
    shape = x.shape[1:]
    settings = Settings(gamma / math.prod(shape) ** 1.5, (initial_evaluations, most_evaluations))

    def walk(i: int, meter: Meter) -> Iterator[Array]:
        x0 = np.asarray(x[i], np.float64)
        given = None if starts is None else starts[i]
        return hop(x0, meter, rng, given=given, noise=lambda n: rng.standard_normal((n, *shape)), settings=settings)

    return approach(target, x, y, eps=eps, norm="l2", budget=budget, batch=batch, walk=walk)


def hop(
    x: Array,
    meter: Meter,
    rng: np.random.Generator,
    *,
    given: Array | None,
    noise: Callable[[int], Array],
    settings: Settings,
) -> Iterator[Array]:
    """One victim's walk. noise: n -> (n, ...) directions to probe along, of any length."""
    point = boundary.start(meter, x, rng, given)
    yield point
    t = 0
    while True:
        far = float(np.linalg.norm(point - x))  # before the search: it sets the probes' radius
        point = boundary.blend(meter, x, point, settings.theta)
        yield point
        t += 1
        radius = _FIRST_RADIUS if t == 1 else math.sqrt(x.size) * settings.theta * far
        first, most = settings.evaluations
        n = min(int(first * math.sqrt(t)), most, meter.left)
        direction = gradient(point, meter, noise(max(n, 0)), radius)
        point = _step(x, point, direction, meter, t)


def gradient(point: Array, meter: Meter, probes: Array, radius: float) -> Array:
    """The direction away from the boundary, by the labels of probes, less their mean (the paper's baseline)."""
    n = len(probes)
    if n < 1:
        raise BudgetSpent
    lengths = np.linalg.norm(probes.reshape(n, -1), axis=1).reshape(n, *([1] * point.ndim))
    sent = np.clip(point + radius * probes / np.maximum(lengths, _TINY), 0.0, 1.0)
    moved = (sent - point) / radius
    signs = 2.0 * meter.adversarial(sent).astype(np.float64) - 1.0
    weights = signs if abs(signs.mean()) == 1.0 else signs - signs.mean()
    direction = np.tensordot(weights, moved, axes=1) / n
    return np.asarray(direction / max(float(np.linalg.norm(direction)), _TINY))


def _step(x: Array, point: Array, direction: Array, meter: Meter, t: int) -> Array:
    """Geometric progression: start at distance / sqrt(t), halve until adversarial; stay where nothing is."""
    size = float(np.linalg.norm(point - x)) / math.sqrt(t)
    while size > _STEP_LEAST:
        moved = np.clip(point + size * direction, 0.0, 1.0)
        if boundary.adversarial(meter, moved):
            return np.asarray(moved)
        size /= 2.0
    return point
