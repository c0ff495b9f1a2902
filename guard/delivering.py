"""Things on their way to one place: a bounded queue and a thread that empties it. Whoever puts never waits.

What does not fit is dropped, what the carrier cannot deliver has failed; both are counted. At the end what is queued is
delivered until a deadline; what is left then is dropped, what is still under way has failed.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

BATCH = 256
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Carrier(Protocol[T]):
    """Takes things to their place, called from one thread."""

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
        self._queue: queue.Queue[T | None] = queue.Queue(max_queued)
        self._closed = threading.Event()
        self._failing = False
        self._in_hand = 0
        self._settling = threading.Lock()
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name=thread, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue it. Never blocks, never raises."""
        if self._closed.is_set():
            self._count("dropped", 1)
            return
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._count("dropped", 1)

    def hurry(self) -> None:
        """Take nothing more, and try nothing again."""
        self._closed.set()
        self._carrier.hurry()

    def close(self, timeout_s: float) -> None:
        """Deliver what is queued, then stop. Once."""
        self.hurry()
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(queue.Full):  # the thread is stuck: the join gives up at once
            self._queue.put(None, timeout=timeout_s)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._settling:
            stuck, self._given_up = self._thread.is_alive(), True
            if stuck:
                self._count("failed", self._in_hand)
                self._count("dropped", sum(item is not None for item in tuple(self._queue.queue)))
        if not stuck:
            self._carrier.close()

    # --- in the thread

    def _run(self) -> None:
        open_for_more = True
        while open_for_more and not self._given_up:
            batch = self._next()
            open_for_more = batch[-1] is not None
            self._carry([item for item in batch if item is not None])

    def _next(self) -> list[T | None]:
        """At least one thing; the last is None where there will be no more."""
        batch = [self._queue.get()]
        until = time.monotonic() + self._gather_s
        while len(batch) < self._batch and batch[-1] is not None:
            left_s = 0.0 if self._closed.is_set() else max(0.0, until - time.monotonic())
            try:
                batch.append(self._queue.get(timeout=left_s) if left_s else self._queue.get_nowait())
            except queue.Empty:
                break
        return batch

    def _carry(self, items: list[T]) -> None:
        if not items:
            return
        with self._settling:
            self._in_hand = len(items)
        try:
            failed, why = self._carrier.carry(items), "the receiver refused some"
        except Exception as error:  # noqa: BLE001 - whatever failed, later ones are to be delivered
            failed, why = len(items), _words(error)
        with self._settling:
            self._in_hand = 0
            if not self._given_up:
                self._count("failed", failed)
                self._count("written", len(items) - failed)
        if failed and not self._failing:
            _log.error("%s cannot be written: %s", self._what, why)
        self._failing = failed > 0


class Undelivered(OSError):
    """A receiver did not take it. Its text is Guard's own: safe to log. away: it would take nothing else either."""

    def __init__(self, text: str, *, away: bool = True) -> None:
        super().__init__(text)
        self.away = away


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, Undelivered) else type(error).__name__
