"""How long a caller may take: to greet, to read, to finish a head, to be idle; and how many there may be."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from guard.proxy import server as seam_server
from tests.planes import frames
from tests.planes.at import PASSED, TALK, ask, until
from tests.planes.frames import END_HEADERS, HEADERS, PREFACE, frame, settings, wire
from tests.proxy.world import INFER, STREAM, request

Behind = Callable[..., Any]
BLOCK = frames.hpack.block(frames.head(INFER.encode()))


@pytest.mark.parametrize("path", [INFER, PASSED])
async def test_an_answer_that_is_not_read_frees_its_place(
    behind: Behind, plane: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seam_server, "UNREAD_S", 0.3)
    limits = {"max_concurrent_calls": 1, "max_queued_calls": 0, "drain_s": 0}

    async def unary(path: str, body: bytes, context: Any) -> bytes:
        return bytes(300_000)

    async with behind(limits=limits) as (server, guarded):
        server.unary = unary
        async with wire(guarded.app.address, (frames.INITIAL_WINDOW, 10), generous=False) as caller:
            caller.send(frames.call(1, path.encode(), request()))
            await until(lambda: server.calls(path))
            await until(lambda: guarded.count("guard_calls_in_flight") == 0)
            reply = await ask(guarded.channel, request())
            assert reply.code is grpc.StatusCode.OK
            if plane == "fast":  # grpc.aio cannot end such a call
                assert (await caller.ended(1)).code == frames.CANCEL


@pytest.mark.parametrize("pace", [50_000, 1_000_000])
@pytest.mark.parametrize("path", [TALK, PASSED])
async def test_a_slow_reader(behind: Behind, plane: str, path: str, pace: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """120 KB within UNREAD_S, of an answer that takes longer: the fast plane asks for a pace, grpcio does not."""
    if plane == "fast":
        monkeypatch.setattr("guard.proxy.fast.exchange.PACE_BYTES", pace)
    elif path == PASSED:
        pytest.skip("grpc.aio neither answers nor ends such a call")
    monkeypatch.setattr(seam_server, "UNREAD_S", 0.6)

    async def stream(bodies: Any, context: Any) -> Any:
        async for _ in bodies:
            yield bytes(300_000)

    async def unary(path: str, body: bytes, context: Any) -> bytes:
        return bytes(300_000)

    async with behind(methods={"allow": [TALK]}) as (server, guarded):
        server.stream, server.unary = stream, unary
        async with wire(guarded.app.address, generous=False) as caller:
            answer = caller.stream(1)
            caller.send(frames.call(1, path.encode(), request()))
            while not answer.done.is_set():
                caller.send(frames.window(0, 20_000), frames.window(1, 20_000))
                await asyncio.sleep(0.1)
            is_whole = plane == "grpcio" or pace < 120_000
            assert (answer.grpc, answer.code) == ((0, None) if is_whole else (None, frames.CANCEL))
            assert (len(answer.body) == 300_005) == is_whole


@pytest.mark.parametrize("path", [TALK, STREAM])
async def test_a_stream_that_is_not_read_ends(
    behind: Behind, plane: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its caller takes nothing for long; what its server sends is taken for no sign of life."""
    monkeypatch.setattr(seam_server, "UNREAD_S", 0.3)

    async def stream(bodies: Any, context: Any) -> Any:
        async for _ in bodies:
            for _ in range(1000):
                yield bytes(100_000)

    async with behind(methods={"allow": [TALK]}, timeout_s=1.0) as (server, guarded):
        server.stream = stream
        async with wire(guarded.app.address, generous=False) as caller:
            caller.send(frames.headers(1, frames.head(path.encode())), frames.data(1, frames.message(request())))
            await until(lambda: server.calls(path))
            await until(lambda: guarded.app.runtime.calls == 0 and guarded.count("guard_calls_in_flight") == 0)
            if plane == "fast":
                assert (await caller.ended(1)).code == frames.CANCEL


async def test_a_socket_that_takes_nothing_loses_its_calls(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Window without end, and TCP's buffers are full."""
    monkeypatch.setattr(seam_server, "UNREAD_S", 0.3)

    async def unary(path: str, body: bytes, context: Any) -> bytes:
        return bytes(4_000_000)

    async with behind() as (server, guarded):
        server.unary = unary
        host, _, port = guarded.app.address.rpartition(":")
        sock = socket.create_connection((host, int(port)))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        window = settings((frames.INITIAL_WINDOW, 2**31 - 1)) + frames.window(0, 2**31 - 1 - 65_535)
        sock.sendall(PREFACE + window + b"".join(frames.call(n, PASSED.encode(), b"") for n in range(1, 11, 2)))
        await until(lambda: len(server.calls(PASSED)) == 5)
        await until(lambda: guarded.count("guard_calls_in_flight") == 0)
        server.unary = type(server).unary.__get__(server)
        assert (await ask(guarded.channel, request())).body
        sock.close()


# --- the fast plane's own


@pytest.fixture
def hasty(plane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast plane's patience, a hundred times shorter."""
    if plane != "fast":
        pytest.skip("grpcio's core has its own")
    from guard.proxy.fast import callers, listener

    monkeypatch.setattr(listener, "SWEEP_S", 0.05)
    monkeypatch.setattr(listener, "HANDSHAKE_S", 0.2)
    monkeypatch.setattr(callers, "GREETING_S", 0.2)
    monkeypatch.setattr(callers, "IDLE_S", 0.4)
    monkeypatch.setattr(callers, "SILENT_S", 0.3)
    monkeypatch.setattr(seam_server, "UNREAD_S", 0.3)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("first", [b"", PREFACE[:5], PREFACE, PREFACE + settings()[:5]])
async def test_a_caller_that_does_not_greet_is_sent_away(behind: Behind, first: bytes) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address, first=(first,)) as caller:
        await asyncio.wait_for(caller.closed.wait(), 3)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "half", [frame(HEADERS, 0, 1, BLOCK[:20]), frame(HEADERS, END_HEADERS, 1, BLOCK)[:30]], ids=["block", "frame"]
)
async def test_a_head_that_is_never_finished_ends_the_connection(behind: Behind, half: bytes) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        caller.send(half)
        await asyncio.wait_for(caller.closed.wait(), 3)


@pytest.mark.usefixtures("hasty")
async def test_a_head_that_trickles_ends_the_connection(behind: Behind) -> None:
    """A byte now and then is no sign of life."""
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        await until(lambda: caller.frames)
        caller.polite = False
        caller.send(frame(HEADERS, 0, 1, BLOCK[:20]))
        whole = frame(frames.CONTINUATION, END_HEADERS, 1, BLOCK[20:])
        for byte in whole:
            if caller.closed.is_set():
                break
            caller.send(bytes([byte]))
            await asyncio.sleep(0.05)
        assert caller.closed.is_set()


@pytest.mark.usefixtures("hasty")
async def test_an_idle_connection_is_told_and_ended(behind: Behind) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        caller.send(frames.call(1, INFER.encode(), request()))
        assert (await caller.ended(1)).grpc == 0
        await asyncio.wait_for(caller.closed.wait(), 3)
        assert caller.gone == frames.NO_ERROR


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("polite", [True, False])
async def test_a_silent_caller_is_asked_whether_it_is_there(behind: Behind, polite: bool) -> None:
    """With a call in flight: who answers the PING stays, who does not is gone."""

    async def infer(body: bytes, context: Any) -> bytes:
        await asyncio.sleep(1.5)
        return b"done"

    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        server.infer = infer
        caller.send(frames.call(1, INFER.encode(), request()))
        await until(server.calls)
        caller.polite = polite
        stream = await caller.ended(1, timeout_s=5)
        assert (frames.PING, 0, 0, 8) in caller.frames
        assert (stream.grpc == 0) == polite


@pytest.mark.usefixtures("hasty")
async def test_there_are_so_many_connections_and_no_more(behind: Behind) -> None:
    limits = {"max_connections": 10, "drain_s": 0}
    async with behind(limits=limits) as (_, guarded), contextlib.AsyncExitStack() as stack:
        assert (await ask(guarded.channel, request())).body  # one of the ten
        others = [await stack.enter_async_context(wire(guarded.app.address)) for _ in range(9)]
        await until(lambda: all(other.frames for other in others))
        async with wire(guarded.app.address) as late:  # takes the place of one that never had a call
            late.send(frames.call(1, INFER.encode(), request()))
            assert (await late.ended(1)).grpc == 0
            await until(lambda: sum(other.closed.is_set() for other in others) == 1)
        assert (await ask(guarded.channel, request())).body
