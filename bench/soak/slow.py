"""`python -m bench.soak.slow SECONDS`: the tests' model server, whose every answer takes so long, until stdin ends.

In a process of its own, so that whoever measures does not serve at the same time. Its address is the first line.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tests.proxy import world


async def serve(takes_s: float) -> None:
    """Until stdin ends."""

    async def infer(body: bytes, context: Any) -> bytes:
        await asyncio.sleep(takes_s)
        server.seen.clear()
        return bytes(await server.plain(body, context))

    async with world.serving() as server:
        server.infer = infer
        print(server.address, flush=True)
        await asyncio.to_thread(sys.stdin.read)


@contextlib.contextmanager
def started(takes_s: float) -> Iterator[str]:
    """The address of one in a process of its own."""
    command = [sys.executable, "-m", "bench.soak.slow", str(takes_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdin is None:
            raise AssertionError
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
