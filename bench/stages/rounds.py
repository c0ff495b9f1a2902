"""CPU time, ours and a peer's one right after the other, who is first changing each round.

Processor time of this process, whose libraries have one thread each, so that others on the machine do not count; what
they do to caches and clock falls on both halves of a pair. The rounds go over everything, so that no method has an hour
of its own.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np

Call = Callable[[], Any]
Told = Callable[[int, int], None]
_FEWEST = 3  # rounds, whatever they take


@dataclass(frozen=True, slots=True)
class How:
    """rounds: pairs of a method. half_s: CPU time of each half, about. most_s: of one method in all, about."""

    rounds: int = 9
    half_s: float = 0.05
    most_s: float = 60.0


@dataclass(slots=True, eq=False)
class Task:
    """What is timed, and what came of it: CPU seconds a call, by round. theirs: None where there is no peer."""

    key: str
    size: str
    batch: int
    ours: Call
    theirs: Call | None = None
    further: int = 0
    taken: list[tuple[float, ...]] = field(default_factory=list)
    calls: tuple[int, ...] = ()
    spent: float = 0.0


def measure(tasks: Sequence[Task], how: How, tell: Told) -> None:
    """All of them, so many rounds."""
    for task in tasks:
        task.calls = tuple(_calls(call, how) for call in halves(task))
    for done in range(how.rounds):
        for i, task in enumerate(tasks):
            if done < _FEWEST or task.spent < how.most_s:
                pair(task, backwards=bool(done % 2))
            tell(done * len(tasks) + i + 1, how.rounds * len(tasks))


def halves(task: Task) -> tuple[Call, ...]:
    """Ours, and theirs."""
    return (task.ours,) if task.theirs is None else (task.ours, task.theirs)


def _calls(call: Call, how: How) -> int:
    """That fill one half; the first call does not count."""
    call()
    return max(1, ceil(how.half_s / max(cpu_s(call, 1), 1e-6)))


def pair(task: Task, *, backwards: bool) -> None:
    """One round of one task; always kept as ours, theirs."""
    timed = list(zip(halves(task), task.calls, strict=True))
    found = [cpu_s(call, n) for call, n in (reversed(timed) if backwards else timed)]
    task.spent += sum(one * n for one, n in zip(reversed(found) if backwards else found, task.calls, strict=True))
    task.taken.append(tuple(reversed(found)) if backwards else tuple(found))


def cpu_s(call: Call, n: int) -> float:
    """A call, the mean of n."""
    started = time.process_time()
    for _ in range(n):
        call()
    return (time.process_time() - started) / n


@dataclass(frozen=True, slots=True)
class Measured:
    """One method at one size and batch: CPU ms an image, medians over the rounds; ratios with their quartiles."""

    key: str
    size: str
    batch: int
    rounds: int
    further_rows: int
    ms: float
    ms_quartiles: tuple[float, float]
    their_ms: float | None
    ratio: float | None
    ratio_quartiles: tuple[float, float] | None


def told(task: Task) -> Measured:
    """What is told of a task."""
    ms = np.array(task.taken, np.float64) * 1000 / task.batch
    low, middle, high = np.quantile(ms[:, 0], (0.25, 0.5, 0.75))
    theirs, ratio, spread = None, None, None
    if task.theirs is not None:
        theirs = float(np.median(ms[:, 1]))
        least, mid, most = np.quantile(ms[:, 1] / ms[:, 0], (0.25, 0.5, 0.75))
        ratio, spread = float(mid), (float(least), float(most))
    return Measured(
        task.key, task.size, task.batch, len(task.taken), task.further,
        float(middle), (float(low), float(high)), theirs, ratio, spread,
    )  # fmt: skip
