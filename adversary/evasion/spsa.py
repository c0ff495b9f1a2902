"""SPSA: the margin's gradient by simultaneous signed perturbations of all values, descended by Adam within the ball.

Source: Uesato, O'Donoghue, van den Oord, Kohli 2018, arXiv:1802.05666; details as in its CleverHans version.
Access: scores. Norm: linf. Cost: up to `budget` queries a victim, samples + 1 a step.
Limits: meant for models whose gradients mislead, it pays for that in queries; rounded scores leave it blind.

Starts at a random point of the ball. The probes of a step are independent and travel with the check of the current
point, up to `batch` rows a call. A pair of which a probe is refused is left out; a step without any is not taken.
"""

from collections.abc import Iterator

import numpy as np

from adversary.attack import Array, Result, ScoreMeter, ScoreOracle
from adversary.walks import descend, pairs_left

_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-9


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    samples: int = 128,
    delta: float = 0.01,
    learning_rate: float = 0.01,
    batch: int = 64,
) -> Result:
    """Stops where the label changes. samples: probes a step, an even number."""

    def walk(i: int, meter: ScoreMeter) -> Iterator[Array]:
        x0 = np.asarray(x[i], np.float64)
        low, high = np.maximum(x0 - eps, 0.0), np.minimum(x0 + eps, 1.0)
        point = np.clip(x0 + rng.uniform(-eps, eps, x0.shape), low, high)
        mean, square, t = np.zeros(x0.shape), np.zeros(x0.shape), 0
        yield point
        while True:
            signs = rng.choice((-1.0, 1.0), size=(pairs_left(meter, samples), *x0.shape))
            probes = np.concatenate([point[None], point + delta * signs, point - delta * signs])
            scores = meter.scores(np.clip(probes, 0.0, 1.0))
            if scores.won[0]:
                return
            slopes = (scores.margin[1 : 1 + len(signs)] - scores.margin[1 + len(signs) :]) / (2.0 * delta)
            known = ~np.isnan(slopes)
            if not known.any():
                continue
            gradient = np.tensordot(slopes[known], signs[known], axes=1) / known.sum()
            t += 1
            mean = _BETA1 * mean + (1.0 - _BETA1) * gradient
            square = _BETA2 * square + (1.0 - _BETA2) * gradient**2
            step = (mean / (1.0 - _BETA1**t)) / (np.sqrt(square / (1.0 - _BETA2**t)) + _TINY)
            point = np.clip(point - learning_rate * step, low, high)
            yield point

    return descend(target, x, y, budget=budget, batch=batch, walk=walk)
