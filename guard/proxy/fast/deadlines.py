"""Many deadlines, one timer: what ends at about the same time shares a slot, so that slots are few for any number."""

import asyncio
import heapq
import logging
from typing import Protocol

_log = logging.getLogger(__name__)
TICK_S = 0.01
SOON_S, LATER_S = 5.0, 300.0
LONGEST_S = 86_400.0
"""Later than this is never."""


def _step(left_s: float) -> int:
    """Ticks of a slot so far ahead: within 2 %."""
    return 1 if left_s <= SOON_S else 8 if left_s <= LATER_S else 512


class Timed(Protocol):
    """What has a deadline."""

    def expire(self) -> None:
        """It has passed."""
        ...


class Deadlines:
    """Those of one event loop. A deadline passes a little late, never early."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots: dict[int, set[Timed]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0

    def add(self, left_s: float, what: Timed) -> int:
        """Its slot, which `drop` wants."""
        step = _step(left_s)
        slot = (int((self._loop.time() + min(left_s, LONGEST_S)) / TICK_S) // step + 1) * step
        held = self._slots.get(slot)
        if held is None:
            self._slots[slot] = {what}
            heapq.heappush(self._order, slot)
            if self._timer is None or slot < self._next:
                self._arm(slot)
        else:
            held.add(what)
        return slot

    def drop(self, slot: int, what: Timed) -> None:
        """It has ended before."""
        held = self._slots.get(slot)
        if held is not None:
            held.discard(what)

    def _arm(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = slot
        self._timer = self._loop.call_at(slot * TICK_S, self._pass)

    def _pass(self) -> None:
        now = self._loop.time() / TICK_S
        self._timer = None
        while self._order and self._order[0] <= now:
            for what in tuple(self._slots.pop(heapq.heappop(self._order))):
                try:
                    what.expire()
                except Exception:  # noqa: BLE001 - the others' deadlines pass, too
                    _log.exception("a deadline could not be kept")
        if self._order and self._timer is None:
            self._arm(self._order[0])

    def close(self) -> None:
        """No deadline passes any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._slots.clear()
        self._order.clear()
