"""Square attack, linf: random search over squares at the edge of the ball, kept where the margin falls.

Source: Andriushchenko, Croce, Flammarion, Hein 2020, arXiv:1912.00049.
Access: scores. Norm: linf. Cost: up to `budget` queries a victim, one after the other.
Limits: images only. A step counts only where the score falls at once: rounded or bent scores (AAA) starve it.

Starts with vertical stripes of +-eps. Each step sets one square, all of a channel to +eps or to -eps; its side falls on
the authors' schedule, stretched over the budget. Squares may touch the last row and column, as in the paper (in the
authors' code they do not).
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from adversary.attack import Array, Result, ScoreMeter, ScoreOracle
from adversary.images import like, planes
from adversary.walks import descend

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # steps of 10,000 after which the area is halved
_TRIES = 32  # at a square that changes something
_CHANGE = 1e-7


def share(step: int, steps: int, initial: float) -> float:
    """The part of the image that a square covers at a step."""
    place = step * 10_000 // max(1, steps)
    return float(initial / 2.0 ** sum(place > after for after in _HALVINGS))


def search(ask: Callable[[Array], float], first: Array, propose: Callable[[Array, int], Array]) -> Iterator[Array]:
    """Random search: from `first`, what `propose(best, step)` offers, kept where the margin falls; until below 0."""
    best, least = first, math.inf
    candidate, step = first, 0
    while True:
        margin = ask(candidate)
        if margin < least:
            best, least = candidate, margin
            yield best
            if margin < 0.0:
                return
        candidate = propose(best, step)
        step += 1


def asking(meter: ScoreMeter, layout: Array) -> Callable[[Array], float]:
    """(C, H, W) -> its margin, asked in the layout of these inputs; not a number where the query is refused."""
    return lambda image: float(meter.scores(like(image[None], layout)).margin[0])


def place(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> tuple[slice, slice, slice]:
    """A square anywhere in a (C, H, W) image, in all channels."""
    top, left = (int(rng.integers(0, side - size + 1)) for side in shape[1:])
    return slice(None), slice(top, top + size), slice(left, left + size)


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

    initial:  the first squares' part of the image: 0.8 as in AutoAttack; the paper has 0.05 for ImageNet.
    """
    images = planes(np.asarray(x, np.float64))

    def walk(i: int, meter: ScoreMeter) -> Iterator[Array]:
        image = images[i]
        channels, height, width = image.shape

        def propose(best: Array, step: int) -> Array:
            size = round(math.sqrt(share(step, budget, initial) * height * width))
            return with_square(image, best, eps, min(max(size, 1), height, width), rng)

        stripes = np.clip(image + rng.choice((-eps, eps), size=(channels, 1, width)), 0.0, 1.0)
        for best in search(asking(meter, x), stripes, propose):
            yield like(best[None], x)[0]

    return descend(target, x, y, budget=budget, batch=1, walk=walk)


def with_square(image: Array, best: Array, eps: float, size: int, rng: np.random.Generator) -> Array:
    """The best so far with one square set anew, so that it differs (where it can)."""
    window = place(rng, image.shape, size)
    candidate = best.copy()
    for _ in range(_TRIES):
        signed = rng.choice((-eps, eps), size=(len(image), 1, 1))
        candidate[window] = np.clip(image[window] + signed, 0.0, 1.0)
        if np.abs(candidate[window] - best[window]).max() >= _CHANGE:
            break
    return candidate
