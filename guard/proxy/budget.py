"""The time that inspecting one query may take, and the threads that it takes it in."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from guard import timing
from guard.proxy.crew import Crew

T = TypeVar("T")
P = ParamSpec("P")


class Budget:
    """Counts what stages and the store take, waiting for a thread included; upstream calls are not counted.

    listener: hears of each stage, where somebody wants to.
    """

    def __init__(self, limit_s: float, pool: Crew, listener: timing.Listener | None = None) -> None:
        self._limit_s, self._pool, self._listener = limit_s, pool, listener
        self.spent_s = 0.0
        self.elsewhere_s = 0.0
        """What the upstream took for the caller's own call, and what the policy held the answer back."""

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Array work in a thread. Raises TimeoutError; the thread then ends its work for nobody."""
        listener = self._listener
        if listener is None:
            return await self.wait(self._pool.run(work, *args, **kwargs))
        return await self.wait(self._pool.run(lambda: timing.heard(listener, work, *args, **kwargs)))

    def here(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Work that takes less than handing it to a thread does, at once."""
        started = time.perf_counter()
        try:
            if self._listener is None:
                return work(*args, **kwargs)
            return timing.heard(self._listener, work, *args, **kwargs)
        finally:
            self.spent_s += time.perf_counter() - started

    async def wait(self, work: Awaitable[T]) -> T:
        """Anything else that counts. Raises TimeoutError."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(max(0.0, self._limit_s - self.spent_s)):
                return await work
        finally:
            self.spent_s += time.perf_counter() - started
