"""Bandits-TD: the gradient as a bandit's estimate, carried over from step to step and shared by tiles of pixels.

Source: Ilyas, Engstrom, Madry 2019, arXiv:1807.07978 (time and data priors, linf: exponentiated gradients).
Access: scores. Norm: linf. Cost: up to `budget` queries a victim, three a step: two probes and the check.
Limits: images only. Both probes of a step lie about sqrt(2) * eta apart: rounded scores leave the prior unmoved.

The authors do not count the check of the current point; here it is counted, and travels with the next two probes.
Defaults are theirs for linf: eta 0.1, exploration 1, a prior's rate of 100, steps of 0.01 (of eps / 5 where that is
less), tiles of about a quarter of the side for ImageNet; small images have two to a tile. A step without an answer to
both probes moves by the old prior.
"""

from collections.abc import Iterator

import numpy as np

from adversary.attack import Array, Result, ScoreMeter, ScoreOracle
from adversary.images import like, planes
from adversary.walks import descend

_LARGE = 128  # pixels
_STEP = 0.01
_TINY = 1e-8
_MOST_EXPONENT = 50.0


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    tile: int | None = None,
    eta: float = 0.1,
    exploration: float = 1.0,
    prior_rate: float = 100.0,
    step: float | None = None,
) -> Result:
    """Stops where the label changes. tile: tiles along a side, by default the authors' 50 of 224, or half a side."""
    images = planes(np.asarray(x, np.float64))
    channels, height, width = images.shape[1:]
    rate = min(_STEP, eps / 5.0) if step is None else step
    tiles = _tiles(min(height, width)) if tile is None else tile
    down, across = (np.arange(side) * tiles // side for side in (height, width))

    def walk(i: int, meter: ScoreMeter) -> Iterator[Array]:
        image = images[i]
        point, prior = image, np.zeros((channels, tiles, tiles))
        while True:
            noise = exploration * rng.standard_normal(prior.shape) / np.sqrt(prior.size)
            q = np.stack([prior + noise, prior - noise])[:, :, down][:, :, :, across]
            q /= np.maximum(np.sqrt((q**2).sum(axis=(1, 2, 3), keepdims=True)), _TINY)
            scores = meter.scores(like(np.clip(np.concatenate([point[None], point + eta * q]), 0.0, 1.0), x))
            if scores.won[0]:
                return
            slope = (scores.own[2] - scores.own[1]) / (eta * exploration)  # of the loss, -own
            if not np.isnan(slope):
                prior = _exponentiated(prior, prior_rate * slope * noise)
            moved = point + rate * np.sign(prior[:, down][:, :, across])
            point = np.clip(np.clip(moved, image - eps, image + eps), 0.0, 1.0)
            yield like(point[None], x)[0]

    return descend(target, x, y, budget=budget, batch=3, walk=walk)


def _tiles(side: int) -> int:
    return round(side * 50 / 224) if side >= _LARGE else max(1, side // 2)


def _exponentiated(prior: Array, move: Array) -> Array:
    """A step of exponentiated gradients on [-1, 1]."""
    up = (1.0 + prior) * np.exp(np.clip(move, -_MOST_EXPONENT, _MOST_EXPONENT))
    down = (1.0 - prior) * np.exp(np.clip(-move, -_MOST_EXPONENT, _MOST_EXPONENT))
    return np.asarray((up - down) / np.maximum(up + down, np.finfo(np.float64).tiny))
