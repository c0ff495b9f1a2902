"""The latest decisions of this process in which monitors had something to say, for `guard explain`.

Kept in memory, and bounded: at most `size` decisions, and at most four times as many rows of them. A decision counts
where a p-value of a row was at most RELEVANT, or where the caller's level rose. Beside them, for each of the latest
ROWS_A_DECISION * size rows of any decision, which decision it came in: an attack's first query alarms nobody, and is
what its second one is linked to. Other processes have journals of their own: a log on disk has all (`--log`).

Cost: measured, 1.1 kB a decision of one row and one finding (11 MB for 10,000); further findings and rows add to it.
"""

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from guard.events import Event
from guard.types import Level

RELEVANT = 0.01
ROWS_A_DECISION = 8
_KEPT_ROWS = 4
_ID_BYTES = 48


class Journal:
    """Not safe for threads: one event loop writes and reads it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._events: OrderedDict[str, Event] = OrderedDict()
        self._rows = 0
        self._levels: OrderedDict[tuple[str, str], Level] = OrderedDict()
        self._origins = _Origins(size * ROWS_A_DECISION)

    def __len__(self) -> int:
        return len(self._events)

    @property
    def events(self) -> Iterator[Event]:
        """Oldest first."""
        return iter(self._events.values())

    def find(self, decision_id: str) -> Event | None:
        """One decision; None where it is not kept, or no longer."""
        return self._events.get(decision_id)

    def origin(self, model: str, number: int) -> tuple[str, int] | None:
        """The decision that the store's row came in, and its place there; None where that is not known."""
        return self._origins.find(model, number)

    def record(self, event: Event) -> None:
        """Keep what may have to be explained."""
        if not event.traces and not event.credits:
            return
        for trace in event.traces:
            if trace.number >= 0:
                self._origins.add(event.model, trace.number, event.decision_id, trace.row)
        rose = self._rose(event)
        if not rose and not relevant(event):
            return
        former = self._events.pop(event.decision_id, None)
        self._events[event.decision_id] = event
        self._rows += len(event.traces) - (0 if former is None else len(former.traces))
        while len(self._events) > self.size or (self._rows > _KEPT_ROWS * self.size and len(self._events) > 1):
            _, oldest = self._events.popitem(last=False)
            self._rows -= len(oldest.traces)

    def forgive(self, model: str, caller: str) -> None:
        """His level is clear again; what he did stays."""
        self._levels.pop((model, caller), None)

    def _rose(self, event: Event) -> bool:
        """Whether the caller's level is above that of his query before, or was raised by this one."""
        key = event.model, event.caller
        before = self._levels.pop(key, Level.CLEAR)
        if event.level is not Level.CLEAR:
            self._levels[key] = event.level
            if len(self._levels) > self.size:
                self._levels.popitem(last=False)
        return event.level > before or event.rose


def relevant(event: Event) -> bool:
    """Whether a monitor found a row of it remarkable."""
    return any(p <= RELEVANT for credit in event.credits for p in credit.p_values)


class _Origins:
    """Which decision a row came in, of the latest rows: a ring of 66 bytes a row."""

    def __init__(self, size: int) -> None:
        self._numbers: NDArray[np.int64] = np.full(size, -1, np.int64)
        self._models: NDArray[np.int64] = np.zeros(size, np.int64)
        self._rows: NDArray[np.int32] = np.zeros(size, np.int32)
        self._ids = np.zeros(size, f"S{_ID_BYTES}")
        self._next = 0

    def add(self, model: str, number: int, decision_id: str, row: int) -> None:
        at = self._next
        self._numbers[at], self._models[at], self._rows[at] = number, hash(model), row
        self._ids[at] = decision_id.encode(errors="replace")
        self._next = (at + 1) % len(self._numbers)

    def find(self, model: str, number: int) -> tuple[str, int] | None:
        if number < 0:
            return None
        found = np.flatnonzero((self._numbers == number) & (self._models == hash(model)))
        if not found.size:
            return None
        latest = found[np.argmin((self._next - 1 - found) % len(self._numbers))]
        return self._ids[latest].decode(), int(self._rows[latest])
