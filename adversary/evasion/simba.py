"""SimBA: one pixel after the other, a step down or else up, kept where the label's probability falls.

Source: Guo, Gardner, You, Wilson, Weinberger 2019, arXiv:1905.07121 (pixel attack, random order).
Access: scores. Norm: l2, at most step * sqrt(steps kept). Cost: up to `budget` queries a victim, one after the other.
Limits: eps does not steer it, it only counts at the end. Confident models whose probabilities are rounded to 1 give it
        no direction. Where a step is smaller than half a grey level of an 8-bit endpoint nothing moves.

When every pixel had its turn a new random order begins. A step that the bounds undo is not asked for: on the black
ground of a digit that saves half of the queries.
"""

from collections.abc import Callable, Iterator

import numpy as np

from adversary.attack import Array, Result, ScoreMeter, ScoreOracle
from adversary.walks import descend


def walk(meter: ScoreMeter, x: Array, directions: Iterator[Array], step: float) -> Iterator[Array]:
    """Along orthonormal directions, until the label changes. Steps add up before they are clipped to [0, 1]."""
    delta, first = np.zeros(x.shape), meter.scores(x[None])
    least = np.inf if np.isnan(first.own[0]) else float(first.own[0])
    while not first.won[0]:
        for moved in _moves(x, delta, step * next(directions)):
            scores = meter.scores(np.clip(x + moved, 0.0, 1.0)[None])
            if scores.own[0] < least:
                delta, least = moved, float(scores.own[0])
                yield np.clip(x + delta, 0.0, 1.0)
                if scores.won[0]:
                    return
                break


def _moves(x: Array, delta: Array, step: Array) -> list[Array]:
    """Down and up, but what the bounds undo; if they undo both, one, so that a walk that is stuck spends its budget."""
    now, ways = np.clip(x + delta, 0.0, 1.0), [delta - step, delta + step]
    return [moved for moved in ways if not np.array_equal(np.clip(x + moved, 0.0, 1.0), now)] or ways[:1]


def along(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    budget: int,
    step: float,
    directions: Callable[[], Iterator[Array]],
) -> Result:
    """Victim after victim, each along directions of its own."""

    def one(i: int, meter: ScoreMeter) -> Iterator[Array]:
        return walk(meter, np.asarray(x[i], np.float64), directions(), step)

    return descend(target, x, y, budget=budget, batch=1, walk=one)


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    step: float = 0.2,
) -> Result:
    """Stops where the label changes, however far that is."""
    del eps  # the runner's measure alone

    def pixels() -> Iterator[Array]:
        while True:
            for place in rng.permutation(x[0].size):
                direction = np.zeros(x[0].size)
                direction[place] = 1.0
                yield direction.reshape(x[0].shape)

    return along(target, x, y, budget=budget, step=step, directions=pixels)
