"""Bidirectional streams: many messages, half-closes in either order, and no side that outruns the other."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import aio

from guard.wire import messages
from tests.planes import frames
from tests.planes.at import TALK, talk, told, until
from tests.planes.frames import wire
from tests.planes.served import MIB, Far
from tests.proxy.world import CLEAN, STREAM, request

Behind = Callable[..., Any]
PATHS = [TALK, STREAM]
ALLOWED = {"allow": [TALK]}


async def echo(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for body in bodies:
        yield body


@pytest.mark.parametrize("path", PATHS)
async def test_many_messages_in_order(behind: Behind, path: str) -> None:
    async with behind(methods=ALLOWED) as (server, guarded):
        server.stream = echo
        method: Any = guarded.channel.stream_stream(path)
        sent = [request(request_id=str(i)) for i in range(1000 if path == TALK else 300)]

        async def say() -> AsyncIterator[bytes]:
            for body in sent:
                yield body

        reply = await told(method(say(), timeout=20))
        assert reply.code is grpc.StatusCode.OK
        assert reply.bodies == sent == server.calls(path)[0].bodies


async def test_a_server_that_ends_a_stream_while_it_is_written_to_keeps_its_word(behind: Behind) -> None:
    """Its answer and its status: a write that fails on its way to it must not put another in their place."""

    async def once(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for body in bodies:
            yield body[:2]
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no more of it", (("x-why", "y"),))

    def caller(address: str) -> tuple[str, str, list[bytes], Any]:
        """Not grpc.aio's: its own streams have that fault."""
        with grpc.insecure_channel(address) as channel:
            method: Any = channel.stream_stream(TALK)
            call, heard = method((b"x" * 20_000 for _ in range(200)), timeout=10), []
            with contextlib.suppress(grpc.RpcError):
                heard.extend(call)
            return call.code().name, call.details(), heard, dict(call.trailing_metadata())["x-why"]

    async with behind(methods=ALLOWED) as (server, guarded):
        server.stream = once
        ends = [await asyncio.to_thread(caller, guarded.app.address) for _ in range(40)]
        assert ends == [("FAILED_PRECONDITION", "no more of it", [b"xx"], "y")] * 40


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [0, 16_379, 65_536, 700_000])
async def test_messages_of_every_size(behind: Behind, path: str, size: int) -> None:
    bodies = [os.urandom(size)] * 3
    if path == STREAM:
        bodies = [request(np.tile(CLEAN, (max(1, size // 16), 1)))] * 3
    async with behind(methods=ALLOWED, limits={"max_rows": 100_000, "drain_s": 0}) as (server, guarded):
        server.stream = echo
        reply = await talk(guarded.channel, *bodies, path=path)
        assert reply.bodies == bodies


async def test_real_answers_come_wrapped_as_triton_wraps_them(behind: Behind) -> None:
    async with behind() as (server, guarded):
        reply = await talk(guarded.channel, request(), request())
        assert reply.bodies == [messages.wrap_stream(await server.plain(request(), None), "triton")] * 2


@pytest.mark.parametrize("path", PATHS)
async def test_question_and_answer_in_turns(behind: Behind, path: str) -> None:
    """Each message is forwarded when it comes, not when the next one does."""
    async with behind(methods=ALLOWED) as (server, guarded):
        server.stream = echo
        method: Any = guarded.channel.stream_stream(path)
        call = method(timeout=10)
        for i in range(20):
            await call.write(request(request_id=str(i)))
            assert await call.read() == request(request_id=str(i))
        await call.done_writing()
        assert await call.read() is aio.EOF
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("path", PATHS)
async def test_the_caller_ends_first(behind: Behind, path: str) -> None:
    """The server hears of it, and then says what it has to say."""

    async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        heard = [body async for body in bodies]
        await asyncio.sleep(0.1)
        for body in heard * 3:
            yield body

    async with behind(methods=ALLOWED) as (server, guarded):
        server.stream = stream
        reply = await talk(guarded.channel, *[request()] * 4, path=path)
        assert reply.bodies == [request()] * 12


@pytest.mark.parametrize("path", PATHS)
async def test_the_server_ends_first(behind: Behind, path: str) -> None:
    async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield await anext(aiter(bodies))
        context.set_trailing_metadata((("x-t", "1"),))

    async with behind(methods=ALLOWED) as (server, guarded):
        server.stream = stream
        method: Any = guarded.channel.stream_stream(path)
        call = method(timeout=10)
        await call.write(request())
        reply = await told(call)  # its half was never closed
        assert (reply.code, reply.bodies) == (grpc.StatusCode.OK, [request()])
        assert ("x-t", "1") in reply.trailing
        await until(lambda: guarded.app.runtime.calls == 0)


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_without_messages(behind: Behind, path: str) -> None:
    async with behind(methods=ALLOWED) as (server, guarded):
        server.stream = echo
        reply = await talk(guarded.channel, path=path)
        assert (reply.code, reply.bodies) == (grpc.StatusCode.OK, [])


async def test_a_server_that_speaks_before_it_was_spoken_to(behind: Behind) -> None:
    async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield b"welcome"
        async for body in bodies:
            yield body

    async with behind(methods=ALLOWED) as (server, guarded):
        server.stream = stream
        method: Any = guarded.channel.stream_stream(TALK)
        call = method(timeout=10)
        assert await call.read() == b"welcome"
        await call.write(b"thanks")
        assert await call.read() == b"thanks"
        call.cancel()


async def test_initial_metadata_comes_before_the_first_message(behind: Behind) -> None:
    go = asyncio.Event()

    async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata((("x-i", "1"),))
        await go.wait()
        yield b"late"

    async with behind(methods=ALLOWED) as (server, guarded):
        server.stream = stream
        method: Any = guarded.channel.stream_stream(TALK)
        call = method(timeout=10)
        assert ("x-i", "1") in tuple(await call.initial_metadata())
        go.set()
        assert await call.read() == b"late"
        call.cancel()


@pytest.mark.parametrize("path", PATHS)
async def test_a_message_past_the_limit_ends_the_stream(behind: Behind, path: str) -> None:
    limits = {"max_request_bytes": 100_000, "drain_s": 0}
    async with behind(methods=ALLOWED, limits=limits) as (server, guarded):
        server.stream = echo
        reply = await talk(guarded.channel, request(), b"\xfa\x3e\xc0\x9a\x0c" + bytes(200_000), path=path)
        assert reply.code is not grpc.StatusCode.OK
        assert all(len(body) < 1000 for call in server.calls(path) for body in call.bodies)
        await until(lambda: guarded.app.runtime.calls == 0)
        assert (await talk(guarded.channel, request(), path=path)).bodies == [request()]


@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_past_the_limit_ends_the_stream(behind: Behind, path: str) -> None:
    async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for body in bodies:
            yield body
            yield bytes(100_001)
        await asyncio.sleep(60)

    limits = {"max_response_bytes": 100_000, "drain_s": 0}
    async with behind(methods=ALLOWED, limits=limits) as (server, guarded):
        server.stream = stream
        reply = await talk(guarded.channel, request(), path=path)
        assert reply.bodies == [request()]
        assert reply.end == ("RESOURCE_EXHAUSTED", "the upstream's answer is too large")
        await until(lambda: server.calls(path)[0].cancelled)


async def test_fifty_streams_at_once(behind: Behind) -> None:
    async with behind(methods=ALLOWED) as (server, guarded):
        server.stream = echo
        sent = [[b"%d %d" % (i, j) for j in range(20)] for i in range(50)]
        replies = await asyncio.gather(*(talk(guarded.channel, *one, path=TALK) for one in sent))
        assert [reply.bodies for reply in replies] == sent


async def test_messages_compressed_one_by_one(behind: Behind) -> None:
    async with behind(methods=ALLOWED) as (server, guarded):
        server.stream = echo
        reply = await talk(guarded.channel, b"a" * 5000, b"", b"b", path=TALK, compression=grpc.Compression.Gzip)
        assert server.calls(TALK)[0].bodies == reply.bodies == [b"a" * 5000, b"", b"b"]


# --- a side that is slow


@pytest.mark.parametrize("path", PATHS)
async def test_a_caller_that_does_not_read_is_not_written_to(behind: Behind, path: str) -> None:
    """Frames by hand: a caller that never gives window back. The server's answers are not asked for."""
    produced, over = 0, asyncio.Event()

    async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        nonlocal produced
        context.add_done_callback(lambda _: over.set())
        async for _ in bodies:
            for _ in range(2000):
                produced += 1
                yield bytes(100_000)

    async with behind(methods=ALLOWED) as (server, guarded):
        server.stream = stream
        async with wire(guarded.app.address, generous=False) as caller:
            message = frames.data(1, frames.message(request()))
            caller.send(frames.headers(1, frames.head(path.encode())), message)
            await caller.until(lambda: len(caller.stream(1).body) == 65_535)
            before = -1
            while before != produced:
                before = produced
                await asyncio.sleep(0.3)
            assert produced < 250  # 25 MB in all the queues and windows between
            caller.send(frames.window(0, 1_000_000), frames.window(1, 1_000_000))
            await caller.until(lambda: len(caller.stream(1).body) == 1_065_535)
        await asyncio.wait_for(over.wait(), 5)
        assert produced < 300


@pytest.mark.parametrize("path", PATHS)
async def test_a_server_that_does_not_read_is_not_written_to(behind: Behind, path: str) -> None:
    go = asyncio.Event()

    async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await go.wait()
        async for body in bodies:
            yield b"%d" % len(body)

    body = request(np.tile(CLEAN, (4000, 1)))
    async with behind(methods=ALLOWED) as (server, guarded):
        server.stream = stream
        method: Any = guarded.channel.stream_stream(path)
        call, sent = method(timeout=20), 0

        async def say() -> None:
            nonlocal sent
            for _ in range(1000):
                await call.write(body)
                sent += 1
            await call.done_writing()

        saying = asyncio.create_task(say())
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert sent * len(body) < 30 * MIB
        go.set()
        for _ in range(20):
            assert await call.read() == b"%d" % len(body)
        saying.cancel()
        call.cancel()


async def test_memory_stays_where_callers_do_not_read(far: Far) -> None:
    """Twenty streams that could bring 1 GB each."""
    before = far.rss
    async with wire(far.address, generous=False) as caller:
        for number in range(1, 41, 2):
            caller.send(frames.headers(number, frames.head(TALK.encode())))
            caller.send(frames.data(number, frames.message(b"flood")))
        await asyncio.sleep(2)
        assert far.rss - before < 500 * MIB
        assert await asyncio.to_thread(far.honest)
    assert far.alive
