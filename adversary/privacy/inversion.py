"""Inversion: rebuilds what a model takes for a class, by climbing its scores from a blank image.

Source: Fredrikson, Jha, Ristenpart 2015, CCS (MIFace: the gradient of the wanted class's score, and a smoothing step);
        without the gradient: probes as in NES, Ilyas, Engstrom, Athalye, Lin 2018, arXiv:1804.08598.
Access: scores. Cost: up to `budget` queries a class, `samples` a step.
Limits: images only. A linear model gives its classes away, each a caricature of what sets it apart; of a convolutional
        network it finds what the network is sure of, which seldom looks like anything.

What climbs is the margin, the logarithm of the wanted class's probability less that of the next: it goes on where the
probability is all but 1. Probes are smooth (the lowest frequencies), and rough images lose `smoothing` times their
total variation. A pair of probes of which one is refused is left out; a step without any pair is not taken.
"""

from collections.abc import Iterator

import numpy as np

from adversary.attack import Array, Result, ScoreMeter, ScoreOracle
from adversary.bases import Subspace, low_frequencies
from adversary.images import like, planes
from adversary.walks import descend

_TINY = 1e-12


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    budget: int,
    rng: np.random.Generator,
    samples: int = 50,
    sigma: float = 0.1,
    step: float = 0.1,
    momentum: float = 0.9,
    share: float = 0.35,
    smoothing: float = 0.2,
    batch: int = 64,
) -> Result:
    """x: (N, ...) where to start; y: the classes wanted.

    samples:      probes a step, an even number.
    sigma, step:  root mean squares: of a probe, and of the first step; steps get smaller as the budget is spent.
    share:        of the frequencies along each side that probes have.
    """
    height, width = planes(x).shape[2:]
    smooth = low_frequencies(height, width, share)

    def walk(i: int, meter: ScoreMeter) -> Iterator[Array]:
        point = np.asarray(planes(x[i : i + 1]), np.float64)
        velocity = np.zeros_like(point)
        while meter.left > 1:
            rate = step * meter.left / budget
            noise = _noise(min(samples, meter.left) // 2, point.shape[1], smooth, rng)
            probes = np.clip(np.concatenate([point + sigma * noise, point - sigma * noise]), 0.0, 1.0)
            worth = meter.scores(like(probes, x)).margin - smoothing * _variation(probes)
            up, down = worth.reshape(2, -1)
            known = ~np.isnan(up - down)
            if known.any():
                slope = np.tensordot((up - down)[known], noise[known], axes=1)[None]
                velocity = momentum * velocity + (1.0 - momentum) * slope / max(float(_size(slope)[0]), _TINY)
                point = np.clip(point + rate * velocity, 0.0, 1.0)
                yield like(point, x)[0]

    answer = descend(target, x, y, budget=budget, batch=batch, walk=walk)
    return Result(answer.x_adv, answer.queries, np.array(y, np.int64))


def _noise(n: int, channels: int, smooth: Subspace, rng: np.random.Generator) -> Array:
    """(n, C, H, W) of few frequencies, each of size 1."""
    noise = smooth.lift(rng.standard_normal((n, channels, *smooth.small)))
    return noise / _size(noise)[:, None, None, None]


def _size(images: Array) -> Array:
    """(N, C, H, W) -> (N,) root mean squares."""
    return np.asarray(np.sqrt((images**2).mean(axis=(1, 2, 3))))


def _variation(images: Array) -> Array:
    """(N, C, H, W) -> (N,) the sum of all differences of neighbours."""
    parts = [np.abs(np.diff(images, axis=axis)).sum(axis=(1, 2, 3)) for axis in (2, 3)]
    return np.asarray(parts[0] + parts[1])
