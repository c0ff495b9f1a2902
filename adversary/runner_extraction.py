"""Runs an attack that copies a model, and asks every copy about inputs that the attack has never seen.

What was sent before each copy is counted here, by the oracle; how good a copy is, the judge tells from its labels.
"""

from dataclasses import dataclass, field

import numpy as np

from adversary.attack import Array, Copy, Refused
from adversary.catalogue import Entry
from adversary.oracle import Oracle, Record, Reply
from adversary.runner import Tell, silent


@dataclass(frozen=True, slots=True, eq=False)
class Theft:
    """K copies, one after the other.

    sent, answered:  (K,) rows sent before each; of these, rows that were answered.
    labels:          (K, N) of each for the N inputs it is judged by.
    trail:           every call.
    """

    sent: Array
    answered: Array
    labels: Array
    trail: tuple[Record, ...] = field(repr=False)


@dataclass(slots=True)
class _Count:
    oracle: Oracle
    budget: int
    tell: Tell
    answered: int = 0

    def __call__(self, x: Array, reply: Reply, _record: Record) -> None:
        self.answered += 0 if isinstance(reply, Refused) else len(x)
        self.tell(self.oracle.spent, self.budget, 0)


def steal(
    entry: Entry,
    oracle: Oracle,
    x: Array,
    y: Array,
    *,
    judged: Array,
    budget: int,
    seed: int,
    tell: Tell = silent,
    **options: object,
) -> Theft:
    """x, y: what the thief may send; judged: (N, ...) what his copies are asked about. As one caller."""
    from adversary.gradients import one_thread  # noqa: PLC0415 - torch only where it is needed

    count = _Count(oracle, budget, tell)
    oracle.listeners.append(count)
    oracle.use(0)
    found: list[tuple[int, int, Array]] = []
    try:
        with one_thread():
            rng = np.random.default_rng(seed)
            copies = entry.load_extraction()(oracle, x, y, budget=budget, rng=rng, **options)
            found.extend((oracle.spent, count.answered, _labels(copy, judged)) for copy in copies)
    finally:
        oracle.listeners.remove(count)
    if not found:
        raise ValueError(f"{entry.name} made no copy")
    sent, answered, labels = zip(*found, strict=True)
    return Theft(np.array(sent, np.int64), np.array(answered, np.int64), np.stack(labels), tuple(oracle.records))


def _labels(copy: Copy, x: Array) -> Array:
    labels = np.asarray(copy(x), np.int64)
    if labels.shape != (len(x),):
        raise ValueError(f"a copy labels {len(x)} inputs with shape {labels.shape}")
    return labels
