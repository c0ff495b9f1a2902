"""OARS around HopSkipJump: gradients from probes as near as the defence accepts, refused probes drawn anew.

Source: Feng et al. 2023, arXiv:2303.06280; HopSkipJump of Chen et al. 2020, arXiv:1904.02144 (l2).
Access: labels. Norm: l2. Cost: up to `budget` queries a victim, one after the other, up to 200 of them
        for the search at the start.
Limits: comes no nearer to the boundary than the defence lets it see; where eps is smaller than that, it fails.

As the authors' code: one radius for all probes, sought around x with a twentieth of refusals allowed; a gradient of
the probes that were answered, 20 rounds at most to fill up; a refused step is taken back and its gradient estimated
anew; the binary search onto the boundary ends at its first refusal. Unlike it, x itself is asked for first, so that the
search is around a known query as the later probes are, and the radius grows by half after a round of which more than
half was refused.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from adversary.adaptive.oars import Search, least_accepted, retreat, start
from adversary.attack import Array, LabelOracle, Meter, Result
from adversary.walks import approach

_RADIUS = Search(halvings=10, tries=20, rate=0.05)
_ROUNDS = 20
_GROWTH = 1.5
_STEP_LEAST = 1e-6
_TINY = 1e-12


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    starts: Array | None = None,
    evaluations: int = 100,
    radii: tuple[float, float] = (0.004, 0.2),
) -> Result:
    """Stops at l2 <= eps or when the budget is spent.

    starts:       (N, ...) inputs of another class to come from; by default uniform noise that is answered wrongly.
    evaluations:  probes of the first gradient; the t-th has sqrt(t) times as many.
    radii:        where the least accepted radius is sought, in units of the square root of the number of values.
    """
    shape = x.shape[1:]

    def walk(i: int, meter: Meter) -> Iterator[Array]:
        return hop(
            np.asarray(x[i], np.float64),
            meter,
            rng,
            given=None if starts is None else starts[i],
            noise=lambda: rng.standard_normal(shape),
            evaluations=evaluations,
            radii=radii,
        )

    return approach(target, x, y, eps=eps, norm="l2", budget=budget, batch=1, walk=walk)


def hop(
    x: Array,
    meter: Meter,
    rng: np.random.Generator,
    *,
    given: Array | None,
    noise: Callable[[], Array],
    evaluations: int,
    radii: tuple[float, float],
) -> Iterator[Array]:
    """One victim's walk. noise: a direction to probe along, of any length."""
    meter.verdicts(x[None])  # the centre of the search is known to the defence, as that of later probes will be
    point = start(meter, x, rng, given)
    yield point

    def refused(radius: float) -> bool:
        return bool(meter.verdicts(np.clip(x + radius * _unit(noise()), 0.0, 1.0)[None])[1][0])

    low, high = (math.sqrt(x.size) * limit for limit in radii)
    radius = least_accepted(refused, low, high, _RADIUS)
    t = 0
    while True:
        t += 1
        direction, radius = _gradient(point, meter, noise, radius, int(evaluations * math.sqrt(t)))
        moved = None if direction is None else _step(x, point, direction, meter, t)
        if moved is not None:
            yield moved
            point = retreat(meter, x, moved, x.size**-1.5)
            yield point


def _unit(direction: Array) -> Array:
    return np.asarray(direction / max(float(np.linalg.norm(direction)), _TINY))


def _gradient(
    point: Array, meter: Meter, noise: Callable[[], Array], radius: float, n: int
) -> tuple[Array | None, float]:
    """The direction away from the boundary, by the labels of n answered probes or as many as there are; the radius."""
    moves, signs = list[Array](), list[float]()
    for _ in range(_ROUNDS):
        missing = n - len(moves)
        for _ in range(missing):
            sent = np.clip(point + radius * _unit(noise()), 0.0, 1.0)
            adversarial, refused = meter.verdicts(sent[None])
            if not refused[0]:
                moves.append((sent - point) / radius)
                signs.append(1.0 if adversarial[0] else -1.0)
        if n - len(moves) > missing / 2.0:
            radius *= _GROWTH
    if not moves:
        return None, radius
    mean = float(np.mean(signs))
    weights = np.array(signs) if abs(mean) == 1.0 else np.array(signs) - mean
    return _unit(np.tensordot(weights, np.stack(moves), axes=1)), radius


def _step(x: Array, point: Array, direction: Array, meter: Meter, t: int) -> Array | None:
    """Geometric progression: start at distance / sqrt(t), halve until adversarial; nothing where it is refused."""
    size = float(np.linalg.norm(point - x)) / math.sqrt(t)
    while size > _STEP_LEAST:
        moved = np.clip(point + size * direction, 0.0, 1.0)
        adversarial, refused = meter.verdicts(moved[None])
        if refused[0]:
            return None
        if adversarial[0]:
            return np.asarray(moved)
        size /= 2.0
    return None
