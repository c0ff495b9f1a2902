"""A server to stand behind Guard, as a process: `python -m tests.planes.upstream HOST:PORT`.

It answers like `tests.proxy.world`'s. What is relayed unread comes back as it went; a message that begins with `flood`
brings 100,000 answers of 10 KB.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

from tests.planes.at import TALK
from tests.proxy.world import Server, start_server


async def serve(address: str) -> None:
    made = await start_server(address)
    server: Server = made

    async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        if server.seen[-1].path != TALK:
            async for body in server.streamed(bodies, context):
                yield body
            return
        async for body in bodies:
            for _ in range(100_000 if body.startswith(b"flood") else 1):
                yield body.ljust(10_000, b"x") if body.startswith(b"flood") else body
            server.seen.clear()

    server.stream = stream
    asyncio.get_running_loop().create_task(_forget(server))
    await server.server.wait_for_termination()


async def _forget(server: Server) -> None:
    while True:
        await asyncio.sleep(0.5)
        del server.seen[:-100]


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
