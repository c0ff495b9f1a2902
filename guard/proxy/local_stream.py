"""A stream that is answered here: the producing coroutine and the reading handler, with a bounded queue between them.

The handler reads it like an upstream's stream, and cancels it when it stops reading, for whatever reason.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from guard.proxy import status
from guard.proxy.seam import Metadata, Reply

MAX_QUEUED = 4
_running: set[asyncio.Task[Reply]] = set()
"""An event loop holds its tasks weakly: a producer that ends after its reader would be collected half-way."""
_log = logging.getLogger(__name__)


class Outlet:
    """Where the producer puts what goes to the caller. touched: when something last moved, on the loop's clock."""

    def __init__(self) -> None:
        self.begun: asyncio.Future[Metadata] = asyncio.get_running_loop().create_future()
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_QUEUED)
        self.touched = asyncio.get_running_loop().time()

    def touch(self) -> None:
        """Something moved."""
        self.touched = asyncio.get_running_loop().time()

    def begin(self, metadata: Metadata = ()) -> None:
        """The initial metadata; the first one counts."""
        if not self.begun.done():
            self.begun.set_result(metadata)

    async def send(self, body: bytes) -> None:
        """One message; waits while the caller reads slowly."""
        self.begin()
        await self.queue.put(body)
        self.touch()


class LocalStream:
    """Implements `seam.UpstreamStream`. Made inside a running event loop."""

    def __init__(self, produce: Callable[[Outlet], Awaitable[Reply]]) -> None:
        self._outlet = Outlet()
        self._task = asyncio.create_task(self._run(produce))
        _running.add(self._task)
        self._task.add_done_callback(_running.discard)

    async def _run(self, produce: Callable[[Outlet], Awaitable[Reply]]) -> Reply:
        try:
            reply = await produce(self._outlet)
        except Exception:  # noqa: BLE001 - its text must not reach a caller
            _log.exception("a stream failed")
            reply = status.internal()
        self._outlet.begin()
        await self._outlet.queue.put(None)
        return reply

    def cancel(self) -> None:
        """End it, if it has not ended: nobody reads it any more."""
        self._task.cancel()

    async def initial(self) -> Metadata:
        """The initial metadata, once there."""
        return await asyncio.shield(self._outlet.begun)

    async def messages(self) -> AsyncGenerator[bytes]:
        """The answers, until the stream ends."""
        while (body := await self._outlet.queue.get()) is not None:
            yield body

    async def status(self) -> Reply:
        """How it ended."""
        return await self._task
