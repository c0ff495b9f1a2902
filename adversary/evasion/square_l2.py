"""Square attack, l2: random search that moves the perturbation's mass between square windows.

Source: Andriushchenko, Croce, Flammarion, Hein 2020, arXiv:1912.00049 (its l2 attack).
Access: scores. Norm: l2. Cost: up to `budget` queries a victim, one after the other.
Limits: images only; as the linf attack, starved by rounded or bent scores.

Starts with a grid of bumps, each half up, half down. Each step empties one window and adds a bump to another, which
gets the norm of both and what clipping to [0, 1] had left unused. Window sizes follow the linf attack's schedule, odd
and at least 3. Windows may touch the last row and column, as in the paper (in the authors' code they do not).
"""

import math
from collections.abc import Iterator

import numpy as np

from adversary.attack import Array, Result, ScoreMeter, ScoreOracle
from adversary.evasion.square import asking, place, search, share
from adversary.images import like, planes
from adversary.walks import descend

_TILES = 5  # of the first grid, along a side
_SMALLEST = 3
_TINY = 1e-10


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    initial: float = 0.8,
) -> Result:
    """Stops where the label changes.

    initial:  the first windows' part of the image: 0.8 as in AutoAttack; the paper has 0.1 for ImageNet.
    """
    images = planes(np.asarray(x, np.float64))

    def walk(i: int, meter: ScoreMeter) -> Iterator[Array]:
        image = images[i]
        _, height, width = image.shape

        def propose(best: Array, step: int) -> Array:
            size = max(round(math.sqrt(share(step, budget, initial) * height * width)), _SMALLEST)
            return _moved(image, best, eps, min(size + 1 - size % 2, height, width), rng)

        for best in search(asking(meter, x), _scaled(image, _grid(image.shape, rng), eps), propose):
            yield like(best[None], x)[0]

    return descend(target, x, y, budget=budget, batch=1, walk=walk)


def _scaled(image: Array, delta: Array, eps: float) -> Array:
    return np.asarray(np.clip(image + delta * (eps / max(float(np.linalg.norm(delta)), _TINY)), 0.0, 1.0))


def _grid(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Bumps side by side, each with a sign of its own in each channel."""
    channels, height, width = shape
    size = max(2, height // _TILES)
    edge = max(0, (height - size * _TILES) // 2)
    delta = np.zeros(shape)
    for top in range(edge, height - size + 1, size):
        for left in range(edge, width - size + 1, size):
            delta[:, top : top + size, left : left + size] = bump(size, rng) * _signs(channels, rng)
    return delta


def _moved(image: Array, best: Array, eps: float, size: int, rng: np.random.Generator) -> Array:
    """The best so far with the mass of one window moved to another."""
    delta = best - image
    to, emptied = place(rng, image.shape, size), place(rng, image.shape, size)
    union = np.zeros(image.shape[1:], bool)
    union[to[1:]] = union[emptied[1:]] = True
    unused = max(eps**2 - float((delta**2).sum()), 0.0) / len(image)
    mass = np.sqrt((delta**2 * union).sum(axis=(1, 2), keepdims=True) + unused)
    old = delta[to] / (_norm(delta[to]) + _TINY)
    new = bump(size, rng) * _signs(len(image), rng) + old
    new *= mass / np.maximum(_norm(new), _TINY)
    delta[emptied] = 0.0
    delta[to] = new
    return _scaled(image, delta, eps)


def _norm(window: Array) -> Array:
    """(C, h, w) -> (C, 1, 1)."""
    return np.asarray(np.sqrt((window**2).sum(axis=(1, 2), keepdims=True)))


def _signs(channels: int, rng: np.random.Generator) -> Array:
    return rng.choice((-1.0, 1.0), size=(channels, 1, 1))


def bump(size: int, rng: np.random.Generator) -> Array:
    """(size, size) of norm 1: a peak over a trough, or the two side by side."""
    delta = np.concatenate([_peak(size // 2, size), -_peak(size - size // 2, size)])
    delta /= max(float(np.linalg.norm(delta)), _TINY)
    return delta.T if rng.uniform() < 0.5 else delta  # noqa: PLR2004 - a coin


def _peak(height: int, width: int) -> Array:
    """(height, width) of norm 1: the sum over nested boxes around the middle of 1 / (k + 1)^2."""
    rings = max(height // 2, width // 2) + 1
    heights = np.cumsum((1.0 / np.arange(1, rings + 1) ** 2)[::-1])[::-1]
    down, right = np.abs(np.arange(height) - height // 2), np.abs(np.arange(width) - width // 2)
    delta = heights[np.maximum(down[:, None], right[None, :])]
    return np.asarray(delta / max(float(np.linalg.norm(delta)), _TINY))
