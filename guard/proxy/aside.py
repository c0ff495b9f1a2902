"""A place for work that may hang: one thread at a time, of its own, which nobody waits for longer than `within_s`.

asyncio's own threads are few, and shared: a place that hangs would take one with each look, and in the end those that
other work waits for. A thread that hangs here keeps later work out, which is told so, until it comes back.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from guard.proxy.crew import settle

T = TypeVar("T")


class Busy(Exception):
    """The work did not end in time, or that before it has not."""


class Aside:
    """Used by one event loop. name: of the threads; they end with the process, whatever they do."""

    def __init__(self, name: str, within_s: float) -> None:
        self._name, self._within_s = name, within_s
        self._free = asyncio.Semaphore(1)
        self._began = 0.0

    async def run(self, work: Callable[[], T]) -> T:
        """What the work returns or raises. Raises Busy."""
        loop = asyncio.get_running_loop()
        if self._free.locked() and loop.time() - self._began >= self._within_s:  # it hangs
            raise Busy
        try:
            async with asyncio.timeout(self._within_s) as within:
                await self._free.acquire()
                self._began = loop.time()
                return await self._begun(loop, work)
        except TimeoutError:
            if within.expired():
                raise Busy from None
            raise

    def _begun(self, loop: asyncio.AbstractEventLoop, work: Callable[[], T]) -> asyncio.Future[T]:
        result: asyncio.Future[T] = loop.create_future()

        def end(value: T | None, error: BaseException | None) -> None:
            self._free.release()
            settle(result, value, error)

        def run() -> None:
            value, failed = None, None
            try:
                value = work()
            except BaseException as error:  # noqa: BLE001 - who waits gets it
                failed = error
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(end, value, failed)

        try:
            threading.Thread(target=run, name=self._name, daemon=True).start()
        except RuntimeError:  # there is no room for another
            self._free.release()
            raise Busy from None
        return result
