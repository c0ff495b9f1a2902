"""One event to many readers, each with a bounded queue: a slow reader loses the oldest and is told how many."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from guard.metrics import Metrics

T = TypeVar("T")


class TooManyReaders(RuntimeError):
    """Every place at the broadcast is taken."""


class Subscription(Generic[T]):
    """One reader's events, oldest first, each with how many it has lost so far. Ends when closed."""

    def __init__(
        self, max_queued: int, on_lost: Callable[[], None], on_close: Callable[["Subscription[T]"], None]
    ) -> None:
        self._events: deque[T] = deque()
        self._max = max_queued
        self._ready = asyncio.Event()
        self._on_lost, self._on_close = on_lost, on_close
        self._closed = False
        self.lost = 0

    def offer(self, event: T) -> None:
        """Add an event; a full queue loses its oldest."""
        if len(self._events) >= self._max:
            self._events.popleft()
            self.lost += 1
            self._on_lost()
        self._events.append(event)
        self._ready.set()

    def close(self) -> None:
        """End the iteration, after what is queued."""
        self._closed = True
        self._ready.set()
        self._on_close(self)

    def __aiter__(self) -> "Subscription[T]":
        return self

    async def __anext__(self) -> tuple[T, int]:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        return self._events.popleft(), self.lost


class Broadcast(Generic[T]):
    """Events to whoever watches. All calls come from the event loop's thread."""

    def __init__(self, metrics: Metrics, max_readers: int = 64) -> None:
        self._lost = metrics.watch_lost
        self._max_readers = max_readers
        self._readers: list[Subscription[T]] = []

    @property
    def watched(self) -> bool:
        """Whether anybody reads."""
        return bool(self._readers)

    def publish(self, event: T) -> None:
        """Hand the event to every reader. Never blocks."""
        for reader in self._readers:
            reader.offer(event)

    def subscribe(self, max_queued: int = 1000) -> Subscription[T]:
        """The events from now on. Raises TooManyReaders."""
        if len(self._readers) >= self._max_readers:
            raise TooManyReaders
        reader: Subscription[T] = Subscription(max_queued, self._lost.inc, self._leave)
        self._readers.append(reader)
        return reader

    def close(self) -> None:
        """End every subscription."""
        for reader in tuple(self._readers):
            reader.close()

    def _leave(self, reader: Subscription[T]) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
