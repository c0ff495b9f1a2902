"""Health, and the end: a drain under load loses no call, long streams are told, what hangs is cut."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from guard.proxy import app
from tests.planes import frames
from tests.planes.at import TALK, ask, chosen, told, until
from tests.planes.frames import wire
from tests.proxy.world import INFER, SERVICE, request, serving, settings
from tests.servers.process import free_port

Behind = Callable[..., Any]
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
SERVING = HealthCheckResponse(status=1).SerializeToString()
NOT_SERVING = HealthCheckResponse(status=2).SerializeToString()


def asked(service: str) -> bytes:
    return HealthCheckRequest(service=service).SerializeToString()


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "m"])
async def test_health(behind: Behind, service: str) -> None:
    async with behind() as (_, guarded):
        assert (await ask(guarded.channel, asked(service), CHECK)).body == SERVING
        unknown = await ask(guarded.channel, asked("nobody"), CHECK)
        assert unknown.code is grpc.StatusCode.NOT_FOUND
        method: Any = guarded.channel.stream_stream(WATCH)
        watch = method(timeout=10)
        await watch.write(asked(service))
        assert await watch.read() == SERVING
        watch.cancel()
        await until(lambda: guarded.app.runtime.calls == 0)


async def test_probes_get_through_where_everything_else_is_full(behind: Behind) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        await asyncio.sleep(60)
        return b""

    async with behind(limits={"max_concurrent_calls": 1, "max_queued_calls": 0, "drain_s": 0}) as (server, guarded):
        server.infer = infer
        method: Any = guarded.channel.unary_unary(INFER)
        call = method(request())
        await until(server.calls)
        assert (await ask(guarded.channel, request())).end == ("RESOURCE_EXHAUSTED", "too many calls")
        assert (await ask(guarded.channel, asked(""), CHECK)).body == SERVING
        assert (await ask(guarded.channel, b"", SERVICE + "ServerReady")).body
        call.cancel()


async def started(plane: str, address: str, **changes: Any) -> app.App:
    made = settings(address, **chosen(plane), **changes)
    return await app.App.start(made, lambda: made, None)


async def test_a_drain_under_load_loses_no_call(plane: str) -> None:
    """Callers who keep calling on their connections see answers only, until they are told that it ends."""

    async def infer(body: bytes, context: Any) -> bytes:
        await asyncio.sleep(0.02)
        return b"done"

    async with serving(infer=infer) as server:
        guard = await started(plane, server.address, limits={"drain_s": 4.0})
        ends: list[tuple[str, str]] = []
        draining = asyncio.Event()

        async def caller() -> None:
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 10_000)]
            async with aio.insecure_channel(guard.address, options) as channel:
                while True:
                    reply = await ask(channel, request())
                    ends.append(reply.end)
                    if reply.code is not grpc.StatusCode.OK:
                        assert draining.is_set()
                        assert "connect" in reply.details  # nobody listens: this call never arrived
                        return

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        await until(lambda: len(ends) > 100)
        draining.set()
        await guard.drain()
        await asyncio.wait_for(asyncio.gather(*callers), 20)
        assert len([end for end in ends if end == ("OK", "")]) > 100
        assert len(server.calls()) == len([end for end in ends if end == ("OK", "")])


async def test_health_says_that_it_ends_before_it_does(plane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server:
        guard = await started(plane, server.address, limits={"drain_s": 4.0})
        async with aio.insecure_channel(guard.address) as channel:
            method: Any = channel.stream_stream(WATCH)
            watch = method(timeout=20)
            await watch.write(asked(""))
            assert await watch.read() == SERVING
            ending = asyncio.create_task(guard.drain())
            assert await watch.read() == NOT_SERVING
            assert (await ask(channel, request())).body  # it still takes calls
            assert (await ask(channel, asked(""), CHECK)).body == NOT_SERVING
            await ending
            assert (await told(watch)).code in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}


async def test_a_connection_is_told_that_it_ends(plane: str) -> None:
    """GOAWAY without an error, then the end; a call in flight is answered in between."""

    async def infer(body: bytes, context: Any) -> bytes:
        await asyncio.sleep(1.5)
        return b"done"

    async with serving(infer=infer) as server:
        guard = await started(plane, server.address, limits={"drain_s": 4.0})
        async with wire(guard.address) as idle, wire(guard.address) as busy:
            await until(lambda: idle.frames and busy.frames)
            busy.send(frames.call(1, INFER.encode(), request()))
            await until(server.calls)
            ending = asyncio.create_task(guard.drain())
            await asyncio.wait_for(idle.closed.wait(), 6)
            assert idle.gone == frames.NO_ERROR
            stream = await busy.ended(1)
            assert (stream.grpc, bytes(stream.body[5:])) == (0, b"done")
            await asyncio.wait_for(busy.closed.wait(), 6)
            assert busy.gone == frames.NO_ERROR
            await asyncio.wait_for(ending, 10)


async def test_what_hangs_is_cut_when_its_time_is_over(plane: str) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        await asyncio.sleep(60)
        return b""

    async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for body in bodies:
            yield body
        await asyncio.sleep(60)

    async with serving(infer=infer, stream=stream) as server:
        guard = await started(plane, server.address, limits={"drain_s": 0.8}, methods={"allow": [TALK]})
        async with aio.insecure_channel(guard.address) as channel:
            unary: Any = channel.unary_unary(INFER)
            bidi: Any = channel.stream_stream(TALK)
            call, talk = unary(request()), bidi()
            await talk.write(b"x")
            await talk.read()
            await until(server.calls)
            at = time.monotonic()
            await asyncio.wait_for(guard.drain(), 15)
            assert time.monotonic() - at < 10
            for one in (call, talk):
                assert (await told(one)).code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        await until(lambda: all(seen.cancelled for seen in (*server.calls(), *server.calls(TALK))))


async def test_nobody_listens_after_the_end(plane: str) -> None:
    async with serving() as server:
        guard = await started(plane, server.address, limits={"drain_s": 0.0})
        address = guard.address
        async with aio.insecure_channel(address) as channel:
            assert (await ask(channel, request())).body
        await guard.drain()
        with pytest.raises(OSError):
            await frames.connected(address)
        again = await started(plane, server.address, listen={"address": address}, limits={"drain_s": 0.0})
        async with aio.insecure_channel(address) as channel:
            assert (await ask(channel, request())).body
        await again.drain()


async def test_a_caller_may_wait_until_somebody_listens(plane: str) -> None:
    """wait_for_ready: the call is made before Guard is there, and made again when Guard came back."""
    address = f"127.0.0.1:{free_port()}"
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50)]
    options += [("grpc.max_reconnect_backoff_ms", 100)]
    async with serving() as server, aio.insecure_channel(address, options) as channel:
        for _ in range(2):
            waiting = asyncio.create_task(ask(channel, request(), wait_for_ready=True))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            guard = await started(plane, server.address, listen={"address": address}, limits={"drain_s": 0.0})
            assert (await waiting).body
            await guard.drain()
            await until(lambda: channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY)


async def test_a_second_guard_on_the_same_port_is_a_mistake(plane: str) -> None:
    from guard.settings import ConfigError

    async with serving() as server:
        guard = await started(plane, server.address)
        with pytest.raises(ConfigError, match=r"listen\.address"):
            await started(plane, server.address, listen={"address": guard.address})
        await guard.drain()


async def test_nothing_stays_behind(plane: str) -> None:
    """Tasks of a Guard that came, worked and went."""
    async with serving() as server:
        before = len(asyncio.all_tasks())
        for _ in range(3):
            guard = await started(plane, server.address, limits={"drain_s": 0.0})
            async with aio.insecure_channel(guard.address) as channel:
                await asyncio.gather(*(ask(channel, request()) for _ in range(10)))
            await guard.drain()
        await until(lambda: len(asyncio.all_tasks()) <= before, 5)
