"""Things on their way to one place: a bounded queue and a thread that empties it. Whoever puts never waits.

What does not fit is dropped, what the carrier cannot deliver has failed; both are counted. At the end what is queued is
delivered until a deadline; what is left then is dropped, what is still under way has failed. So each thing that was put
is counted once, whenever it came. The thread closes its carrier: one that is stuck keeps no other from its end.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

BATCH = 256
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Carrier(Protocol[T]):
    """Takes things to their place, and is closed, in one thread."""

    def carry(self, items: list[T]) -> int:
        """Deliver, and say how many failed. Raises where all have failed."""
        ...

    def hurry(self) -> None:
        """From another thread: the end is near, try nothing again."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


class Delivery(Generic[T]):
    """One place's queue and thread.

    count:    told how many things were `written`, `dropped` or `failed`.
    gather_s: how long a thread that has something waits for more.
    """

    def __init__(
        self,
        what: str,
        carrier: Carrier[T],
        count: Callable[[str, int], None],
        *,
        thread: str,
        max_queued: int,
        batch: int = BATCH,
        gather_s: float = 0.0,
    ) -> None:
        self._what, self._carrier, self._count = what, carrier, count
        self._batch, self._gather_s = batch, gather_s
        self._queue: deque[T] = deque()
        self._max_queued, self._enough = max_queued, min(batch, max_queued)
        self._changed = threading.Condition()
        self._closed = self._given_up = False
        self._lost = self._in_hand = 0
        self._thread = threading.Thread(target=self._run, name=thread, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue it. Never blocks, never raises."""
        with self._changed:
            fits = not self._closed and len(self._queue) < self._max_queued
            if fits:
                self._queue.append(item)
                self._changed.notify()
        if not fits:
            self._count("dropped", 1)

    def hurry(self) -> None:
        """Take nothing more, try nothing again, deliver what is queued and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._carrier.hurry()

    def close(self, timeout_s: float) -> None:
        """Hurry, and wait for it so long. Once."""
        self.hurry()
        self._thread.join(timeout_s)
        with self._changed:
            self._given_up = True
            self._count("failed", self._in_hand)
            self._count("dropped", len(self._queue))
            self._queue.clear()

    # --- in the thread

    def _run(self) -> None:
        while batch := self._next():
            self._carry(batch)
        if self._lost:
            _log.error("%s: %d could not be written until the end", self._what, self._lost)
        try:
            self._carrier.close()
        except Exception as error:  # noqa: BLE001 - it is the end, whatever failed
            _log.error("%s: cannot be closed: %s", self._what, _words(error))

    def _next(self) -> list[T]:
        """At least one thing; none where there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if self._gather_s:
                self._changed.wait_for(lambda: len(self._queue) >= self._enough or self._closed, self._gather_s)
            batch = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
            self._in_hand = len(batch)
            return batch

    def _carry(self, items: list[T]) -> None:
        try:
            failed, why = self._carrier.carry(items), "the receiver refused some"
        except Exception as error:  # noqa: BLE001 - whatever failed, later ones are to be delivered
            failed, why = len(items), _words(error)
        with self._changed:
            self._in_hand = 0
            if not self._given_up:
                self._count("failed", failed)
                self._count("written", len(items) - failed)
        self._tell(failed, why)

    def _tell(self, failed: int, why: str) -> None:
        """When it begins to fail, and when it does no longer."""
        if failed and not self._lost:
            _log.error("%s cannot be written: %s", self._what, why)
        elif self._lost and not failed:
            _log.warning("%s are written again: %d could not be", self._what, self._lost)
        self._lost = self._lost + failed if failed else 0


class Undelivered(OSError):
    """A receiver did not take it. Its text is Guard's own: safe to log. away: it would take nothing else either."""

    def __init__(self, text: str, *, away: bool = True) -> None:
        super().__init__(text)
        self.away = away


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, Undelivered) else type(error).__name__
