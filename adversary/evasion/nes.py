"""NES: the gradient by antithetic Gaussian probes, then signed steps within the ball.

Source: Ilyas, Engstrom, Athalye, Lin 2018, arXiv:1804.08598 (the query-limited attack).
Access: scores. Norm: linf. Cost: up to `budget` queries a victim, samples + 1 a step.
Limits: probes differ by `sigma`, far less than a grey level: rounded scores or 8-bit endpoints leave it blind, and a
        stateful monitor sees near-duplicates.

The probes of a step are independent and travel with the check of the current point, up to `batch` rows a call. Defaults
are the authors': momentum 0.9, a step of eps / 5 (.01 of .05) that halves down to 1 / 200 when the loss has not
improved over five steps. Their code halves when the loss rises, which for untargeted attacks is progress; here it is
when the loss has not risen. A pair of which a probe is refused is left out; a step without any pair is not taken.
"""

from collections.abc import Iterator

import numpy as np

from adversary.attack import Array, Result, ScoreMeter, ScoreOracle
from adversary.walks import descend, pairs_left

_PLATEAU = 5  # steps
_LEAST_STEP = 1 / 200  # of the first


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    samples: int = 50,
    sigma: float = 1e-3,
    step: float | None = None,
    momentum: float = 0.9,
    batch: int = 64,
) -> Result:
    """Stops where the label changes. samples: probes a step, an even number."""
    first = eps / 5.0 if step is None else step

    def walk(i: int, meter: ScoreMeter) -> Iterator[Array]:
        x0 = np.asarray(x[i], np.float64)
        point, gradient = x0, np.zeros(x0.shape)
        rate, losses = first, list[float]()
        while True:
            noise = rng.standard_normal((pairs_left(meter, samples), *x0.shape))
            probes = np.concatenate([point[None], point + sigma * noise, point - sigma * noise])
            scores = meter.scores(np.clip(probes, 0.0, 1.0))
            if scores.won[0]:
                return
            up, down = -scores.own[1:].reshape(2, -1)
            known = ~np.isnan(up - down)
            if not known.any():
                continue
            estimate = np.tensordot((up - down)[known], noise[known], axes=1) / (2.0 * sigma * known.sum())
            gradient = momentum * gradient + (1.0 - momentum) * estimate
            losses = [*losses[1 - _PLATEAU :], float((up + down)[known].mean() / 2.0)]
            if len(losses) == _PLATEAU and losses[-1] <= losses[0]:
                rate, losses = max(rate / 2.0, first * _LEAST_STEP), []
            point = np.clip(np.clip(point + rate * np.sign(gradient), x0 - eps, x0 + eps), 0.0, 1.0)
            yield point

    return descend(target, x, y, budget=budget, batch=batch, walk=walk)
