"""Runs an attack that tells what a model has learned from. Who is a member, only the judge knows."""

from dataclasses import dataclass, field

import numpy as np

from adversary.attack import Array
from adversary.catalogue import Entry
from adversary.oracle import Oracle, Record
from adversary.runner import Tell, silent


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """scores, queries: (N,), see `adversary.attack.Guesses`; trail: every call."""

    scores: Array
    queries: Array
    trail: tuple[Record, ...] = field(repr=False)


def infer(
    entry: Entry,
    oracle: Oracle,
    x: Array,
    y: Array,
    *,
    budget: int,
    seed: int,
    tell: Tell = silent,
    **options: object,
) -> Inference:
    """x, y: candidates, as one caller. A score that is not a number says nothing, and counts as 0."""
    from adversary.gradients import one_thread  # noqa: PLC0415 - torch only where it is needed

    oracle.use(0)

    def count(*_: object) -> None:
        tell(oracle.spent, budget * len(x), 0)

    oracle.listeners.append(count)
    try:
        with one_thread():
            rng = np.random.default_rng(seed)
            guesses = entry.load_membership()(oracle, x, y, budget=budget, rng=rng, **options)
    finally:
        oracle.listeners.remove(count)
    scores = np.nan_to_num(np.asarray(guesses.scores, np.float64), nan=0.0)
    if scores.shape != (len(x),):
        raise ValueError(f"{entry.name} scored {len(x)} candidates with shape {scores.shape}")
    return Inference(scores, np.asarray(guesses.queries, np.int64), tuple(oracle.records))
