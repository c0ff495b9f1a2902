"""How query attacks run: victim after victim, each a walk that yields ever better points and may stop anywhere.

A walk is a generator over one victim. It asks its meter and never counts: when the budget is spent the meter raises
BudgetSpent inside of it, and what it yielded last (`descend`) or nearest (`approach`) is the victim's result.
"""

from collections.abc import Callable, Iterator

import numpy as np

from adversary.attack import Array, BudgetSpent, LabelOracle, LpNorm, Meter, Result, ScoreMeter, ScoreOracle, norms


def descend(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    budget: int,
    batch: int,
    walk: Callable[[int, ScoreMeter], Iterator[Array]],
) -> Result:
    """Score-based: walk(i, meter) attacks x[i] and ends once it has won; its last point counts."""
    x_adv, queries = np.array(x, np.float32), np.zeros(len(x), np.int64)
    for i in range(len(x)):
        meter = ScoreMeter(target, int(y[i]), budget, batch)
        try:
            for point in walk(i, meter):
                x_adv[i] = point
        except BudgetSpent:
            pass
        queries[i] = meter.spent
    return Result(x_adv, queries)


def approach(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    norm: LpNorm,
    budget: int,
    batch: int,
    walk: Callable[[int, Meter], Iterator[Array]],
) -> Result:
    """Decision-based: walk(i, meter) yields points that are answered wrongly; the nearest counts, eps ends it."""
    x_adv, queries = np.array(x, np.float32), np.zeros(len(x), np.int64)
    for i in range(len(x)):
        meter = Meter(target, int(y[i]), budget, batch)
        nearest = np.inf
        try:
            for point in walk(i, meter):
                size = float(norms((np.asarray(point, np.float32) - x[i].astype(np.float64))[None], norm)[0])
                if size < nearest:
                    x_adv[i], nearest = point, size
                if nearest <= eps:
                    break
        except BudgetSpent:
            pass
        queries[i] = meter.spent
    return Result(x_adv, queries)


def pairs_left(meter: ScoreMeter, samples: int) -> int:
    """How many pairs of probes the budget allows beside one check, at most half of the samples."""
    pairs = min(samples // 2, (meter.left - 1) // 2)
    if pairs < 1:
        raise BudgetSpent
    return pairs
