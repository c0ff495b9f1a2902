"""A relay in front of a server, which can be told to be late, to say nothing, or to cut an answer off."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Relay:
    """late_s: how much later answers come. silent: connections are taken, and nothing is said.

    cut_after: so many bytes of answers pass on a connection, then it is cut.
    """

    port: int = 0
    late_s: float = 0.0
    silent: bool = False
    cut_after: int | None = None
    tasks: set[Any] = field(default_factory=set)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        """One way of a connection."""
        passed = 0
        while data := await reader.read(65536):
            while self.silent:
                await asyncio.sleep(0.01)
            if answers and self.late_s:
                await asyncio.sleep(self.late_s)
            if answers and self.cut_after is not None and passed + len(data) > self.cut_after:
                writer.write(data[: self.cut_after - passed])
                await writer.drain()
                return
            passed += len(data)
            writer.write(data)


@contextlib.asynccontextmanager
async def relayed(port: int) -> AsyncIterator[Relay]:
    """A relay to this port of the loopback."""
    relay = Relay()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay.tasks.add(asyncio.current_task())
        with contextlib.suppress(asyncio.CancelledError):
            await carry(reader, writer)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while relay.silent:
            await asyncio.sleep(0.01)
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        there, here = relay.copy(reader, outer, answers=False), relay.copy(inner, writer, answers=True)
        ways = [asyncio.ensure_future(way) for way in (there, here)]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            outer.close()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        for task in relay.tasks:
            task.cancel()
        await asyncio.gather(*relay.tasks, return_exceptions=True)
