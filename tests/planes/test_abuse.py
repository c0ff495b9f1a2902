"""Callers who mean harm: after each of them an honest one is answered in time, and memory is where it was.

Sources: CVE-2019-9511 to 9518 (floods, dribbles, the zero-length leak), CVE-2023-44487 (rapid reset), CVE-2024-27316
and its kin (CONTINUATION), CVE-2025-8671 (resets that the server is made to send), and the HPACK bomb (CVE-2016-6581).
A flood has one of three ends: the connection is `ended`, TCP makes it wait (`stalled`), or it was all taken (`taken`).
"""

import asyncio
import contextlib
import gzip
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
import pytest

from tests.planes import frames, hpack
from tests.planes.at import PASSED, TALK, until
from tests.planes.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    SETTINGS,
    Wire,
    call,
    frame,
    head,
    headers,
    rst,
    settings,
    window,
    wire,
)
from tests.planes.served import MIB, Far
from tests.proxy.world import INFER, request

PATH = INFER.encode()
BLOCK = hpack.block(head(PATH))
IN_TIME_S = 20.0


async def flood(caller: Wire, parts: list[bytes], patience_s: float = 1.0) -> str:
    """Send as fast as it is taken."""
    for part in parts:
        try:
            if not await asyncio.wait_for(caller.drained(part), patience_s):
                return "ended"
        except TimeoutError:
            return "stalled"
        if caller.gone is not None:
            return "ended"
    with contextlib.suppress(TimeoutError):  # the end may still be under way
        await asyncio.wait_for(caller.closed.wait(), 0.5)
    return "ended" if caller.closed.is_set() or caller.gone is not None else "taken"


async def honest(far: Far, *, alone: bool) -> float:
    """Seconds that one call takes. alone: it is answered well; else it may be told that all places are taken."""
    started = time.monotonic()
    while True:
        try:
            assert await asyncio.to_thread(far.honest)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or time.monotonic() - started > IN_TIME_S:
                raise
            if alone:
                await asyncio.sleep(0.1)
                continue
        return time.monotonic() - started


@contextlib.asynccontextmanager
async def watched(far: Far, growth: int = 64 * MIB) -> AsyncIterator[None]:
    """Honest calls while the block runs and after it, all of them in time; memory does not grow much."""
    before, slowest, over = far.rss, 0.0, False

    async def meanwhile() -> None:
        nonlocal slowest
        while not over:
            slowest = max(slowest, await honest(far, alone=False))
            await asyncio.sleep(0.05)

    task = asyncio.create_task(meanwhile())
    try:
        yield
    finally:
        over = True
        await task
    slowest = max(slowest, await honest(far, alone=True))
    grown = far.rss - before
    assert slowest < IN_TIME_S
    assert grown < growth
    assert far.alive
    assert far.complaints() == []


@dataclass(frozen=True)
class Flood:
    """parts: what is sent; begun: what comes before; ends: those that are good, by plane where they differ.

    less: grpcio, which does not end them, gets that part of them only.
    """

    parts: Callable[[], list[bytes]]
    begun: bytes = b""
    ends: frozenset[str] = frozenset({"ended", "stalled"})
    grpcio: frozenset[str] = frozenset({"ended", "stalled", "taken"})
    less: int = 1


def repeated(raw: bytes, times: int) -> Callable[[], list[bytes]]:
    """So many of them, about 64 KiB at a time."""
    many = max(1, 65_536 // len(raw))
    return lambda: [raw * many] * (times // many + 1)


def numbered(one: Callable[[int], bytes], times: int) -> Callable[[], list[bytes]]:
    """One for each odd number."""
    numbers = range(1, 2 * times, 2)
    return lambda: [b"".join(map(one, numbers[i : i + 200])) for i in range(0, times, 200)]


def opened(number: int) -> bytes:
    return frame(HEADERS, END_HEADERS, number, BLOCK)


def bomb(number: int) -> bytes:
    """16 KiB that stand for 64 MiB."""
    block = BLOCK + hpack.stored(b"x-bomb", b"b" * 4000) + hpack.indexed(62) * 12_000
    return frame(HEADERS, END_HEADERS, number, block[:16_384])


ANY = frozenset({"ended", "stalled", "taken"})
FLOODS = {
    "rapid reset": Flood(numbered(lambda n: opened(n) + rst(n), 10_000)),
    "rapid reset of whole calls": Flood(numbered(lambda n: call(n, PATH, request()) + rst(n), 10_000)),
    "rapid reset of streams": Flood(
        numbered(lambda n: headers(n, head(TALK.encode())) + frames.data(n, frames.message(b"x")) + rst(n), 3_000),
        less=4,
    ),
    "resets that the server is made to send": Flood(numbered(lambda n: opened(n) + window(n, 0), 10_000)),
    "resets by bodies that are too long": Flood(
        numbered(lambda n: headers(n, head(PATH, (b"content-length", b"0"))) + frames.data(n, b"x" * 9), 10_000)
    ),
    "heads that are no call": Flood(numbered(lambda n: headers(n, [(b":status", b"200")], end=True), 10_000)),
    "denied calls": Flood(numbered(lambda n: call(n, b"/a/b", b""), 3_000), ends=ANY),
    "CONTINUATION": Flood(
        repeated(frame(CONTINUATION, 0, 1, hpack.literal(b"x-a", b"b" * 1000) * 16), 2_000), frame(HEADERS, 0, 1, BLOCK)
    ),
    "empty CONTINUATION": Flood(repeated(frame(CONTINUATION, 0, 1), 200_000), frame(HEADERS, 0, 1, BLOCK)),
    "small CONTINUATION": Flood(repeated(frame(CONTINUATION, 0, 1, b"\0\1a\0"), 100_000), frame(HEADERS, 0, 1, BLOCK)),
    "header bombs": Flood(numbered(bomb, 600), ends=ANY, less=3),
    "many small fields": Flood(numbered(lambda n: headers(n, head(PATH) + [(b"a", b"")] * 8000), 20), ends=ANY),
    "table sizes": Flood(repeated(settings((frames.TABLE_SIZE, 0)) + settings((frames.TABLE_SIZE, 65_536)), 100_000)),
    "SETTINGS": Flood(repeated(settings(), 200_000)),
    "large SETTINGS": Flood(repeated(settings(*[(0xF000 + i, i) for i in range(2700)]), 1_000)),
    "SETTINGS acks": Flood(repeated(frame(SETTINGS, frames.ACK), 200_000)),
    "PING": Flood(repeated(frame(PING, 0, 0, bytes(8)), 200_000)),
    "PRIORITY": Flood(numbered(lambda n: frame(PRIORITY, 0, n, b"\0\0\0\0\x10"), 100_000)),
    "empty DATA": Flood(repeated(frame(DATA, 0, 1), 200_000), opened(1)),
    "padding only": Flood(repeated(frame(DATA, frames.PADDED, 1, b"\xff" + bytes(255)), 20_000), opened(1), ANY),
    "empty messages": Flood(
        repeated(frames.data(1, frames.message(b"") * 100), 2_000), headers(1, head(TALK.encode())), ANY
    ),
    "unknown frames": Flood(repeated(frame(0xBB, 0, 0, b"?"), 200_000), ends=ANY),
    "WINDOW_UPDATE": Flood(repeated(window(0, 1), 200_000), ends=ANY),
    "WINDOW_UPDATE past the end": Flood(repeated(window(0, 2**31 - 1), 100)),
    "RST of nothing": Flood(numbered(rst, 10_000)),
    "GOAWAY": Flood(repeated(frames.goaway(0), 100_000), ends=ANY),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_floods(far: Far, plane: str, name: str) -> None:
    made = FLOODS[name]
    async with watched(far), wire(far.address) as caller:
        if made.begun:
            caller.send(made.begun)
        parts = made.parts()
        end = await flood(caller, parts if plane == "fast" else parts[: len(parts) // made.less])
    assert end in (made.grpcio if plane == "grpcio" else made.ends)
    await until(lambda: far.count("guard_calls_in_flight") == 0)


DEAF = {
    "SETTINGS": settings(),
    "PING": frame(PING, 0, 0, bytes(8)),
    "denied calls": b"",
    "answers": b"",
}


@pytest.mark.parametrize("name", DEAF)
async def test_floods_of_those_who_do_not_read(far: Far, name: str) -> None:
    """What would have to be said to them piles up nowhere."""
    async with watched(far):
        _, writer = await frames.connected(far.address)
        writer.transport.pause_reading()
        deaf = _Deaf(writer)
        raw = DEAF[name]
        if raw:
            parts = [raw * (65_536 // len(raw))] * 400
        elif name == "answers":
            parts = [call(n, PASSED.encode(), bytes(16_000)) for n in range(1, 4000, 2)]
        else:
            parts = [b"".join(call(n, b"/a/b", b"") for n in range(i, i + 200, 2)) for i in range(1, 40_000, 200)]
        await deaf.send(PREFACE + settings((frames.INITIAL_WINDOW, 2**31 - 1)) + window(0, 2**31 - 1 - 65_535))
        for part in parts:
            if await deaf.send(part) != "taken":
                break
        writer.transport.abort()
    await until(lambda: far.count("guard_calls_in_flight") == 0)


class _Deaf:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, raw: bytes) -> str:
        try:
            self._writer.write(raw)
            await asyncio.wait_for(self._writer.drain(), 0.7)
        except TimeoutError:
            return "stalled"
        except OSError:
            return "ended"
        return "taken"


async def many(far: Far, count: int, raw: bytes) -> contextlib.AsyncExitStack:
    """So many connections, each with these bytes sent."""
    stack = contextlib.AsyncExitStack()
    for _ in range(count):
        await stack.enter_async_context(wire(far.address, first=(raw,)))
    return stack


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        PREFACE[:10],
        PREFACE + settings(),
        PREFACE + settings() + frame(HEADERS, 0, 1, BLOCK[:20]),
        PREFACE + settings() + frame(HEADERS, END_HEADERS, 1, BLOCK)[:30],
    ],
    ids=["silent", "half a preface", "idle", "half a block", "half a frame"],
)
async def test_connections_that_just_stay(far: Far, raw: bytes) -> None:
    before = far.files
    async with watched(far), await many(far, 400, raw):
        await asyncio.sleep(0.3)
    await until(lambda: far.files < before + 20)


async def test_messages_that_come_slowly(far: Far) -> None:
    """A hundred calls, a byte at a time: they lose their places when the time for a call is over."""
    body = frames.message(request())
    async with watched(far), contextlib.AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(wire(far.address)) for _ in range(100)]
        for caller in callers:
            caller.send(opened(1))
        for byte in body[:5]:
            for caller in callers:
                caller.send(frames.data(1, bytes([byte])))
            await asyncio.sleep(0.1)
        await until(lambda: far.count("guard_calls_in_flight") >= 100)
        for caller in callers:
            assert (await caller.ended(1)).grpc == 4
    await until(lambda: far.count("guard_calls_in_flight") == 0)


async def test_more_streams_than_there_may_be(far: Far) -> None:
    """Those past the limit that was told are refused; the connection may go on."""
    async with watched(far), wire(far.address) as caller:
        await caller.until(lambda: frames.MAX_STREAMS in caller.settings)
        most = caller.settings[frames.MAX_STREAMS]
        assert most <= 10_000
        await flood(caller, numbered(opened, most + 500)())
        await caller.until(
            lambda: caller.gone is not None or sum(s.done.is_set() for s in caller.streams.values()) >= 400
        )
    await until(lambda: far.count("guard_calls_in_flight") == 0)


async def test_answers_that_are_never_read(far: Far) -> None:
    """Forty calls on a connection without a window: memory is bounded, places come back when the caller is gone."""
    async with watched(far, 128 * MIB), wire(far.address, (frames.INITIAL_WINDOW, 0), generous=False) as caller:
        for number in range(1, 81, 2):
            caller.send(call(number, PASSED.encode(), bytes(1000)))
        await caller.until(lambda: len([s for s in caller.streams.values() if s.blocks]) == 40)
    await until(lambda: far.count("guard_calls_in_flight") == 0)


async def test_answers_that_are_read_byte_by_byte(far: Far) -> None:
    """The data dribble: each byte in a frame of its own."""
    async with watched(far), wire(far.address, (frames.INITIAL_WINDOW, 0), generous=False) as caller:
        for number in range(1, 201, 2):
            caller.send(call(number, PASSED.encode(), bytes(100)))
        for _ in range(100):
            caller.send(*(window(number, 1) for number in range(1, 201, 2)))
            await asyncio.sleep(0)
        await caller.until(
            lambda: sum(len(s.body) for s in caller.streams.values()) == 10_000 or caller.gone is not None
        )


async def test_packed_bombs(far: Far) -> None:
    """Ten messages of 100 KB that would be 100 MB each; some threads inflate three times 4 MB at once, and keep it."""
    packed = frames.message(gzip.compress(bytes(100 * MIB), 1), 1)
    begun = headers(1, head(PASSED.encode(), (b"grpc-encoding", b"gzip")))
    async with watched(far, 128 * MIB), contextlib.AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(wire(far.address)) for _ in range(10)]
        for caller in callers:
            caller.send(begun)
        await asyncio.gather(*(caller.send_data(1, packed) for caller in callers))
        for caller in callers:
            assert (await caller.ended(1)).grpc not in {0, None}


async def test_connections_that_come_and_go(far: Far) -> None:
    """Four hundred, each ended in the midst of a call."""
    before = far.files

    async def one(i: int) -> None:
        async with wire(far.address) as caller:
            await caller.drained(call(1, PATH if i % 2 else TALK.encode(), request()))

    async with watched(far):
        for start in range(0, 400, 50):
            await asyncio.gather(*map(one, range(start, start + 50)))
    await until(lambda: far.files < before + 20)
    await until(lambda: far.count("guard_calls_in_flight") == 0)
