"""A relay in front of a store, which can be told to be late, or to say nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Relay:
    """late_s: how much later answers come. silent: connections are taken, and nothing is said."""

    port: int = 0
    late_s: float = 0.0
    silent: bool = False
    tasks: set[Any] = field(default_factory=set)


@contextlib.asynccontextmanager
async def relayed(port: int) -> AsyncIterator[Relay]:
    """A relay to this port of the loopback."""
    relay = Relay()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await reader.read(65536):
            while relay.silent:
                await asyncio.sleep(0.01)
            if answers and relay.late_s:
                await asyncio.sleep(relay.late_s)
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay.tasks.add(asyncio.current_task())
        with contextlib.suppress(asyncio.CancelledError):
            await carry(reader, writer)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while relay.silent:
            await asyncio.sleep(0.01)
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        there, here = copy(reader, outer, answers=False), copy(inner, writer, answers=True)
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
