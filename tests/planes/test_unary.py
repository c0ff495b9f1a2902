"""One request, one answer: bytes, metadata, limits, compression, many at once."""

import asyncio
import os
import zlib
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from tests.planes import frames
from tests.planes.at import PASSED, TALK, ask, names, told, until
from tests.planes.frames import call, wire
from tests.proxy.world import CLEAN, INFER, SERVICE, request, serving, tapped

Behind = Callable[..., Any]
SIZES = (0, 1, 3_000, 16_379, 16_384, 65_535, 65_536, 602_000)
"""Around HTTP/2's frame (16,384 with gRPC's own 5 bytes) and first window (65,535), and a picture's worth."""


def padded(size: int) -> bytes:
    """An inference of exactly so many bytes: an unknown field makes up what is missing."""
    body = request()
    missing = size - len(body) - 2
    length = missing - 1
    while len(_varint(length)) + length > missing:
        length -= 1
    made = body + b"\xfa\x3e" + _varint(length) + bytes(length)
    assert len(made) == size
    return made


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


@pytest.mark.parametrize("size", SIZES)
async def test_bytes_travel_unchanged_whatever_their_number(behind: Behind, size: int) -> None:
    body = os.urandom(size)
    async with behind() as (server, guarded):
        assert (await ask(guarded.channel, body, PASSED)).body == b"\x0a\x05other" + body
        assert server.calls(PASSED)[-1].bodies == [body]


async def test_an_inference_travels_as_the_original_bytes(behind: Behind) -> None:
    body = padded(602_000)
    async with behind() as (server, guarded):
        reply = await ask(guarded.channel, body)
        (seen,) = server.calls()
        assert seen.bodies == [body]
        assert reply.body == await server.plain(body, None)
        assert (reply.initial, reply.trailing) == ((), ())


@pytest.mark.parametrize("over", [0, 1])
async def test_requests_up_to_the_limit(behind: Behind, over: int) -> None:
    size = 100_000
    async with behind(limits={"max_request_bytes": size, "drain_s": 0}) as (server, guarded):
        reply = await ask(guarded.channel, padded(size + over))
        assert reply.code is (grpc.StatusCode.RESOURCE_EXHAUSTED if over else grpc.StatusCode.OK)
        assert len(server.calls()) == 1 - over
        assert (await ask(guarded.channel, request())).body


@pytest.mark.parametrize("over", [0, 1])
async def test_answers_up_to_the_limit(behind: Behind, over: int) -> None:
    size = 100_000

    async def infer(body: bytes, context: Any) -> bytes:
        return b"x" * (size + over)

    async with behind(limits={"max_response_bytes": size, "drain_s": 0}) as (server, guarded):
        server.infer = infer
        reply = await ask(guarded.channel, request())
        if over:
            assert reply.end == ("RESOURCE_EXHAUSTED", "the upstream's answer is too large")
        else:
            assert reply.body == b"x" * size
        server.infer = None
        assert (await ask(guarded.channel, request())).body


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_the_limit_holds_for_what_was_unpacked(behind: Behind, algorithm: grpc.Compression) -> None:
    """A few kilobytes that would be 20 MB."""
    async with behind(limits={"max_request_bytes": 1_000_000, "drain_s": 0}) as (server, guarded):
        reply = await ask(guarded.channel, padded(20_000_000), compression=algorithm)
        assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not server.calls()
        assert (await ask(guarded.channel, padded(900_000), compression=algorithm)).body


async def test_metadata_travels_to_the_server(behind: Behind) -> None:
    sent = (
        ("x-one", "1"),
        ("x-one", "2"),
        ("x-blank", ""),
        ("x-text", 'a b, c;d="e" ~'),
        ("x-long", "v" * 3000),
        ("x-bin", b"\x00\xff\x80, ="),
        ("x-bin", b""),
        ("traceparent", "00-1-2-01"),
        ("authorization", "Bearer secret"),
    )
    async with behind() as (server, guarded):
        assert (await ask(guarded.channel, request(), metadata=sent)).body
        seen = server.calls()[0].metadata
        for key in {key for key, _ in sent}:
            assert names(seen, key) == names(sent, key)
        assert {key for key, _ in seen} == {key for key, _ in sent} | {"user-agent"}
        assert names(seen, "user-agent")[0][1].startswith("guard")


async def test_metadata_travels_to_the_caller(behind: Behind) -> None:
    initial = (("x-i", "1"), ("x-i", "2"), ("x-i-bin", b"\x00\xff"), ("x-i-bin", b"\x01"))
    trailing = (("x-t", "a b"), ("x-t", "c"), ("x-t-bin", b"\xff" * 300), ("guard-decision-id", "forged"))

    async def infer(body: bytes, context: Any) -> bytes:
        await context.send_initial_metadata(initial)
        context.set_trailing_metadata(trailing)
        return await server.plain(body, context)

    async with behind() as (server, guarded):
        server.infer = infer
        reply = await ask(guarded.channel, request())
        assert reply.body
        assert reply.initial == initial
        assert reply.trailing == trailing[:3]


@pytest.mark.parametrize("size", [20_000, 60_000])
async def test_metadata_past_the_limit(behind: Behind, size: int) -> None:
    """The call is refused, and its neighbour on the same connection is not."""
    go = asyncio.Event()

    async def infer(body: bytes, context: Any) -> bytes:
        await go.wait()
        return b"done"

    async with behind() as (server, guarded):
        server.infer = infer
        neighbour = asyncio.create_task(ask(guarded.channel, request()))
        await until(server.calls)
        too_big = await ask(guarded.channel, request(), metadata=(("x-big", "v" * size),))
        assert too_big.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(server.calls()) == 1
        go.set()
        assert (await neighbour).body == b"done"
        assert (await ask(guarded.channel, request(), metadata=(("x-big", "v" * 6_000),))).body


async def test_a_field_past_64_kib_is_no_call(behind: Behind, plane: str) -> None:
    """libnghttp2 takes no such field: the connection ends. grpcio's core refuses the call alone."""
    async with behind() as (server, guarded):
        reply = await ask(guarded.channel, request(), metadata=(("x-big", "v" * 100_000),))
        assert reply.code.name == {"grpcio": "RESOURCE_EXHAUSTED", "fast": "UNAVAILABLE"}[plane]
        assert not server.calls()
        assert (await ask(guarded.channel, request())).body


@pytest.mark.parametrize("size", [20_000, 100_000])
async def test_metadata_of_an_answer_past_the_limit(behind: Behind, size: int) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-big", "v" * size),))
        return b""

    async with behind() as (server, guarded):
        server.infer = infer
        reply = await ask(guarded.channel, request())
        assert reply.code is not grpc.StatusCode.OK
        assert "127.0.0.1" not in reply.details
        assert not names(reply.trailing, "x-big")
        server.infer = None
        assert (await ask(guarded.channel, request())).body


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_requests_are_taken(behind: Behind, algorithm: grpc.Compression) -> None:
    body = request(np.tile(CLEAN, (90, 1)))
    async with behind() as (server, guarded):
        reply = await ask(guarded.channel, body, compression=algorithm)
        assert server.calls()[0].bodies == [body]
        assert reply.body == await server.plain(body, None)


@pytest.mark.parametrize("flag", [0, 1])
async def test_a_compressed_stream_may_carry_plain_messages(behind: Behind, flag: int) -> None:
    body = request(np.tile(CLEAN, (90, 1)))
    sent = frames.message(zlib.compress(body) if flag else body, flag)
    encoding = (b"grpc-encoding", b"deflate")
    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        caller.send(frames.headers(1, frames.head(INFER.encode(), encoding)), frames.data(1, sent, end=True))
        assert (await caller.ended(1)).grpc == 0
        assert server.calls()[0].bodies == [body]


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        (b"gzip", frames.message(b"no gzip at all", 1)),
        (b"deflate", frames.message(zlib.compress(b"x" * 1000)[:-8], 1)),
        (b"brotli", frames.message(b"what is this", 1)),
        (b"identity", frames.message(b"flag without algorithm", 1)),
    ],
)
async def test_what_cannot_be_unpacked_is_refused(behind: Behind, encoding: bytes, sent: bytes) -> None:
    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        pairs = frames.head(INFER.encode(), (b"grpc-encoding", encoding))
        caller.send(frames.headers(1, pairs), frames.data(1, sent, end=True))
        stream = await caller.ended(1)
        assert stream.grpc != 0
        assert not server.calls()
        caller.send(call(3, INFER.encode(), request()))
        assert (await caller.ended(3)).grpc == 0


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("accepted", [b"identity,gzip", b"gzip, deflate", b"identity", None])
async def test_answers_are_compressed_for_those_who_accept_it(
    behind: Behind, algorithm: str, accepted: bytes | None
) -> None:
    extra = () if accepted is None else ((b"grpc-accept-encoding", accepted),)
    body = request(np.tile(CLEAN, (90, 1)))
    async with behind(listen={"compression": algorithm}) as (server, guarded), wire(guarded.app.address) as caller:
        caller.send(call(1, INFER.encode(), body, *extra))
        stream = await caller.ended(1)
        packed, plain = bytes(stream.body[5:]), await server.plain(body, None)
        if stream.body[0]:
            used = dict(stream.blocks[0])[b"grpc-encoding"]
            assert used in (accepted or b"").replace(b" ", b"").split(b",")
            assert zlib.decompress(packed, 31 if used == b"gzip" else 15) == plain
        else:
            assert packed == plain
        wanted = accepted is not None and algorithm.encode() in accepted
        assert bool(stream.body[0]) == wanted or (algorithm == "deflate" and accepted == b"identity,gzip")


@pytest.mark.parametrize("algorithm", ["none", "gzip", "deflate"])
async def test_requests_are_compressed_where_the_hop_says_so(guarding: Any, algorithm: str) -> None:
    body = request(np.tile(CLEAN, (90, 1)))
    async with (
        serving() as server,
        tapped(server.address) as (address, tapes),
        guarding(address, compression=algorithm) as guarded,
    ):
        assert (await ask(guarded.channel, body, compression=grpc.Compression.Deflate)).body
        assert server.calls()[0].bodies == [body]
        assert (body[:60] in b"".join(tapes)) == (algorithm == "none")


async def test_compressed_answers_of_the_server_are_unpacked(behind: Behind) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        context.set_compression(grpc.Compression.Gzip)
        return await server.plain(body, context)

    body = request(np.tile(CLEAN, (90, 1)))
    async with behind() as (server, guarded):
        server.infer = infer
        assert (await ask(guarded.channel, body)).body == await server.plain(body, None)


async def test_two_hundred_calls_at_once(behind: Behind) -> None:
    """Each on its own, in whatever order they are answered."""

    async def infer(body: bytes, context: Any) -> bytes:
        await asyncio.sleep(int(body[-1]) % 7 / 100)
        return body

    async with behind() as (server, guarded):
        server.infer = infer
        bodies = [request(request_id=str(i)) for i in range(200)]
        replies = await asyncio.gather(*(ask(guarded.channel, body) for body in bodies))
        assert [reply.body for reply in replies] == bodies


async def test_large_calls_beside_small_ones(behind: Behind) -> None:
    async with behind() as (_, guarded):
        bodies = [os.urandom(2_000_000 if i % 4 == 0 else 100) for i in range(32)]
        replies = await asyncio.gather(*(ask(guarded.channel, body, PASSED) for body in bodies))
        assert [reply.body[7:] for reply in replies] == bodies


async def test_a_call_without_a_message(behind: Behind) -> None:
    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        caller.send(call(1, INFER.encode(), None))
        assert (await caller.ended(1)).trailers[b"grpc-message"] == b"the call carries no message"
        caller.send(frames.headers(3, frames.head(INFER.encode())), frames.data(3, b"", end=True))
        assert (await caller.ended(3)).grpc == 3
        assert not server.calls()


async def test_a_second_message_of_a_unary_call_goes_nowhere(behind: Behind) -> None:
    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        twice = frames.message(request()) * 2
        caller.send(frames.headers(1, frames.head(INFER.encode())), frames.data(1, twice, end=True))
        await caller.ended(1)
        assert all(seen.bodies == [request()] for seen in server.calls())
        caller.send(call(3, INFER.encode(), request()))
        assert (await caller.ended(3)).grpc == 0


async def test_a_unary_call_may_be_made_as_a_stream(behind: Behind) -> None:
    async with behind() as (_, guarded):
        method: Any = guarded.channel.stream_stream(INFER)
        stream = method(timeout=10)
        await stream.write(request())
        reply = await told(stream)  # answered before its caller has ended
        assert reply.body


@pytest.mark.parametrize("name", ["ServerLive", "ServerReady", "ModelReady", "ModelConfig", "ModelStatistics"])
async def test_every_passed_method_passes(behind: Behind, name: str) -> None:
    async with behind() as (server, guarded):
        body = b"\x0a\x01m\xfa\x3e\x03xyz"
        assert (await ask(guarded.channel, body, SERVICE + name)).body
        assert server.calls(SERVICE + name)[-1].bodies == [body]


async def test_an_unknown_service_passes_where_it_is_allowed(behind: Behind) -> None:
    async def stream(bodies: Any, context: Any) -> Any:
        async for body in bodies:
            yield body + b"!"

    async with behind(methods={"allow": [TALK]}) as (server, guarded):
        server.stream = stream
        assert (await ask(guarded.channel, b"a", TALK)).body == b"a!"
