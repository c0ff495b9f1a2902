"""A stream that is answered here: the producing coroutine and the reading handler, with a bounded queue between them.

The handler reads it like an upstream's stream. When the reader is cancelled, so is the producer.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from guard.proxy import status
from guard.proxy.seam import Metadata, Reply

MAX_QUEUED = 4
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

    async def _run(self, produce: Callable[[Outlet], Awaitable[Reply]]) -> Reply:
        try:
            reply = await produce(self._outlet)
        except Exception:  # noqa: BLE001 - its text must not reach a caller
            _log.exception("a stream failed")
            reply = status.internal()
        self._outlet.begin()
        await self._outlet.queue.put(None)
        return reply

    async def initial(self) -> Metadata:
        """The initial metadata, once there."""
        try:
            return await asyncio.shield(self._outlet.begun)
        except asyncio.CancelledError:
            self._task.cancel()
            raise

    async def messages(self) -> AsyncGenerator[bytes]:
        """The answers, until the stream ends."""
        ended = False
        try:
            while (body := await self._outlet.queue.get()) is not None:
                yield body
            ended = True
        finally:
            if not ended:
                self._task.cancel()

    async def status(self) -> Reply:
        """How it ended."""
        return await self._task
