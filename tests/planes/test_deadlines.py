"""Deadlines and cancellation: towards the server, back to the caller, and Guard's own."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc import aio

from guard.proxy import models
from tests.planes import frames, odd
from tests.planes.at import PASSED, TALK, ask, talk, told, until
from tests.planes.frames import wire
from tests.proxy.world import INFER, STREAM, request

Behind = Callable[..., Any]
LATE = "DEADLINE_EXCEEDED"


async def hang(body: bytes, context: Any) -> bytes:
    await asyncio.sleep(60)
    return b""


async def silent(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for body in bodies:
        yield body
    await asyncio.sleep(60)


@pytest.mark.parametrize("timeout_s", [0.9, 8.0, 25.0])
@pytest.mark.parametrize("path", [INFER, PASSED])
async def test_a_callers_deadline_travels_shortened(behind: Behind, path: str, timeout_s: float) -> None:
    async with behind() as (server, guarded):
        started = time.monotonic()
        assert (await ask(guarded.channel, request(), path, timeout=timeout_s)).body
        spent = time.monotonic() - started
        seen = server.calls(path)[-1].timeout_s
        assert timeout_s - spent - 0.1 <= seen <= 1.03 * timeout_s + 0.1  # gRPC rounds it up


async def test_without_a_deadline_guards_own_holds(behind: Behind) -> None:
    async with behind(timeout_s=7.0) as (server, guarded):
        await ask(guarded.channel, request(), timeout=None)
        await ask(guarded.channel, request(), timeout=3600)
        assert [call.timeout_s for call in server.calls()] == [pytest.approx(7.0, abs=0.5)] * 2


@pytest.mark.parametrize("unit", [b"H", b"M", b"S", b"m", b"u", b"n"])
async def test_every_unit_of_a_deadline(behind: Behind, unit: bytes) -> None:
    numbers = {b"H": b"1", b"M": b"20", b"S": b"19", b"m": b"19000", b"u": b"19000000", b"n": b"99999999"}
    seconds = {b"H": 30.0, b"M": 30.0, b"n": 0.1}.get(unit, 19.0)
    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        caller.send(frames.call(1, INFER.encode(), request(), (b"grpc-timeout", numbers[unit] + unit)))
        assert (await caller.ended(1)).grpc == 0
        assert seconds - 1.5 < server.calls()[0].timeout_s <= seconds + 0.5


@pytest.mark.parametrize("bad", [b"", b"S", b"10", b"-1S", b"1 S", b"1s", b"123456789012S", b"0x1S", b"\xb9S"])
async def test_a_deadline_that_is_none(behind: Behind, bad: bytes) -> None:
    """It is refused, or it is as if there were none; the connection lives on."""
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        caller.send(frames.call(1, INFER.encode(), request(), (b"grpc-timeout", bad)))
        stream = await caller.ended(1)
        assert stream.done.is_set()
        caller.send(frames.call(3, INFER.encode(), request()))
        assert (await caller.ended(3)).grpc == 0


async def test_no_time_at_all(behind: Behind) -> None:
    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        caller.send(frames.call(1, INFER.encode(), request(), (b"grpc-timeout", b"0n")))
        stream = await caller.ended(1)
        assert stream.grpc in {4, None}
        assert all(call.timeout_s <= 0.03 for call in server.calls())


@pytest.mark.parametrize("path", [INFER, PASSED])
async def test_a_call_past_its_deadline_is_cancelled_behind(behind: Behind, path: str) -> None:
    async def unary(path: str, body: bytes, context: Any) -> bytes:
        return await hang(body, context) if path in {INFER, PASSED} else b""

    async with behind() as (server, guarded):
        server.unary = unary
        started = time.monotonic()
        assert (await ask(guarded.channel, request(), path, timeout=1.0)).code.name == LATE
        assert time.monotonic() - started < 5
        await until(lambda: server.calls(path)[0].cancelled)
        await until(lambda: guarded.count("guard_calls_in_flight") == 0)


@pytest.mark.parametrize(("hung_s", "code"), [(0.5, "DEADLINE_EXCEEDED"), (60.0, "CANCELLED")])
async def test_a_server_that_hangs_is_counted_as_late_whoever_gave_up(
    behind: Behind, monkeypatch: pytest.MonkeyPatch, hung_s: float, code: str
) -> None:
    monkeypatch.setattr(models, "HUNG_S", hung_s)
    async with behind() as (server, guarded):
        server.infer = hang
        call = guarded.channel.unary_unary(INFER)(request(), timeout=20)
        await until(lambda: server.calls())
        await asyncio.sleep(0.7)
        call.cancel()
        labels = {"model": "m", "purpose": "original", "grpc_code": code}
        await until(lambda: guarded.count("guard_upstream_calls_total", **labels) == 1)


async def test_a_server_past_guards_own_timeout(behind: Behind) -> None:
    async with behind(timeout_s=0.4) as (server, guarded):
        server.infer = hang
        reply = await ask(guarded.channel, request(), timeout=None)
        assert reply.end == (LATE, "the upstream did not answer in time")
        await until(lambda: server.calls()[0].cancelled)


async def test_guard_tells_of_a_deadline_that_a_careless_caller_forgets(behind: Behind) -> None:
    """Frames by hand: this caller says 200 ms and then waits for as long as it takes."""
    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        server.infer = hang
        caller.send(frames.call(1, INFER.encode(), request(), (b"grpc-timeout", b"200m")))
        stream = await caller.ended(1, timeout_s=3)
        assert stream.grpc == 4 or stream.code is not None
        await until(lambda: server.calls()[0].cancelled)


async def test_a_message_that_never_comes(behind: Behind) -> None:
    limits = {"max_concurrent_calls": 1, "max_queued_calls": 0, "drain_s": 0}
    async with behind(limits=limits, timeout_s=0.4) as (_, guarded), wire(guarded.app.address) as caller:
        caller.send(frames.headers(1, frames.head(INFER.encode())))
        caller.send(frames.data(1, frames.message(request())[:-1]))
        stream = await caller.ended(1, timeout_s=5)
        assert stream.grpc == 4
        assert (await ask(guarded.channel, request())).body


@pytest.mark.parametrize("path", [INFER, PASSED])
async def test_a_cancelled_call_is_cancelled_behind(behind: Behind, path: str) -> None:
    async def unary(path: str, body: bytes, context: Any) -> bytes:
        return await hang(body, context) if path in {INFER, PASSED} else b""

    async with behind() as (server, guarded):
        server.unary = unary
        method: Any = guarded.channel.unary_unary(path)
        call = method(request())
        await until(lambda: server.calls(path))
        call.cancel()
        await until(lambda: server.calls(path)[0].cancelled)
        await until(lambda: guarded.app.runtime.calls == 0)
        await until(lambda: guarded.count("guard_calls_in_flight") == 0)


async def test_a_caller_that_vanishes_is_a_cancellation(behind: Behind) -> None:
    async with behind() as (server, guarded):
        server.infer = hang
        async with wire(guarded.app.address) as caller:
            caller.send(frames.call(1, INFER.encode(), request()))
            await until(server.calls)
        await until(lambda: server.calls()[0].cancelled)


async def test_a_reset_on_the_way_up_ends_the_call_and_not_its_neighbours(behind: Behind) -> None:
    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        server.infer = hang
        caller.send(frames.call(1, INFER.encode(), request()))
        await until(server.calls)
        caller.send(frames.rst(1))
        server.infer = None
        caller.send(frames.call(3, INFER.encode(), request()))
        assert (await caller.ended(3)).grpc == 0
        await until(lambda: server.calls()[0].cancelled)


async def test_the_cancellation_reaches_the_server_as_a_reset(guarding: Any) -> None:
    """Not as a connection that ends: its other calls go on."""
    async with odd.odd(lambda _, __: None) as server, guarding(server.address) as guarded:
        method: Any = guarded.channel.unary_unary(INFER)
        stays, call = method(request(), timeout=10), method(request())
        await until(lambda: server.asked == 2)
        call.cancel()
        (made,) = server.wires
        await made.until(lambda: any(s.code is not None for s in made.streams.values()))
        assert [s.code for s in made.streams.values() if s.code is not None] == [frames.CANCEL]
        assert not made.closed.is_set()
        open_ones = [
            n
            for n, s in made.streams.items()
            if s.ended and s.code is None and dict(s.blocks[0])[b":path"] == INFER.encode()
        ]
        odd.good(made, open_ones[0])
        assert (await told(stays)).body == b"ok"


# --- streams


@pytest.mark.parametrize("path", [TALK, STREAM])
async def test_a_streams_deadline(behind: Behind, path: str) -> None:
    async with behind(methods={"allow": [TALK]}) as (server, guarded):
        server.stream = silent
        reply = await talk(guarded.channel, request(), path=path, timeout=0.4)
        assert reply.code.name == LATE
        (seen,) = server.calls(path)
        assert seen.timeout_s <= 0.45  # gRPC rounds it up
        await until(lambda: seen.cancelled)
        await until(lambda: guarded.app.runtime.calls == 0)


@pytest.mark.parametrize("path", [TALK, STREAM])
async def test_a_stream_has_no_deadline_where_its_caller_has_none(behind: Behind, path: str) -> None:
    async with behind(methods={"allow": [TALK]}) as (server, guarded):
        assert (await talk(guarded.channel, request(), path=path, timeout=None)).code is grpc.StatusCode.OK
        assert server.calls(path)[0].timeout_s is None or server.calls(path)[0].timeout_s > 1e6


@pytest.mark.parametrize("path", [TALK, STREAM])
async def test_a_silent_stream_ends(behind: Behind, path: str) -> None:
    async with behind(methods={"allow": [TALK]}, timeout_s=0.4) as (server, guarded):
        server.stream = silent
        reply = await talk(guarded.channel, request(), path=path, timeout=None)
        assert reply.end == (LATE, "the upstream did not answer in time")
        await until(lambda: server.calls(path)[0].cancelled)


@pytest.mark.parametrize("path", [TALK, STREAM])
async def test_a_stream_that_its_caller_cancels(behind: Behind, path: str) -> None:
    async with behind(methods={"allow": [TALK]}) as (server, guarded):
        server.stream = silent
        method: Any = guarded.channel.stream_stream(path)
        call = method()
        await call.write(request())
        assert await call.read() is not aio.EOF
        call.cancel()
        await until(lambda: server.calls(path)[0].cancelled)
        await until(lambda: guarded.app.runtime.calls == 0)


@pytest.mark.parametrize("path", [TALK, STREAM])
async def test_a_stream_that_its_server_cancels(behind: Behind, path: str) -> None:
    """The caller is told at once, though it goes on talking."""

    async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield await anext(aiter(bodies))
        await context.abort(grpc.StatusCode.CANCELLED, "enough")

    async with behind(methods={"allow": [TALK]}) as (server, guarded):
        server.stream = stream
        method: Any = guarded.channel.stream_stream(path)
        call = method(timeout=10)
        with contextlib.suppress(aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(request())
        reply = await told(call)
        assert reply.end == ("CANCELLED", "enough")
        assert len(reply.bodies) == 1
