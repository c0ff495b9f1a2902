"""Threads that work for an event loop.

An executor's futures can be waited for by anybody, and have a lock, a condition and callbacks for it; asyncio puts one
of its own before each. Here the event loop alone waits: handing work over and back takes half to a quarter of that
(`python -m bench.handing`).
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Work = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Crew:
    """At most so many threads, started as they are needed. Used by one event loop.

    They end with the process, whatever they do: work that hangs takes its thread, and holds up nothing else but what is
    handed over when all of them hang.
    """

    def __init__(self, name: str, most: int) -> None:
        """name: of the threads."""
        self._name, self._most = name, most
        self._threads = self._handed = 0
        self._closed = False
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[T]":
        """What the work returns or raises. Where it is cancelled before a thread came to it, it is not begun."""
        if self._closed:
            raise RuntimeError("the threads have been let go")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put((loop, future, work, args, kwargs))
        self._handed += 1
        if self._threads < min(self._handed, self._most):
            threading.Thread(target=self._serve, name=f"{self._name}_{self._threads}", daemon=True).start()
            self._threads += 1
        return future

    def close(self) -> None:
        """What no thread has come to is cancelled; what has begun ends, and its thread with it."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while (item := self._queue.get_nowait()) is not None:
                item[1].cancel()
        for _ in range(self._threads):
            self._queue.put(None)

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            self._do(*item)
            del item  # nobody keeps a request until the next one comes

    def _do(
        self,
        loop: asyncio.AbstractEventLoop,
        future: "asyncio.Future[T]",
        work: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        value: T | None = None
        failed: BaseException | None = None
        if not future.cancelled():
            try:
                value = work(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - who waits gets it
                failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._done, future, value, failed)
        failed = None  # its traceback has this frame

    def _done(self, future: "asyncio.Future[T]", value: T | None, failed: BaseException | None) -> None:
        self._handed -= 1
        settle(future, value, failed)


def settle(future: "asyncio.Future[T]", value: T | None, failed: BaseException | None) -> None:
    """Tell who waits what came of the work, if anybody still does."""
    if future.done():
        return
    if failed is None:
        future.set_result(value)  # type: ignore[arg-type]
    elif isinstance(failed, StopIteration):  # no future takes it
        future.set_exception(RuntimeError(f"the work raised {failed!r}"))
    else:
        future.set_exception(failed)
