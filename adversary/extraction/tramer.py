"""Equation solving: the weights of a linear model, from as many scores as it has inputs, and one.

Source: Tramer, Zhang, Juels, Reiter, Ristenpart 2016, arXiv:1609.02943 (section 4.1: logistic and softmax regression).
Access: scores. Sees neither data nor labels: of x only the shape. Cost: d + 1 rows for d input values.
Limits: linear models alone; of another model it finds the nearest plane at best. Every row less than d + 1 leaves a
        direction unknown; rounded answers cost agreement, more rows win some of it back.

log p_c - mean(log p) = w_c.x + b_c, up to what a softmax does not show: one least-squares problem. The paper asks about
random points (`probes="uniform"`). Here every value steps from 0 to 1 alone by default, from black, then a few do so
together: answers near black are less saturated, so that rounding to 3 decimals costs 2.5 points of agreement with the
linear MNIST victim at d + 1 rows, and not 88.
"""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from adversary.attack import Array, Copy, ScoreOracle
from adversary.extraction.answers import Loot, Thief, milestones

Probes = Literal["steps", "uniform"]
_TOGETHER = 8  # values that step together


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    budget: int,
    rng: np.random.Generator,
    classes: int,
    probes: Probes = "steps",
    batch: int = 100,
) -> Iterator[Copy]:
    """A copy at an eighth, a quarter, a half of the budget, at d + 1 rows, and at the end."""
    del y
    shape = x.shape[1:]
    inputs = math.prod(shape)
    thief = Thief(target, budget=budget, classes=classes, answers="scores", batch=batch)
    loot = Loot(np.zeros((0, *shape), np.float32), np.zeros((0, classes)))
    for mark in sorted({*milestones(budget), min(inputs + 1, budget)}):
        rows = np.arange(thief.spent, mark)
        points = rng.random((len(rows), inputs)) if probes == "uniform" else _steps(rows, inputs, rng)
        loot += thief.take(points.reshape(-1, *shape))
        yield _plane(solve(loot))


def _steps(rows: Array, inputs: int, rng: np.random.Generator) -> Array:
    """Row 0 is black, row i + 1 sets value i; later ones set a few values to something."""
    points = rng.random((len(rows), inputs)) * (rng.random((len(rows), inputs)) < _TOGETHER / inputs)
    first = rows <= inputs
    points[first] = np.eye(inputs + 1)[rows[first], 1:]
    return np.asarray(points)


def solve(loot: Loot) -> Array:
    """-> (d + 1, C) weights, the last row the offsets: the smallest that explain the answers best."""
    if not len(loot):
        return np.zeros((math.prod(loot.x.shape[1:]) + 1, loot.p.shape[1]))
    least = (
        loot.p[loot.p > 0.0].min(initial=1.0) / 2.0
    )  # what was rounded to nothing is less than the least that was not
    logs = np.log(np.maximum(loot.p, least))
    return np.asarray(np.linalg.lstsq(_with_one(loot.x), logs - logs.mean(axis=1, keepdims=True), rcond=None)[0])


def _with_one(x: Array) -> Array:
    """(N, ...) -> (N, d + 1) float64."""
    return np.column_stack([x.reshape(len(x), -1).astype(np.float64), np.ones(len(x))])


def _plane(weights: Array) -> Copy:
    return lambda x: np.asarray((_with_one(x) @ weights).argmax(axis=1), np.int64)
