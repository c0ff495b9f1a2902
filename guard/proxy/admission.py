"""Admission: how many calls are handled at once, how many may wait, and that the others are told at once.

Answers: memory and threads taken by a burst of calls. First come, first served; a caller that goes away or whose
deadline passes leaves the queue, and one whose deadline would pass there, by the pace at which places became free while
others waited, is told at once: waiting would only keep those behind him. Known bypass: one caller can take every place,
there is no share for each.
Cost:    nothing while places are free.
"""

import asyncio
from collections import deque

from guard.metrics import Metrics

ENOUGH = 16
"""So many places must have become free, one after the other, before their pace says anything."""


class Overloaded(Exception):
    """Every place is taken, those to wait in, too; or one would come too late."""


class Admission:
    """A bounded number of places, and a bounded queue before them. All calls come from the event loop's thread."""

    def __init__(self, places: int, waiting: int, metrics: Metrics) -> None:
        self._places, self._waiting, self._metrics = places, waiting, metrics
        self._taken = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._freed, self._freed_at, self._pace_s = 0, 0.0, 0.0

    def resize(self, places: int, waiting: int) -> None:
        """Change the bounds; calls that have a place keep it."""
        self._places, self._waiting = places, waiting
        self._hand_out()

    async def enter(self, timeout_s: float) -> None:
        """Take a place. Raises Overloaded at once, TimeoutError where none gets free in time."""
        await self._take(timeout_s)
        self._metrics.in_flight.inc()

    def leave(self) -> None:
        """Give it back."""
        if self._queue:
            self._time(asyncio.get_running_loop().time())
        self._metrics.in_flight.dec()
        self._taken -= 1
        self._hand_out()

    async def _take(self, timeout_s: float) -> None:
        if self._taken < self._places:
            self._taken += 1
            return
        loop = asyncio.get_running_loop()
        if not self._queue:  # a new crowd has a pace of its own
            self._freed, self._freed_at = 0, loop.time()
        if len(self._queue) >= self._waiting or self._wait_s > timeout_s:
            raise Overloaded
        turn: asyncio.Future[None] = loop.create_future()
        self._queue.append(turn)
        self._metrics.queued.inc()
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # the place came as the caller left
                self._taken -= 1
                self._hand_out()
            raise
        finally:
            self._metrics.queued.dec()
            if turn in self._queue:
                self._queue.remove(turn)

    @property
    def _wait_s(self) -> float:
        """How long the next one would wait; 0 where nothing is known."""
        return self._pace_s * (len(self._queue) + 1) if self._freed >= ENOUGH else 0.0

    def _time(self, now: float) -> None:
        """A place is free, while others wait."""
        took, self._freed_at = now - self._freed_at, now
        self._freed += 1
        self._pace_s += (took - self._pace_s) / min(self._freed, ENOUGH)

    def _hand_out(self) -> None:
        while self._queue and self._taken < self._places:
            turn = self._queue.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
