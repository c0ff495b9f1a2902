"""How a campaign is going: a live display on a terminal, a line a finished unit elsewhere. All of it on stderr."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from adversary.unit import Unit
from adversary.work import Arrays

_MINUTE = 60
_TELLING = 0.01  # of the whole


class Screen:
    """Use as a context manager. `expect` what is to be done, then tell of it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", style="dim"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._bars.add_task("campaign", total=None, note="")
        self._now = self._bars.add_task("", total=None, note="", visible=False)
        self._weights: dict[Unit, int] = {}
        self._done = self._fresh = 0
        self._started = time.monotonic()
        self._won: Counter[tuple[str, str]] = Counter()
        self._of: Counter[tuple[str, str]] = Counter()
        self._queries: Counter[tuple[str, str]] = Counter()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def expect(self, weights: dict[Unit, int]) -> None:
        """What is to be done, and about how much each is in comparison."""
        self._weights = dict(weights)
        self._started = time.monotonic()

    def at_work(self, unit: Unit, done: int, of: int, won: int) -> None:
        """A unit that goes on."""
        queries = unit.kind in {"steal", "infer"}
        note = f"{done:,} of {of:,} queries" if queries else f"{won} successful" if unit.attack else ""
        self._bars.update(self._now, description=_title(unit), completed=done, total=of, note=note, visible=True)

    def finished(self, unit: Unit, arrays: Arrays, *, kept: bool = False) -> None:
        """A unit that is done; `kept`: an earlier run did it."""
        weight = self._weights.get(unit, 1)
        self._done += weight
        self._fresh += 0 if kept else weight
        note = self._note(unit, arrays)
        left = self.left_s
        eta = "" if left is None else f"ETA {duration(left)}"
        total = sum(self._weights.values())
        self._bars.update(self._all, completed=self._done, total=total, note=f"{_title(unit)}: {note}  {eta}")
        self._bars.update(self._now, visible=False)
        if not self.console.is_terminal and not kept:
            share = 100 * self._done // max(1, total)
            self.say(f"[{share:3d} %] {_title(unit)} {unit.start}-{unit.stop}: {note}  {eta}".rstrip())

    def failed(self, unit: Unit, reason: str) -> None:
        """A unit that came to nothing."""
        self._done += self._weights.get(unit, 1)
        self.say(f"{_title(unit)} {unit.start}-{unit.stop} FAILED: {reason}")

    @property
    def left_s(self) -> float | None:
        """Seconds to the end, by what was done in this run so far; None while that is too little to tell."""
        total = sum(self._weights.values())
        if self._fresh < _TELLING * total:
            return None
        rest = total - self._done
        return (time.monotonic() - self._started) * rest / self._fresh

    def _note(self, unit: Unit, arrays: Arrays) -> str:
        if "copied" in arrays:
            agreement = float((arrays["copied"][-1] == arrays["bare"]).mean())
            return f"the copy agrees on {100 * agreement:.1f} %, {int(arrays['sent'].sum()):,} queries"
        if "adversarial" not in arrays:
            return f"done, {int(arrays['sent'].sum()):,} queries" if "sent" in arrays else "done"
        which = unit.target, unit.attack
        self._won[which] += int((arrays["reached_at"] >= 0).sum())
        self._of[which] += int((arrays["clean"] == arrays["y"]).sum())
        self._queries[which] += int(arrays["sent"].sum())
        flagged = int(np.count_nonzero(arrays["flagged_at"] >= 0))
        seen = f", {flagged} of {len(arrays['y'])} noticed" if flagged else ""
        return f"{self._won[which]} of {self._of[which]} reached, {self._queries[which]:,} queries{seen}"


def _title(unit: Unit) -> str:
    words: Sequence[str] = (unit.attack or unit.kind, unit.target and f"on {unit.target}")
    return " ".join(word for word in (*words, "(crafting)" if unit.kind == "craft" else "") if word)


def duration(seconds: float) -> str:
    """1:05 min, 12 s."""
    whole = round(seconds)
    return f"{whole} s" if whole < _MINUTE else f"{whole // _MINUTE}:{whole % _MINUTE:02d} min"
