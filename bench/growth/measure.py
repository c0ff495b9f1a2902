"""CPU time of what monitors add to a query, against what grows: callers, stored rows, rows a query, monitors.

The whole way of `bench.monitors.costs` (sketch, exchange, decide, credit, conclude, credit), on a store in memory, rows
that nothing is like, from callers who take turns. One thread of this process; sizes take their turn in each round,
upwards and downwards by turns.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from adversary.attack import Array
from bench.monitors import costs
from bench.monitors.costs import Subject
from bench.scale import units
from guard.settings import Model as Settings
from guard.stores.memory import MemoryStore
from guard.watching import Watching

SIZE = "28x28x1"
_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class How:
    """rounds: of everything. calls: of each size in a round. The sizes of each thing that grows."""

    rounds: int = 9
    calls: int = 40
    callers: tuple[int, ...] = (1, 100, 10_000, 100_000)
    stored: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    rows: tuple[int, ...] = (1, 4, 16, 64, 256)
    monitors: tuple[int, ...] = (1, 2, 4, 8, 99)


Work = Callable[[], None]
"""One query."""


def measured(how: How) -> dict[str, Any]:
    """By what grows and size, us a query by round."""
    subject = costs.subject(SIZE)
    made: dict[str, dict[int, Work]] = {
        "callers": {n: _of_callers(subject, n) for n in how.callers},
        "stored": {n: _of_stored(subject, n) for n in how.stored},
        "rows": {n: _of_rows(subject, n) for n in how.rows},
        "monitors": {n: _of_monitors(subject, n) for n in _counted(how.monitors, len(subject.stages))},
    }
    taken: dict[str, dict[int, list[float]]] = {what: {n: [] for n in works} for what, works in made.items()}
    for works in made.values():
        for work in works.values():
            work()
    gc.collect()
    for number in range(how.rounds):
        for what, works in made.items():
            for n in list(works)[:: 1 if number % 2 else -1]:
                calls = max(2, how.calls // n) if what == "rows" else how.calls
                taken[what][n].append(_timed(works[n], calls))
    return {"how": asdict(how), "us": {what: {str(n): us for n, us in one.items()} for what, one in taken.items()}}


def _counted(wanted: Sequence[int], most: int) -> list[int]:
    return list(dict.fromkeys(min(n, most) for n in wanted))


def _timed(work: Work, calls: int) -> float:
    began = time.process_time()
    for _ in range(calls):
        work()
    return 1e6 * (time.process_time() - began) / calls


def _asking(subject: Subject, store: MemoryStore, names: Callable[[], str], rows: int = 1) -> Work:
    """Rows are made before, a few hundred, and changed by one value so that none is a repeat."""
    made, at = [_batch(subject, rows) for _ in range(max(2, 64 // rows))], 0

    def work() -> None:
        nonlocal at
        at += 1
        x = made[at % len(made)]
        x[:, 0, 0] = subject.rng.random(x[:, 0, 0].shape)
        costs.whole(subject, names(), store, x)

    return work


def _batch(subject: Subject, rows: int) -> Array:
    return np.concatenate(subject.fresh(rows))


def _of_callers(subject: Subject, n: int) -> Work:
    store = MemoryStore(max_entries=_ENTRIES, max_callers=max(n, 1))
    asyncio.run(units.callers(store, 0, n))
    rng = np.random.default_rng(costs.SEED)
    return _asking(subject, store, lambda: units.name_of(int(rng.integers(n))))


def _of_stored(subject: Subject, n: int) -> Work:
    return _asking(subject, costs.filled(n), lambda: "one")


def _of_rows(subject: Subject, n: int) -> Work:
    wider = replace(subject, probs=np.repeat(subject.probs, n, axis=0))
    return _asking(wider, costs.filled(_ENTRIES), lambda: "one", n)


def _of_monitors(subject: Subject, n: int) -> Work:
    stages = subject.stages[:n]
    settings = Settings.model_validate({
        "name": "model", "mode": "enforce", "profile": "profile", "embedded": {"file": "model.onnx"},
        "monitors": [{"stage": stage.name} for stage in stages],
    })  # fmt: skip
    watching = Watching(stages, settings, subject.full, costs.score, costs.SECRET)
    return _asking(replace(subject, stages=stages, watching=watching), costs.filled(_ENTRIES), lambda: "one")


def ratio(us: Mapping[str, Sequence[float]], over: str, under: str) -> tuple[float, float, float]:
    """Quartiles of one size over another, round by round."""
    low, middle, high = np.quantile(np.array(us[over]) / np.array(us[under]), (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)
