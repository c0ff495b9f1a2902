"""OARS around NES: probes and steps as small as the defence accepts, refused pairs drawn anew.

Source: Feng et al. 2023, arXiv:2303.06280; NES of Ilyas et al. 2018, arXiv:1804.08598.
Access: scores. Norm: linf. Cost: up to `budget` queries a victim, one after the other, up to 400 of them
        for the two searches at the start, most where nothing is refused.
Limits: a defence that takes as similar what the whole ball holds leaves no step to take. One that does not let its
        refusals show gives it nothing to adapt to.

As the authors' code: x itself is asked for first, so that the searches are around a known query; noise is sought
between 0.001 and 0.5, steps between eps / 1000 and 2 eps; a gradient is made of the pairs that were answered, five
rounds at most to fill up; a refused step is taken back and its gradient estimated anew, without momentum. Unlike it,
the least step then grows by a tenth: at the edge of the ball a step is shorter than it was in the search.
"""

from collections.abc import Iterator

import numpy as np

from adversary.adaptive.oars import Search, least_accepted
from adversary.attack import Array, Result, ScoreMeter, ScoreOracle
from adversary.walks import descend

_NOISE = Search(halvings=10, tries=20, rate=0.0)
_STEP = Search(halvings=10, tries=20, rate=0.005)
_ROUNDS = 5
_PLATEAU = 5  # steps
_GROWTH = 1.1


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    samples: int = 50,
    momentum: float = 0.9,
    noises: tuple[float, float] = (1e-3, 0.5),
    steps: tuple[float, float] | None = None,
) -> Result:
    """Stops where the label changes. noises, steps: where the least accepted one is sought."""
    few, many = (eps / 1000.0, 2.0 * eps) if steps is None else steps

    def walk(i: int, meter: ScoreMeter) -> Iterator[Array]:
        x0 = np.asarray(x[i], np.float64)

        def noisy(size: float) -> bool:
            return _ask(meter, x0 + size * rng.standard_normal(x0.shape))[1]

        def stepped(size: float) -> bool:
            return _ask(meter, x0 + size * rng.choice((-1.0, 1.0), x0.shape))[1]

        _ask(meter, x0)
        point = np.clip(x0 + rng.uniform(-eps, eps, x0.shape), 0.0, 1.0)
        sigma = least_accepted(noisy, *noises, _NOISE)
        least = least_accepted(stepped, few, many, _STEP)
        rate, losses = eps / 5.0, list[float]()
        gradient, taken = np.zeros(x0.shape), False
        while True:
            loss, estimate = _gradient(meter, point, sigma, samples, rng)
            if estimate is None:
                continue
            gradient = momentum * gradient + (1.0 - momentum) * estimate if taken else estimate
            losses = [*losses[1 - _PLATEAU :], loss]
            if len(losses) == _PLATEAU and losses[-1] <= losses[0]:
                rate, losses = rate / 2.0, []
            moved = np.clip(point + max(rate, least) * np.sign(gradient), x0 - eps, x0 + eps)
            won, refused = _ask(meter, moved)
            taken = not refused
            if refused:
                least = min(least * _GROWTH, many)
            else:
                point = np.clip(moved, 0.0, 1.0)
                yield point
            if won:
                return

    return descend(target, x, y, budget=budget, batch=1, walk=walk)


def _ask(meter: ScoreMeter, point: Array) -> tuple[bool, bool]:
    """Whether one point is answered with another label, and whether it is refused."""
    scores = meter.scores(np.clip(point, 0.0, 1.0)[None])
    return bool(scores.won[0]), bool(np.isnan(scores.own[0]))


def _gradient(
    meter: ScoreMeter, point: Array, sigma: float, samples: int, rng: np.random.Generator
) -> tuple[float, Array | None]:
    """The mean loss and the gradient by antithetic pairs, refused ones replaced; none where all are refused."""
    gradient, losses = np.zeros(point.shape), list[float]()
    for _ in range(_ROUNDS):
        for _ in range(samples // 2 - len(losses) // 2):
            noise = sigma * rng.standard_normal(point.shape)
            up = _loss(meter, point + noise)
            down = _loss(meter, point - noise) if np.isfinite(up) else np.nan
            if np.isfinite(down):
                gradient += (up - down) * noise
                losses += [up, down]
    return (float(np.mean(losses)), gradient / len(losses)) if losses else (np.nan, None)


def _loss(meter: ScoreMeter, point: Array) -> float:
    """Not a number where it is refused."""
    return -float(meter.scores(np.clip(point, 0.0, 1.0)[None]).own[0])
