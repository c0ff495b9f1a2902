"""One pixel: differential evolution over where a few pixels lie and what they become, by scores.

Source: Su, Vargas, Sakurai 2019, arXiv:1710.08864 (rand/1 without crossover, F 0.5, a child against its own parent).
Access: scores. Norm: l0 (eps is how many pixels, 1, 3, 5 in the paper). Cost: up to `budget` queries a victim, one a
        child; the paper's 400 children and 100 generations are 40,400.
Limits: images only; weak by design on large or plain images. Works on any scores, as only their order counts.
"""

from collections.abc import Iterator

import numpy as np

from adversary.attack import Array, Result, ScoreMeter, ScoreOracle
from adversary.images import like, planes
from adversary.walks import descend

_PARENTS = 3


def paint(image: Array, genes: Array) -> Array:
    """(C, H, W) and (P, K, 2 + C) of row, column and colour in [0, 1] -> (P, C, H, W) with K pixels changed."""
    painted = np.repeat(image[None], len(genes), axis=0)
    height, width = image.shape[1:]
    rows = np.minimum((genes[..., 0] * height).astype(np.int64), height - 1)
    columns = np.minimum((genes[..., 1] * width).astype(np.int64), width - 1)
    for k in range(genes.shape[1]):
        painted[np.arange(len(genes)), :, rows[:, k], columns[:, k]] = genes[:, k, 2:]
    return painted


def _first(population: int, pixels: int, channels: int, rng: np.random.Generator) -> Array:
    """Places uniform, colours normal about mid-grey."""
    places = rng.uniform(0.0, 1.0, (population, pixels, 2))
    return np.concatenate([places, rng.normal(0.5, 0.5, (population, pixels, channels))], axis=2).clip(0.0, 1.0)


def _children(genes: Array, scale: float, rng: np.random.Generator) -> Array:
    """One for each: a + F (b - c) of three others, none of them the same."""
    n = len(genes)
    others = np.stack([rng.permutation(n - 1)[:_PARENTS] for _ in range(n)])
    others += others >= np.arange(n)[:, None]
    a, b, c = (genes[others[:, k]] for k in range(_PARENTS))
    return np.asarray((a + scale * (b - c)).clip(0.0, 1.0))


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    batch: int = 64,
    population: int = 400,
    scale: float = 0.5,
) -> Result:
    """Untargeted; stops where the label changes. A refused child loses to its parent."""
    if eps < 1 or population <= _PARENTS:
        raise ValueError("the one-pixel attack needs an eps of one pixel and a population of four")
    images = planes(np.asarray(x, np.float32))

    def walk(i: int, meter: ScoreMeter) -> Iterator[Array]:
        image = images[i]
        genes = _first(population, int(eps), len(image), rng)
        cost = np.full(population, np.inf)
        young = genes
        while True:
            young = young[: max(1, meter.left)]
            painted = paint(image, young)
            scores = meter.scores(like(painted, x))
            if scores.won.any():
                yield like(painted, x)[scores.won.argmax()]
                return
            better = np.flatnonzero(scores.own <= cost[: len(young)])
            genes[better], cost[better] = young[better], scores.own[better]
            yield like(paint(image, genes[cost.argmin()][None]), x)[0]
            young = _children(genes, scale, rng)

    return descend(target, x, y, budget=budget, batch=batch, walk=walk)
