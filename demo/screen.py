"""Progress: live bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column


class Tell(Protocol):
    """What a step reports with."""

    def __call__(self, done: int, note: str = "") -> None:
        """What is done so far, and a word on how it goes."""
        ...


class Screen:
    """Steps, one after the other. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓", table_column=Column(min_width=1)),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=8, table_column=Column(no_wrap=True, min_width=8)),
            TextColumn("{task.fields[count]}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[note]}", style="dim", table_column=Column(overflow="fold")),
            TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False, markup=False)

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Tell]:
        """One step; call what it yields with what is done and a note."""
        started, last = time.monotonic(), ""
        task = self._bars.add_task(title, total=total, count="", note="")
        if not self.console.is_terminal:
            self.say(f"{title} ...")

        def tell(done: int, note: str = "") -> None:
            nonlocal last
            last = note
            self._bars.update(task, completed=done, count=_count(done, total), note=note)

        yield tell
        self._finish(task, total)
        if not self.console.is_terminal:
            self.say(f"{title}: {last or 'done'} ({time.monotonic() - started:.1f} s)")

    def _finish(self, task: TaskID, total: int | None) -> None:
        done = 1 if total is None else total
        self._bars.update(task, total=done, completed=done, count=_count(done, total))


def _count(done: int, total: int | None) -> str:
    return "" if total is None else f"{done:,}/{total:,}"
