"""Runs an attack that rebuilds what a model takes for a class, and judges by others whether it is one.

A high answer alone proves nothing: noise can have it. So the endpoint is asked afresh, a network that the attack never
saw says what it recognises, and the rebuilt input is compared with the mean of real inputs of each class.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adversary.attack import REFUSED, Array
from adversary.catalogue import Entry
from adversary.oracle import Oracle, Record
from adversary.runner import Tell, silent

_FLAT = 1e-12  # a constant image resembles nothing


@dataclass(frozen=True, slots=True, eq=False)
class Rebuilt:
    """(N,) each: the classes wanted; the endpoint's labels; the rows sent. x: (N, ...); trails: a tuple a class."""

    x: Array
    y: Array
    answered: Array
    queries: Array
    trails: tuple[tuple[Record, ...], ...] = field(repr=False)


def invert(
    entry: Entry,
    oracle: Oracle,
    x: Array,
    y: Array,
    *,
    budget: int,
    seed: int,
    tell: Tell = silent,
    **options: Any,
) -> Rebuilt:
    """x: where to start; y: the classes wanted, each by a caller of its own."""
    rebuilt, queries = np.array(x, np.float32), np.zeros(len(x), np.int64)
    answered = np.full(len(x), REFUSED, np.int64)
    trails = []
    for i in range(len(x)):
        one = slice(i, i + 1)
        oracle.use(i)
        since = len(oracle.records)
        rng = np.random.default_rng([seed, i])
        result = entry.load_inversion()(oracle, x[one], y[one], budget=budget, rng=rng, **options)
        rebuilt[one] = np.clip(np.nan_to_num(np.asarray(result.x_adv, np.float32).reshape(x[one].shape)), 0.0, 1.0)
        queries[i] = result.queries[0]
        answered[i] = oracle.labels(rebuilt[one])[0]
        trails.append(tuple(oracle.records[since:]))
        tell(i + 1, len(x), int((answered[: i + 1] == y[: i + 1]).sum()))
    return Rebuilt(rebuilt, np.asarray(y, np.int64), answered, queries, tuple(trails))


def likeness(x: Array, real_x: Array, real_y: Array, classes: int) -> Array:
    """(N, ...) -> (N, classes): the correlation of each with the mean of real inputs of each class."""
    means = np.stack([real_x[real_y == label].mean(axis=0) for label in range(classes)])
    return _standard(x) @ _standard(means).T


def _standard(x: Array) -> Array:
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), _FLAT))


def recognised(x: Array, real_x: Array, real_y: Array, seed: int) -> Array:
    """(N, ...) -> (N,) labels by a network fitted on real inputs, which the attack never saw."""
    from adversary import surrogate  # noqa: PLC0415 - torch only where it is needed
    from adversary.gradients import predict  # noqa: PLC0415

    return predict(surrogate.fit(real_x, real_y, seed), x)
