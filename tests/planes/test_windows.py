"""Flow control over a connection's life: what was sent for calls that ended early is given back to those beside them.

A connection's window is shared. Bytes that arrived for a call that is over (reset, refused, too large, late) count
against it until they are given back; if some are forgotten, the connection comes to a halt after so many such calls.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.planes import frames, odd
from tests.planes.at import PASSED, TALK, ask, until
from tests.planes.frames import Wire, headers, wire
from tests.proxy.world import INFER, STREAM, request

Behind = Callable[..., Any]
PART = 60_000
TIMES = 400
"""24 MB in all: more than any window of the listener's."""


async def is_well(caller: Wire, number: int) -> None:
    """A call with 300 KB, both ways."""
    caller.send(headers(number, frames.head(PASSED.encode())))
    await caller.send_data(number, frames.message(bytes(300_000)))
    stream = await caller.ended(number)
    assert stream.grpc == 0
    assert len(stream.body) == 300_012


async def part(caller: Wire, number: int, path: str, payload: bytes, *extra: tuple[bytes, bytes]) -> None:
    """A head, and so much of a body as it lets through."""
    caller.send(headers(number, frames.head(path.encode(), *extra)))
    await caller.send_data(number, payload, end=False)


async def test_bodies_of_calls_that_are_reset(behind: Behind) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        for number in range(1, 2 * TIMES, 2):
            await part(caller, number, INFER, frames.message(bytes(PART * 2))[:PART])
            caller.send(frames.rst(number))
            if number % 10 == 1:  # no rapid reset: in the time of a call or two
                await asyncio.sleep(0.005)
        await is_well(caller, 2 * TIMES + 1)


@pytest.mark.parametrize("path", ["/a/B", "/inference.GRPCInferenceService/RepositoryIndex"])
async def test_bodies_of_calls_that_are_denied(behind: Behind, path: str) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        for number in range(1, 2 * TIMES, 2):
            await part(caller, number, path, frames.message(bytes(PART)))
            await caller.ended(number)
        await is_well(caller, 2 * TIMES + 1)


async def test_bodies_that_are_too_large(behind: Behind) -> None:
    limits = {"max_request_bytes": 400_000, "drain_s": 0}
    async with behind(limits=limits) as (_, guarded), wire(guarded.app.address) as caller:
        numbers = range(1, 2 * TIMES, 2)
        for number in numbers:
            await part(caller, number, INFER, frames.message(bytes(400_001))[:PART])
        for number in numbers:
            await caller.ended(number)
        await is_well(caller, 2 * TIMES + 1)


async def test_bodies_that_are_late(behind: Behind) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        numbers = range(1, 2 * TIMES, 2)
        for number in numbers:
            await part(caller, number, INFER, frames.message(bytes(PART * 2))[:PART], (b"grpc-timeout", b"100m"))
        for number in numbers:
            await caller.ended(number)
        await is_well(caller, 2 * TIMES + 1)


@pytest.mark.parametrize("path", [TALK, STREAM])
async def test_messages_of_streams_that_are_reset(behind: Behind, path: str) -> None:
    """What nobody has read of them."""
    async with behind(methods={"allow": [TALK]}) as (server, guarded), wire(guarded.app.address) as caller:
        server.stream = server.lingering
        for number in range(1, 2 * TIMES, 2):
            await part(caller, number, path, frames.message(bytes(PART * 2))[:PART])
            caller.send(frames.rst(number))
            if number % 10 == 1:
                await asyncio.sleep(0.005)
        await is_well(caller, 2 * TIMES + 1)


# --- the window of Guard's towards the server


async def test_answers_of_streams_that_are_cancelled(behind: Behind) -> None:
    """Two hundred that could say much more than was heard; the server's connection stays one."""

    async def stream(bodies: Any, context: Any) -> Any:
        async for _ in bodies:
            for _ in range(100):
                yield bytes(100_000)

    async with behind(methods={"allow": [TALK]}) as (server, guarded):
        server.stream = stream

        async def one() -> None:
            method: Any = guarded.channel.stream_stream(TALK)
            call = method(timeout=20)
            await call.write(b"x")
            await call.read()
            await asyncio.sleep(0.02)
            call.cancel()

        for _ in range(10):
            await asyncio.gather(*(one() for _ in range(20)))
        await until(lambda: guarded.app.runtime.calls == 0)
        assert len((await ask(guarded.channel, bytes(300_000), PASSED)).body) == 300_007


@pytest.mark.parametrize("ends", ["late", "reset", "malformed"])
@pytest.mark.parametrize("path", [INFER, TALK])
async def test_halves_of_answers(guarding: Any, path: str, ends: str) -> None:
    """A server sends 900 KB of a megabyte, a hundred times and more; then a whole answer, on the same connection."""
    good = frames.message(bytes(2_000_000))
    halves = frames.message(bytes(1_000_000), 9 if ends == "malformed" else 0)[:900_000]
    tasks: list[asyncio.Task[None]] = []
    over = False

    async def send(wire: Wire, number: int) -> None:
        wire.send(headers(number, odd.GOOD))
        whole = over
        with contextlib.suppress(TimeoutError):
            await wire.send_data(number, good if whole else halves, end=False)
        if whole:
            wire.send(odd.trailers(number, b"0"))
        elif ends == "reset":
            wire.send(frames.rst(number, frames.INTERNAL_ERROR))

    answer = lambda wire, number: tasks.append(asyncio.create_task(send(wire, number)))
    async with odd.odd(answer) as server, guarding(server.address, methods={"allow": [TALK]}) as guarded:

        async def one() -> None:
            method: Any = guarded.channel.stream_stream(path)
            call = method(timeout=0.25)
            with contextlib.suppress(Exception):
                await call.write(request())
                await call.done_writing()
                await call.read()

        while server.asked < 120:
            await asyncio.gather(*(one() for _ in range(30)))
        await until(lambda: guarded.app.runtime.calls == 0)
        over = True
        assert len((await ask(guarded.channel, request())).body) == 2_000_000
        assert len([one for one in server.wires if not one.closed.is_set()]) == 1
        for task in tasks:
            task.cancel()
