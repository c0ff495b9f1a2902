"""Units of work, done in this process or in several, with a bar that tells how far they are.

A unit keeps what it made on the shelf and is not done again: a run that was killed goes on where it was. Units of one
phase do not need each other.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from adversary.gradients import one_thread


class Work(Protocol):
    """A unit; it travels between processes."""

    @property
    def label(self) -> str:
        """What is being done."""
        ...

    @property
    def cost(self) -> float:
        """Seconds, about."""
        ...

    def do(self) -> None:
        """Do it, unless it is done."""
        ...


def _one(unit: Work) -> Work:
    with one_thread():
        unit.do()
    return unit


def _each(units: Sequence[Work], jobs: int) -> Iterator[Work]:
    """The dearest first, so that nobody waits long for the last."""
    order = sorted(units, key=lambda unit: -unit.cost)
    if jobs <= 1:
        yield from map(_one, order)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_one, unit) for unit in order]):
            yield future.result()


class Screen:
    """A bar on a terminal, lines elsewhere; on stderr. A context manager."""

    def __init__(self, phases: Sequence[Sequence[Work]]) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._total = sum(unit.cost for units in phases for unit in units)
        self._done = 0.0
        self._task = self._bars.add_task("bench.detection", total=self._total)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def finished(self, unit: Work) -> None:
        """A unit that is done."""
        self._done += unit.cost
        self._bars.update(self._task, completed=self._done, description=unit.label)
        if not self._console.is_terminal:
            share = 100.0 * self._done / max(self._total, 1e-9)
            self._console.print(f"[{share:3.0f} %] {unit.label}", highlight=False, markup=False)


def run(phases: Sequence[Sequence[Work]], jobs: int) -> None:
    """One phase after the other."""
    with Screen(phases) as screen:
        for units in phases:
            for unit in _each(units, jobs):
                screen.finished(unit)
