"""HTTP/2 as callers may speak it, and as they may not: frames by hand."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.planes import frames, hpack
from tests.planes.at import PASSED, TALK, ask, until
from tests.planes.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    PUSH,
    RST,
    SETTINGS,
    WINDOW,
    Wire,
    call,
    frame,
    head,
    headers,
    settings,
    window,
    wire,
)
from tests.proxy.world import INFER, request

Behind = Callable[..., Any]
PATH = INFER.encode()
BODY = frames.message(request())


async def served(caller: Wire, number: int) -> None:
    """An honest call on this stream is answered."""
    caller.send(call(number, PATH, request()))
    stream = await caller.ended(number)
    assert (stream.http, stream.grpc) == (200, 0)


async def test_the_greeting(behind: Behind) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address, (0xF00D, 1)) as caller:
        await caller.until(lambda: (SETTINGS, ACK, 0, 0) in caller.frames)
        assert caller.frames[0][:3] == (SETTINGS, 0, 0)
        await served(caller, 1)


async def test_pings_are_answered(behind: Behind) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        caller.send(frame(PING, 0, 0, b"abcdefgh"))
        await caller.until(lambda: (PING, ACK, 0, 8) in caller.frames)
        await served(caller, 1)


async def test_many_calls_on_one_connection(behind: Behind) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        numbers = range(1, 401, 2)
        caller.send(*(call(number, PATH, request(request_id=str(number))) for number in numbers))
        for number in numbers:
            stream = await caller.ended(number)
            assert stream.grpc == 0
            assert b"%d" % number in stream.body
        assert caller.gone is None


# --- what is allowed


def split(at: int) -> bytes:
    block = hpack.block(head(PATH))
    parts = [block[i : i + at] for i in range(0, len(block), at)]
    raw = frame(HEADERS, 0, 1, parts[0]) + b"".join(frame(CONTINUATION, 0, 1, part) for part in parts[1:-1])
    return raw + frame(CONTINUATION, END_HEADERS, 1, parts[-1]) + frames.data(1, BODY, end=True)


def with_block(block: bytes, flags: int = 0) -> bytes:
    return frame(HEADERS, END_HEADERS | flags, 1, block) + frames.data(1, BODY, end=True)


PLAIN = hpack.block(head(PATH))
WELL = {
    "by the rules": with_block(PLAIN),
    "the method indexed": with_block(hpack.indexed(3) + hpack.block(head(PATH, **{":method": None}))),
    "a table in use": with_block(b"".join(hpack.stored(*pair) for pair in head(PATH))),
    "a smaller table": with_block(b"\x20" + PLAIN),
    "a block in small pieces": split(30),
    "a body byte by byte": headers(1, head(PATH))
    + b"".join(frames.data(1, BODY[i : i + 1]) for i in range(len(BODY)))
    + frames.data(1, b"", end=True),
    "trailers": headers(1, head(PATH)) + frames.data(1, BODY) + headers(1, [(b"x-t", b"1")], end=True),
    "a priority": with_block(b"\0\0\0\0\x0f" + PLAIN, PRIORITISED),
    "priorities": frame(PRIORITY, 0, 1, b"\0\0\0\3\x10") + with_block(PLAIN) + frame(PRIORITY, 0, 9, b"\0\0\0\1\x10"),
    "a padded head": with_block(b"\4" + PLAIN + bytes(4), PADDED),
    "a padded body": headers(1, head(PATH)) + frame(DATA, PADDED | END_STREAM, 1, b"\4" + BODY + bytes(4)),
    "unknown frames": frame(0xFA, 0xFF, 1, b"?")
    + headers(1, head(PATH))
    + frame(0xFB)
    + frames.data(1, BODY, end=True),
    "unknown settings": settings((0xBEEF, 1), (0xBEEF, 2)) + with_block(PLAIN),
    "flags that mean nothing": frame(HEADERS, END_HEADERS | 0x50, 1, PLAIN) + frames.data(1, BODY, end=True),
    "a reserved bit": frame(HEADERS, END_HEADERS, 1 | 1 << 31, PLAIN) + frames.data(1, BODY, end=True),
    "window to spare": window(0, 2**31 - 1 - 65_535) + with_block(PLAIN) + window(1, 1),
    "a subtype": headers(1, head(PATH, content_type=b"application/grpc+proto")) + frames.data(1, BODY, end=True),
    "a host instead": headers(1, head(PATH, (b"host", b"test"), authority=None)) + frames.data(1, BODY, end=True),
}
GRPCIO_DOES_NOT = {"a padded head", "a padded body"}


@pytest.mark.parametrize("name", WELL)
async def test_what_http2_allows_is_understood(behind: Behind, plane: str, name: str) -> None:
    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        caller.send(WELL[name])
        stream = await caller.ended(1)
        if plane == "grpcio" and name in GRPCIO_DOES_NOT:
            assert stream.grpc != 0
            return
        assert (stream.http, stream.grpc) == (200, 0)
        assert server.calls()[0].bodies == [request()]
        if name != "a smaller table":
            await served(caller, 3)


async def test_the_table_is_kept_from_call_to_call(behind: Behind) -> None:
    pairs = head(PATH, (b"x-key", b"v"))
    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        caller.send(with_block(b"".join(hpack.stored(*pair) for pair in pairs)))
        assert (await caller.ended(1)).grpc == 0
        block = b"".join(hpack.indexed(62 + i) for i in reversed(range(len(pairs))))
        caller.send(frame(HEADERS, END_HEADERS, 3, block) + frames.data(3, BODY, end=True))
        assert (await caller.ended(3)).grpc == 0
        assert [("x-key", "v") in seen.metadata for seen in server.calls()] == [True, True]


async def test_a_head_that_comes_byte_by_byte(behind: Behind) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address, polite=False, first=()) as caller:
        for byte in PREFACE + settings() + call(1, PATH, request()):
            await caller.drained(bytes([byte]))
            await asyncio.sleep(0)
        assert (await caller.ended(1)).grpc == 0


@pytest.mark.parametrize("size", [0, 1, 1000])
async def test_the_callers_window_is_kept(behind: Behind, size: int) -> None:
    """Not a byte more than is allowed, and the rest as soon as it is."""
    first = (frames.INITIAL_WINDOW, size)
    async with behind() as (_, guarded), wire(guarded.app.address, first, generous=False) as caller:
        stream = caller.stream(1)
        caller.send(call(1, PASSED.encode(), bytes(3000)))
        await caller.until(lambda: len(stream.body) == size and stream.blocks)
        await asyncio.sleep(0.1)
        assert len(stream.body) == size
        caller.send(window(1, 500))
        await caller.until(lambda: len(stream.body) == size + 500)
        caller.send(settings((frames.INITIAL_WINDOW, 10_000)))
        assert (await caller.ended(1)).grpc == 0
        assert len(stream.body) == 5 + 7 + 3000


async def test_a_window_that_is_taken_back(behind: Behind) -> None:
    """SETTINGS_INITIAL_WINDOW_SIZE below what was used: the window is negative, and counts so (RFC 9113, 6.9.2)."""
    first = (frames.INITIAL_WINDOW, 1000)
    async with behind() as (_, guarded), wire(guarded.app.address, first, generous=False) as caller:
        stream = caller.stream(1)
        caller.send(call(1, PASSED.encode(), bytes(3000)))
        await caller.until(lambda: len(stream.body) == 1000)
        caller.send(settings((frames.INITIAL_WINDOW, 0)), window(1, 900))
        await asyncio.sleep(0.1)
        assert len(stream.body) == 1000
        caller.send(window(1, 300))
        await caller.until(lambda: len(stream.body) == 1200)
        caller.send(window(1, 5000))
        assert (await caller.ended(1)).grpc == 0


async def test_the_callers_other_settings_are_kept(behind: Behind) -> None:
    pairs = (frames.TABLE_SIZE, 0), (frames.MAX_FRAME, 16_384)
    async with behind() as (_, guarded), wire(guarded.app.address, *pairs) as caller:
        caller._hpack = hpack.Reader(0)
        for number in (1, 3, 5):
            caller.send(call(number, PASSED.encode(), bytes(20_000)))
            stream = await caller.ended(number)
            assert stream.grpc == 0
            assert len(stream.body) == 20_012
        assert max(size for _, _, _, size in caller.frames) <= 16_384


async def test_large_frames_where_the_listener_allows_them(behind: Behind) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        await caller.until(lambda: caller.settings or caller.frames)
        limit = caller.settings.get(frames.MAX_FRAME, 16_384)
        size = min(limit, caller.settings.get(frames.INITIAL_WINDOW, 65_535), 65_535)
        message = frames.message(bytes(size - 5))
        caller.send(headers(1, head(PASSED.encode())), frame(DATA, END_STREAM, 1, message))
        assert (await caller.ended(1)).grpc == 0


async def test_a_callers_goaway_lets_its_calls_end(behind: Behind) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        await asyncio.sleep(0.2)
        return b"done"

    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        server.infer = infer
        caller.send(call(1, PATH, request()))
        await until(server.calls)
        caller.send(frames.goaway(0))
        stream = await caller.ended(1)
        assert (stream.grpc, bytes(stream.body[5:])) == (0, b"done")


async def test_a_caller_that_half_closes_its_connection_is_gone_or_served(behind: Behind) -> None:
    """TCP's own half-close after a whole request: nothing hangs."""
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        caller.send(call(1, PATH, request()))
        caller.writer.write_eof()
        await caller.ended(1, timeout_s=5)
        await until(lambda: guarded.app.runtime.calls == 0)


# --- what is not allowed


def after(*raw: bytes) -> bytes:
    """A head that waits for its body, then these."""
    return headers(1, head(PATH)) + b"".join(raw)


BAD: dict[str, bytes] = {
    "an even stream": call(2, PATH, request()),
    "stream 0": call(0, PATH, request()),
    "a stream that is behind": call(5, b"/a/b", b"") + call(3, PATH, request()),
    "data without a head": frames.data(1, BODY, end=True),
    "data after its end": after(frames.data(1, BODY, end=True), frames.data(1, BODY)),
    "a reset of nothing": frames.rst(1),
    "a reset of 3 bytes": after(frame(RST, 0, 1, b"abc")),
    "a promise": after(frame(PUSH, END_HEADERS, 1, b"\0\0\0\2" + PLAIN)),
    "a frame past the limit": after(frame(DATA, 0, 1, bytes(20_000), length=2**24 - 1)),
    "a frame in the midst of a head": frame(HEADERS, 0, 1, PLAIN[:9]) + frame(PING, 0, 0, bytes(8)),
    "another stream's continuation": frame(HEADERS, 0, 1, PLAIN[:9]) + frame(CONTINUATION, 4, 3, PLAIN[9:]),
    "a continuation of nothing": frame(CONTINUATION, END_HEADERS, 1, PLAIN),
    "a ping of 7 bytes": frame(PING, 0, 0, bytes(7)),
    "a ping on a stream": frame(PING, 0, 1, bytes(8)),
    "settings of 5 bytes": frame(SETTINGS, 0, 0, bytes(5)),
    "settings on a stream": frame(SETTINGS, 0, 1),
    "an ack with a payload": frame(SETTINGS, ACK, 0, bytes(6)),
    "push turned to 2": settings((frames.ENABLE_PUSH, 2)),
    "a window of 2^31": settings((frames.INITIAL_WINDOW, 2**31)),
    "frames of 1 byte": settings((frames.MAX_FRAME, 1)),
    "no window for the connection": window(0, 0),
    "no window for a stream": after(window(1, 0)),
    "too much window": window(0, 2**31 - 1),
    "too much window for a stream": after(window(1, 2**31 - 1)),
    "window of 3 bytes": frame(WINDOW, 0, 0, b"abc"),
    "a goaway of 3 bytes": frame(GOAWAY, 0, 0, b"abc"),
    "more padding than there is": after(frame(DATA, PADDED, 1, b"\xff12")),
    "a block that cannot be read": frame(HEADERS, END_HEADERS, 1, b"\xff" * 9),
    "an index that is not there": frame(HEADERS, END_HEADERS, 1, PLAIN + hpack.indexed(99)),
    "index 0": frame(HEADERS, END_HEADERS, 1, PLAIN + b"\x80"),
    "a string past the block": frame(HEADERS, END_HEADERS, 1, PLAIN + b"\0\x7f\xff\xff\xff\x7fx"),
    "huffman that is none": frame(HEADERS, END_HEADERS, 1, PLAIN + b"\0\x84\xff\xff\xff\xff\1x"),
    "a table past the limit": frame(HEADERS, END_HEADERS, 1, hpack.integer(2**24, 5, 0x20) + PLAIN),
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}
LENIENT = {
    "grpcio": {
        "an even stream",
        "stream 0",
        "data without a head",
        "data after its end",
        "a reset of nothing",
        "a promise",
        "a ping on a stream",
        "too much window for a stream",
        "no window for a stream",
        "no window for the connection",
        "too much window",
        "a stream that is behind",
        "push turned to 2",
    },
    "fast": {"data after its end", "a stream that is behind"},
}
"""What goes unpunished."""


@pytest.mark.parametrize("name", BAD)
async def test_what_http2_forbids_ends_the_connection_or_the_stream(behind: Behind, plane: str, name: str) -> None:
    async with behind() as (server, guarded):
        async with wire(guarded.app.address) as caller:
            caller.send(BAD[name])
            stream = caller.stream(1)
            over = lambda: caller.closed.is_set() or caller.gone is not None or stream.code is not None
            with contextlib.suppress(TimeoutError):
                await caller.until(over, 0.3 if name in LENIENT[plane] else 3)
            assert over() or name in LENIENT[plane]
            assert not server.calls() or name in LENIENT[plane]
        assert (await ask(guarded.channel, request())).body
        await until(lambda: guarded.app.runtime.calls == 0)


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /inference.GRPCInferenceService/ModelInfer HTTP/1.1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r" + settings(),
        PREFACE + frame(PING, 0, 0, bytes(8)),
        bytes(1000),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + PREFACE + settings(),
    ],
    ids=["HTTP/1.1", "h2c upgrade", "TLS", "a wrong preface", "no settings", "zeros", "PROXY"],
)
async def test_what_is_not_http2_is_sent_away(behind: Behind, plane: str, first: bytes) -> None:
    async with behind() as (server, guarded):
        async with wire(guarded.app.address, first=(first,)) as caller:
            with contextlib.suppress(TimeoutError):
                await caller.until(lambda: caller.closed.is_set() or caller.gone is not None, 3)
            assert caller.closed.is_set() or caller.gone is not None or (plane == "grpcio" and b"PRI" in first)
        assert (await ask(guarded.channel, request())).body
        assert not server.calls()[1:]


# --- heads that are no gRPC call

HEADS: dict[str, tuple[hpack.Pairs, set[str]]] = {
    "GET": (head(PATH, method=b"GET"), {"refused"}),
    "no method": (head(PATH, method=None), {"refused"}),
    "no path": (head(PATH, path=None), {"refused"}),
    "an empty path": (head(b""), {"refused"}),
    "a path that is no text": (head(b"/a/\xff\xfe"), {"refused"}),
    "a path with a query": (head(PATH + b"?x=1"), {"refused"}),
    "a path with a host": (head(b"http://x" + PATH), {"refused"}),
    "an escaped path": (head(PATH.replace(b"M", b"%4d")), {"refused"}),
    "a path with NUL": (head(PATH + b"\0"), {"refused"}),
    "two paths": ([*head(PATH)[:3], (b":path", b"/a/b"), *head(PATH)[3:]], {"refused"}),
    "no authority": (head(PATH, authority=None), {"refused"}),
    "no scheme": (head(PATH, scheme=None), {"refused", "served"}),
    "another scheme": (head(PATH, scheme=b"ftp"), {"refused", "served"}),
    "a status": ([(b":status", b"200"), *head(PATH)], {"refused"}),
    "an unknown pseudo field": ([(b":unknown", b"x"), *head(PATH)], {"refused", "served"}),
    "a pseudo field at the end": ([*head(PATH, authority=None), (b":authority", b"x")], {"refused", "served"}),
    "no content type": (head(PATH, **{"content-type": None}), {"refused", "served"}),
    "JSON": (head(PATH, **{"content-type": b"application/json"}), {"refused"}),
    "almost gRPC": (head(PATH, **{"content-type": b"application/grpcx"}), {"refused"}),
    "gRPC-Web": (head(PATH, **{"content-type": b"application/grpc-web+proto"}), {"refused"}),
    "no te": (head(PATH, te=None), {"refused", "served"}),
    "another te": (head(PATH, te=b"gzip"), {"refused", "served"}),
    "a name in capitals": (head(PATH, (b"X-Key", b"v")), {"refused"}),
    "a name with a blank": (head(PATH, (b"x key", b"v")), {"refused"}),
    "an empty name": (head(PATH, (b"", b"v")), {"refused"}),
    "a connection field": (head(PATH, (b"connection", b"close")), {"refused", "served"}),
    "chunked": (head(PATH, (b"transfer-encoding", b"chunked")), {"refused", "served"}),
    "a value that is no text": (head(PATH, (b"x-key", b"\xff\xfe")), {"refused"}),
    "a value with a line break": (head(PATH, (b"x-key", b"a\r\nb: c")), {"refused"}),
    "a value with NUL": (head(PATH, (b"x-key", b"a\0b")), {"refused"}),
    "a binary value that is no base64": (head(PATH, (b"x-bin", b"***")), {"refused", "served"}),
    "a length that is wrong": (head(PATH, (b"content-length", b"7")), {"refused", "served"}),
    "CONNECT": (head(PATH, method=b"CONNECT"), {"refused"}),
}
GRPCIO_SERVES = {"a status", "JSON", "almost gRPC", "gRPC-Web"}


@pytest.mark.parametrize("name", HEADS)
async def test_heads_that_are_no_call(behind: Behind, plane: str, name: str) -> None:
    """Refused one way or another, or served where nothing hangs on it; never more than that."""
    pairs, allowed = HEADS[name]
    async with behind() as (server, guarded):
        async with wire(guarded.app.address) as caller:
            caller.send(headers(1, pairs), frames.data(1, BODY, end=True))
            stream = await caller.ended(1, timeout_s=5)
            was = "served" if stream.grpc == 0 else "refused"
            assert was in allowed or (plane == "grpcio" and name in GRPCIO_SERVES)
            assert len(server.calls()) == (was == "served")
        for seen in server.calls():
            assert {key for key, _ in seen.metadata} <= {"user-agent", "x-bin"}
        assert (await ask(guarded.channel, request())).body


async def test_a_path_that_is_no_text_leaves_the_connection_alone(behind: Behind) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        caller.send(call(1, b"/a/\xff\xfe", request()))
        assert (await caller.ended(1)).grpc != 0
        await served(caller, 3)


async def test_a_relayed_path_must_be_exact(behind: Behind) -> None:
    async with behind(methods={"allow": [TALK]}) as (server, guarded), wire(guarded.app.address) as caller:
        for number, path in enumerate((TALK + "/", TALK.upper(), "/" + TALK, TALK + "\xff")):
            caller.send(call(2 * number + 1, path.encode("latin-1"), request()))
            assert (await caller.ended(2 * number + 1)).grpc != 0
        assert not [seen for seen in server.seen if seen.path.lower().startswith("/other")]
