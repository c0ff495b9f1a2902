"""SurFree: turns around x in random planes, without estimating any gradient.

Source: Maho, Furon, Le Merrer 2021, arXiv:2011.12807 (search of the angle, no interpolation).
Access: labels. Norm: l2. Cost: up to `budget` queries a victim, one after the other; strong within few hundreds.
Limits: images only. A refused query counts as not adversarial.

Each step draws a direction orthogonal to the current one and to the last 100: cosines of 8x8 blocks, of the lower half,
and of these such as the image has itself, each with weight -1, 0 or 1. The circle in that plane with x and the current
point as its poles is nearer to x at any angle; angles up to theta_max to both sides are asked for, and a hit is
followed by a binary search for the widest. theta_max shrinks by 2 % when a direction gives nothing, and grows when one
does.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from adversary import boundary
from adversary.attack import Array, LabelOracle, Meter, Result
from adversary.bases import cosines
from adversary.images import like, planes
from adversary.walks import approach

_BLOCK = 8
_TINY = 1e-9
_RIGHT = 90.0  # degrees; there the circle ends in x


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    starts: Array | None = None,
    theta_max: float = 30.0,
    rho: float = 0.98,
    tries: int = 3,
    remembered: int = 100,
    gamma: float = 0.01,
    searches: int = 10,
    share: float = 0.5,
) -> Result:
    """Stops at l2 <= eps or when the budget is spent.

    starts:            (N, ...) inputs of another class to come from.
    theta_max, tries:  in degrees, and how many angles of each sign are asked for.
    gamma, searches:   the angle's search ends when its cosine is known to gamma, or after as many halvings.
    share:             of the frequencies of a block.
    """

    def walk(i: int, meter: Meter) -> Iterator[Array]:
        x0 = np.asarray(x[i], np.float64)
        point = boundary.start(meter, x0, rng, None if starts is None else starts[i])
        yield point
        turn = turning(x0, rng, remembered=remembered, share=share)
        widest = theta_max
        while True:
            path = turn(point)
            angle = _first_angle(meter, path, widest, tries)
            if angle == 0.0:
                widest *= rho
                continue
            angle = _widen(meter, path, angle, widest, steps=(tries, searches), gamma=gamma)
            widest /= rho
            if np.linalg.norm(path(angle) - x0) < np.linalg.norm(point - x0):
                point = path(angle)
                yield point

    return approach(target, x, y, eps=eps, norm="l2", budget=budget, batch=1, walk=walk)


def turning(
    x: Array, rng: np.random.Generator, *, remembered: int, share: float
) -> Callable[[Array], Callable[[float], Array]]:
    """One victim -> a function from the current point to a circle through it, in a plane that is new each time."""
    image = planes(x[None])[0]
    rows, columns = _blocks(image.shape[1]), _blocks(image.shape[2])
    present = _low(share, image.shape[1:]) * (np.abs(rows.T @ image @ columns) > _TINY)
    used, count = np.zeros((remembered, x.size)), itertools.count()

    def turn(point: Array) -> Callable[[float], Array]:
        weights = rng.integers(-1, 2, present.shape) * present
        drawn = like((rows @ weights @ columns.T)[None], x[None])[0]
        direction = _orthogonal(drawn, used, point - x, rng)
        used[next(count) % remembered] = direction.ravel()
        return _circle(x, point, direction)

    return turn


def _blocks(side: int) -> Array:
    """(side, side): cosines of blocks of eight, the last block as long as what is left."""
    matrix = np.zeros((side, side))
    for start in range(0, side, _BLOCK):
        here = slice(start, min(start + _BLOCK, side))
        matrix[here, here] = cosines(here.stop - start)
    return matrix


def _low(share: float, shape: tuple[int, ...]) -> Array:
    """(H, W): which frequencies of each block come first on the zigzag."""
    down, right = np.divmod(np.arange(_BLOCK**2), _BLOCK)
    diagonal = down + right
    zigzag = np.lexsort((np.where(diagonal % 2, down, right), diagonal))
    mask = np.zeros(_BLOCK**2)
    mask[zigzag[: max(1, int(share * _BLOCK**2))]] = 1.0
    repeats = [math.ceil(side / _BLOCK) for side in shape]
    return np.asarray(np.tile(mask.reshape(_BLOCK, _BLOCK), repeats)[: shape[0], : shape[1]])


def _orthogonal(drawn: Array, used: Array, current: Array, rng: np.random.Generator) -> Array:
    """A unit direction orthogonal to those before; noise where nothing is left of what was drawn."""
    now = current.reshape(1, -1) / max(float(np.linalg.norm(current)), _TINY)
    while True:
        flat = drawn.ravel()
        for basis in (used, now):
            flat = flat - basis.T @ (basis @ flat)
        length = float(np.linalg.norm(flat))
        if length > _TINY:
            return np.asarray(flat / length).reshape(drawn.shape)
        drawn = rng.standard_normal(drawn.shape)


def _circle(x: Array, point: Array, direction: Array) -> Callable[[float], Array]:
    """An angle in degrees -> a point on the circle with x and the current point as poles; 0 is the latter."""
    delta = point - x
    distance = float(np.linalg.norm(delta))

    def path(angle: float) -> Array:
        radians = math.radians(angle)
        turned = math.cos(radians) * delta + math.sin(radians) * distance * direction
        return np.asarray(np.clip(x + math.cos(radians) * turned, 0.0, 1.0))

    return path


def _first_angle(meter: Meter, path: Callable[[float], Array], widest: float, tries: int) -> float:
    """The widest of a few angles that is adversarial, 0 where none is."""
    for part in range(tries):
        for angle in (widest * (1.0 - part / tries), -widest * (1.0 - part / tries)):
            if boundary.adversarial(meter, path(angle)):
                return angle
    return 0.0


def _widen(
    meter: Meter, path: Callable[[float], Array], inside: float, widest: float, *, steps: tuple[int, int], gamma: float
) -> float:
    """From an adversarial angle outwards; a positive one has not been tried to the other side, so that comes too."""
    tries, searches = steps
    stride = math.copysign(widest / tries, inside)
    outside = inside + stride
    if abs(inside) >= widest:  # beyond the others it is known to end
        while abs(outside) < _RIGHT and boundary.adversarial(meter, path(outside)):
            inside, outside = outside, outside + stride
    both = inside > 0.0
    for _ in range(searches):
        if abs(math.cos(math.radians(inside)) - math.cos(math.radians(outside))) <= gamma:
            break
        middle = (inside + outside) / 2.0
        if boundary.adversarial(meter, path(middle)):
            inside = middle
        elif both and boundary.adversarial(meter, path(-middle)):
            inside, outside, both = -middle, -outside, False
        else:
            outside, both = middle, False
    return inside
