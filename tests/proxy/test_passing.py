"""What is not touched travels as it came: bytes, metadata, status, deadline, cancellation, compression."""

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import aio

from tests.proxy.world import (
    CLEAN,
    INFER,
    SERVICE,
    guarding,
    raw_call,
    request,
    serving,
    settings,
    start_server,
    tapped,
    world,
)


async def test_an_inference_travels_as_the_original_bytes() -> None:
    body = request() + b"\xfa\x3e\x03xyz"  # with an unknown field
    async with world() as (server, guarded):
        reply = await guarded.unary(body)
        (seen,) = server.calls()
        assert seen.bodies == [body]
        assert reply.body == await server.plain(body, None)
        assert reply.trailing == {}


async def test_metadata_travels_both_ways() -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("x-initial", "a"), ("raw-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-trailing", "b"), ("ce-id", "7"), ("guard-decision-id", "forged")))
        return await server.plain(body, context)

    async with world() as (server, guarded):
        server.infer = infer
        sent = (("x-one", "1"), ("x-one", "2"), ("x-bin", b"\x00\xff"), ("traceparent", "00-1-2-01"))
        reply = await guarded.unary(request(), metadata=sent)
        kept = [(k, v) for k, v in server.calls()[0].metadata if k != "user-agent"]
        assert sorted(kept, key=lambda pair: pair[0]) == sorted(sent, key=lambda pair: pair[0])
        assert reply.initial == {"x-initial": "a", "raw-bin": b"\x00\xff"}
        assert reply.trailing["x-trailing"] == "b"
        assert reply.trailing["ce-id"] == "7"
        assert "guard-decision-id" not in reply.trailing


async def test_an_error_keeps_code_text_and_details() -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        trailing = (("grpc-status-details-bin", b"\x08\x05details"), ("x-why", "y"))
        await context.abort(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'ü' is not found", trailing)

    async with world() as (server, guarded):
        server.infer = infer
        reply = await guarded.unary(request())
        assert reply.code is grpc.StatusCode.NOT_FOUND
        assert reply.details == "Request for unknown model: 'ü' is not found"
        assert reply.trailing["grpc-status-details-bin"] == b"\x08\x05details"
        assert reply.trailing["x-why"] == "y"


async def test_an_unavailable_that_the_server_said_keeps_its_text() -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "model is loading")

    async with world() as (server, guarded):
        server.infer = infer
        reply = await guarded.unary(request())
        assert (reply.code, reply.details) == (grpc.StatusCode.UNAVAILABLE, "model is loading")


async def test_the_deadline_travels_and_the_hop_has_its_own() -> None:
    async with world() as (server, guarded):
        await guarded.unary(request(), timeout=5)
        await guarded.unary(request(), timeout=None)
        first, second = (call.timeout_s for call in server.calls())
        assert first == pytest.approx(5, abs=2)
        assert second == pytest.approx(30, abs=2)


async def test_a_call_past_the_callers_deadline_is_cancelled_behind() -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        await asyncio.sleep(60)
        return b""

    async with world() as (server, guarded):
        server.infer = infer
        reply = await guarded.unary(request(), timeout=0.5)
        assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(10):
            while not server.calls()[0].cancelled:
                await asyncio.sleep(0.02)


async def test_a_cancelled_call_is_cancelled_behind() -> None:
    begun = asyncio.Event()

    async def infer(body: bytes, context: Any) -> bytes:
        begun.set()
        await asyncio.sleep(60)
        return b""

    async with world() as (server, guarded):
        server.infer = infer
        call = guarded.channel.unary_unary(INFER)(request())
        await asyncio.wait_for(begun.wait(), 10)
        call.cancel()
        async with asyncio.timeout(10):
            while not server.calls()[0].cancelled:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_requests_are_taken(algorithm: grpc.Compression) -> None:
    body = request(np.tile(CLEAN, (90, 1)))
    async with world() as (server, guarded):
        reply = await guarded.unary(body, compression=algorithm)
        assert server.calls()[0].bodies == [body]
        assert reply.body


@pytest.mark.parametrize(
    ("accepted", "compressed"), [(b"identity, gzip", True), (b"identity, deflate", True), (b"identity", False)]
)
async def test_answers_are_compressed_for_those_who_accept_it(accepted: bytes, compressed: bool) -> None:
    async with world(listen={"compression": "gzip"}) as (_, guarded):
        answer = await raw_call(guarded.app.address, INFER.encode(), (b"grpc-accept-encoding", accepted))
        assert (b"grpc-encoding" in answer) == compressed


@pytest.mark.parametrize("algorithm", ["none", "gzip"])
async def test_requests_are_compressed_where_the_hop_says_so(algorithm: str) -> None:
    async with serving() as server, tapped(server.address) as (address, tapes):
        changed = settings(address, compression=algorithm)
        async with guarding(changed) as guarded:
            body = request(np.tile(CLEAN, (90, 1)))
            await guarded.unary(body, compression=grpc.Compression.Deflate)
            assert server.calls()[0].bodies == [body]
            assert (b"\x04gzip" in b"".join(tapes)) == (algorithm == "gzip")


async def test_large_messages_travel_and_limits_end_them() -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        return b"x" * (9_000_000 if len(body) < 100 else 10_000_001)

    limits = {"max_request_bytes": 10_000_000, "max_response_bytes": 10_000_000, "drain_s": 0}
    async with world(limits=limits) as (server, guarded):
        server.infer = infer
        assert len((await guarded.unary(request())).body) == 9_000_000
        answer_too_large = await guarded.unary(request(np.tile(CLEAN, (90, 1))))
        assert answer_too_large.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert answer_too_large.details == "the upstream's answer is too large"
        seen = len(server.calls())
        too_large = await guarded.unary(b"x" * 10_000_001)
        assert too_large.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(server.calls()) == seen


@pytest.mark.parametrize("name", ["ServerLive", "ServerMetadata", "ModelConfig", "ModelStatistics"])
async def test_passed_methods_travel_as_bytes(name: str) -> None:
    async with world() as (server, guarded):
        body = b"\x0a\x01m\xfa\x3e\x03xyz"
        assert (await guarded.unary(body, SERVICE + name)).body == b"\x0a\x05other" + body
        assert server.calls(SERVICE + name)[-1].bodies == [body]


async def test_a_unary_call_may_be_made_as_a_stream() -> None:
    async with world() as (_, guarded):
        reply = await guarded.stream(request(), path=INFER)
        assert len(reply.bodies) == 1


async def test_the_upstream_may_listen_on_a_unix_socket(tmp_path: Any) -> None:
    server = await start_server(f"unix:{tmp_path}/s")
    try:
        async with guarding(settings(f"unix:{tmp_path}/s", listen={"address": f"unix:{tmp_path}/g"})) as guarded:
            assert (await guarded.unary(request())).body
            assert isinstance(guarded.channel, aio.Channel)
    finally:
        await server.server.stop(None)
