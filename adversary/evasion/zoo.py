"""ZOO: C&W's l2 objective over log-probabilities, descended coordinate by coordinate on finite differences.

Source: Chen, Zhang, Sharma, Yi, Hsieh 2017, arXiv:1708.03999 (ZOO-Adam, ZOO-Newton), with the authors' settings for
        MNIST: 128 coordinates a step, h = 1e-4, a rate of 0.01, no tanh, no resizing, coordinates drawn evenly.
Access: scores. Norm: l2. Cost: up to `budget` queries a victim, 2 * coordinates + 1 a step; thousands are needed.
Limits: h is far below a grey level: 8-bit endpoints, rounded scores and float32 probabilities of very sure models all
        leave it blind. The paper's figures come from hundreds of thousands of queries.

Loss: ||x' - x||^2 + price * max(log p_y - max log p_other, 0). The price is searched as in C&W, a share of the budget
each; with one search step it stays what it is. All rows of a step are independent and travel up to `batch` a call.
Stops at the first success within eps (the paper goes on to the smallest). Probes are clipped to [0, 1] and their slope
taken over what is left; a coordinate of which a probe is refused keeps its value.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from adversary.attack import Array, Result, ScoreMeter, ScoreOracle
from adversary.walks import descend, pairs_left

_H = 1e-4
_RATE = 0.01
_REACH = 0.6  # of a value, in steps of the rate
_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8
_STALLED, _STALLED_AFTER = 0.9999, 100  # no better within so many steps: the next price
_HIGHEST_PRICE = 1e10
_LEAST_CURVATURE = 0.1

Solver = Literal["adam", "newton"]


@dataclass(frozen=True, slots=True)
class _Options:
    eps: float
    solver: Solver
    coordinates: int
    rate: float
    search_steps: int
    price: float
    steps: int  # at one price


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    solver: Solver = "adam",
    coordinates: int = 128,
    rate: float | None = None,
    search_steps: int = 1,
    price: float = 10.0,
    batch: int = 64,
) -> Result:
    """Stops where the label changes within eps, or the budget is spent.

    rate:  by default the authors' 0.01, or what lets every value travel 0.6 with the steps that the budget allows.
    """
    size = math.prod(x.shape[1:])
    coordinates = min(coordinates, size)
    steps = max(2, budget // (search_steps * (2 * coordinates + 1)))
    rate = max(_RATE, _REACH * size / (steps * coordinates)) if rate is None else rate
    options = _Options(eps, solver, coordinates, rate, search_steps, price, steps)

    def walk(i: int, meter: ScoreMeter) -> Iterator[Array]:
        x0 = np.asarray(x[i], np.float64).ravel()
        for point in _search(x0, x[i].shape, meter, rng, options):
            yield point.reshape(x[i].shape)

    return descend(target, x, y, budget=budget, batch=batch, walk=walk)


def _search(
    x0: Array, shape: tuple[int, ...], meter: ScoreMeter, rng: np.random.Generator, o: _Options
) -> Iterator[Array]:
    """Price after price, each from where the last one ended; yields the nearest winner, or before that its tries."""
    low, high, price = 0.0, _HIGHEST_PRICE, o.price
    point, nearest = x0, np.inf
    while True:
        won_once = False
        for here, squared, won in _descend(x0, point, shape, meter, rng, price, o):
            point = here
            won_once |= won
            if won and squared < nearest:
                nearest = squared
                yield point
                if squared <= o.eps**2:
                    return
            elif nearest == np.inf:
                yield point
        if o.search_steps > 1:
            low, high = (low, min(high, price)) if won_once else (max(low, price), high)
            price = (low + high) / 2.0 if high < _HIGHEST_PRICE else price * 10.0


def _descend(
    x0: Array,
    point: Array,
    shape: tuple[int, ...],
    meter: ScoreMeter,
    rng: np.random.Generator,
    price: float,
    o: _Options,
) -> Iterator[tuple[Array, float, bool]]:
    """Steps at one price: each point with its squared distance and whether it has won."""
    update = _Adam(x0.size, o.rate) if o.solver == "adam" else _Newton(o.rate)
    lowest = np.inf
    for step in range(o.steps):
        places = rng.choice(x0.size, pairs_left(meter, 2 * o.coordinates), replace=False)
        sent = np.repeat(point[None], 2 * len(places) + 1, axis=0)
        rows = np.arange(len(places))
        sent[1 + rows, places] += _H
        sent[1 + len(places) + rows, places] -= _H
        sent = np.clip(sent, 0.0, 1.0)
        scores = meter.scores(sent.reshape(-1, *shape))
        squared = ((sent - x0) ** 2).sum(axis=1)
        losses = squared + price * np.maximum(scores.margin, 0.0)
        yield point, float(squared[0]), bool(scores.won[0])
        if step % _STALLED_AFTER == 0 and not np.isnan(losses[0]):
            if losses[0] > lowest * _STALLED:
                return
            lowest = losses[0]
        up, down = losses[1 : 1 + len(places)], losses[1 + len(places) :]
        apart = sent[1 + rows, places] - sent[1 + len(places) + rows, places]
        slope, bend = (up - down) / apart, (up - 2.0 * losses[0] + down) / _H**2
        bend[apart < 1.5 * _H] = np.nan  # clipped: one-sided
        known = ~np.isnan(slope)
        point = point.copy()
        point[places[known]] -= update.step(places[known], slope[known], bend[known])
        point = np.clip(point, 0.0, 1.0)


class _Adam:
    """Each coordinate has its own moments and its own count."""

    def __init__(self, size: int, rate: float) -> None:
        self._mean, self._square, self._count = np.zeros(size), np.zeros(size), np.zeros(size)
        self._rate = rate

    def step(self, places: Array, slope: Array, bend: Array) -> Array:
        """What to subtract there."""
        del bend
        self._count[places] += 1
        self._mean[places] = mean = _BETA1 * self._mean[places] + (1.0 - _BETA1) * slope
        self._square[places] = square = _BETA2 * self._square[places] + (1.0 - _BETA2) * slope**2
        count = self._count[places]
        correction = np.sqrt(1.0 - _BETA2**count) / (1.0 - _BETA1**count)
        return np.asarray(self._rate * correction * mean / (np.sqrt(square) + _TINY))


@dataclass(frozen=True, slots=True)
class _Newton:
    """The slope over the curvature; where that is negative or unknown, the slope."""

    rate: float

    def step(self, places: Array, slope: Array, bend: Array) -> Array:
        """What to subtract there."""
        del places
        curvature = np.where(bend > 0.0, np.maximum(bend, _LEAST_CURVATURE), 1.0)
        return np.asarray(self.rate * slope / curvature)
