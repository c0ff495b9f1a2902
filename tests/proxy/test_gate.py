"""The method table, admission, Guard's own health, and an upstream that is away, slow or wrong."""

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from guard.proxy import methods, probe
from guard.proxy.admission import ENOUGH
from guard.proxy.health import OWN
from guard.proxy.methods import Treatment
from guard.proxy.pipeline import Pipeline
from guard.wire import open_inference_pb2 as pb
from tests.proxy.world import (
    INFER,
    SERVICE,
    Guarded,
    eventually,
    guarding,
    request,
    serving,
    settings,
    start_server,
    tapped,
    world,
)

DENIED = [path for path, treatment in methods.TABLE.items() if treatment is Treatment.DENY]
LOOKALIKES = [
    "/evil.Service/ModelInfer",
    "/evil.Service/ServerLive",
    "/grpc.health.v1.Healthy/Check",
    "/inference.GRPCInferenceService/modelinfer",
    "/inference.GRPCInferenceService/ModelInfer/",
    "/inference.GRPCInferenceService//ModelInfer",
    "/x/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/Anything",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/",
]


def reason_of(reply: Any) -> str:
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(reply.trailing["grpc-status-details-bin"]).details[0].Unpack(info)
    return str(info.reason)


@pytest.mark.parametrize("path", [*DENIED, *LOOKALIKES])
async def test_what_is_not_let_through_is_denied_and_never_forwarded(path: str) -> None:
    async with world() as (server, guarded):
        for reply in (await guarded.unary(request(), path), await guarded.stream(request(), path=path)):
            assert (reply.code, reply.details) == (grpc.StatusCode.PERMISSION_DENIED, "the method is not allowed")
            assert reason_of(reply) == "METHOD_DENIED"
        assert not server.calls(path)
        name = path.rpartition("/")[2] if path in DENIED else "unknown"
        assert guarded.count("guard_denied_methods_total", grpc_method=name) == 2


@pytest.mark.parametrize("path", DENIED)
async def test_the_bare_server_would_have_taken_it(path: str) -> None:
    """The control of the test above."""
    async with serving() as server:
        bare = Guarded(None, grpc.aio.insecure_channel(server.address))  # type: ignore[arg-type]
        assert (await bare.unary(request(), path)).body
        await bare.channel.close()


@pytest.mark.parametrize("allowed", ["RepositoryIndex", SERVICE + "RepositoryIndex"])
async def test_denied_methods_pass_where_allowed(allowed: str) -> None:
    async with world(methods={"allow": [allowed]}) as (_, guarded):
        assert (await guarded.unary(b"\x0a\x01m", SERVICE + "RepositoryIndex")).body == b"\x0a\x05other\x0a\x01m"
        denied = await guarded.unary(b"", SERVICE + "RepositoryModelLoad")
        assert denied.code is grpc.StatusCode.PERMISSION_DENIED


async def test_unknown_methods_pass_as_streams_where_allowed_in_full() -> None:
    async with world(methods={"allow": ["/other.Service/Talk", "Chat"]}) as (server, guarded):

        async def stream(bodies: Any, context: Any) -> Any:
            async for body in bodies:
                yield body + b"!"

        server.stream = stream
        reply = await guarded.stream(b"a", b"b", path="/other.Service/Talk")
        assert (reply.code, reply.bodies) == (grpc.StatusCode.OK, [b"a!", b"b!"])
        assert (await guarded.unary(b"a", "/other.Service/Talk")).body == b"a!"
        assert (await guarded.unary(b"a", "/other.Service/Chat")).code is grpc.StatusCode.PERMISSION_DENIED


async def test_conventional_metrics_count_every_call() -> None:
    async with world() as (_, guarded):
        await guarded.unary(request())
        await guarded.unary(request(), SERVICE + "TraceSetting")
        await guarded.unary(request(), "/a/b")
        known = {"grpc_type": "unary", "grpc_service": "inference.GRPCInferenceService"}
        assert guarded.count("grpc_server_started_total", **known, grpc_method="ModelInfer") == 1
        assert guarded.count("grpc_server_handled_total", **known, grpc_method="ModelInfer", grpc_code="OK") == 1
        denied = {"grpc_method": "TraceSetting", "grpc_code": "PERMISSION_DENIED"}
        assert guarded.count("grpc_server_handled_total", **known, **denied) == 1
        unknown = dict.fromkeys(("grpc_type", "grpc_service", "grpc_method"), "unknown")
        assert guarded.count("grpc_server_started_total", **unknown) == 1


# --- admission


class Slow:
    """Answers when told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, body: bytes, context: Any) -> bytes:
        await self.go.wait()
        return b""


async def test_calls_past_the_places_wait_and_further_ones_are_told_at_once() -> None:
    limits = {"max_concurrent_calls": 2, "max_queued_calls": 3, "drain_s": 0}
    async with world(limits=limits) as (server, guarded):
        server.infer = slow = Slow()
        calls = [asyncio.create_task(guarded.unary(request())) for _ in range(5)]
        await eventually(lambda: guarded.count("guard_calls_queued") == 3)
        await eventually(lambda: len(server.calls()) == 2)
        reply = await guarded.unary(request())
        assert (reply.code, reply.details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls")
        assert reason_of(reply) == "OVERLOADED"
        for path in (SERVICE + "ServerLive", methods.HEALTH_CHECK):  # probes need no place
            assert (await guarded.unary(b"", path)).body
        slow.go.set()
        assert all(reply.code is grpc.StatusCode.OK for reply in await asyncio.gather(*calls))
        await eventually(lambda: guarded.count("guard_calls_in_flight") == 0)  # given back once the answers were read
        assert guarded.count("guard_calls_queued") == 0
        assert guarded.count("guard_rejected_calls_total", reason="overloaded") == 1


async def test_who_would_wait_past_his_deadline_is_told_at_once() -> None:
    """Places become free every 20 ms: the tenth in the queue has no use of a call of 0.1 s."""
    limits = {"max_concurrent_calls": 1, "max_queued_calls": 100, "drain_s": 0}
    async with world(limits=limits) as (server, guarded):

        async def slow(body: bytes, context: Any) -> bytes:
            await asyncio.sleep(0.02)
            return await server.plain(body, context)

        server.infer = slow
        calls = [asyncio.create_task(guarded.unary(request())) for _ in range(60)]
        await eventually(lambda: len(server.calls()) > ENOUGH + 4)
        assert guarded.count("guard_calls_queued") > 10
        hasty = await guarded.unary(request(), timeout=0.1)
        patient = asyncio.create_task(guarded.unary(request(), timeout=20))  # the control
        assert hasty.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(hasty) == "OVERLOADED"
        assert guarded.count("guard_rejected_calls_total", reason="overloaded") == 1
        assert all(reply.code is grpc.StatusCode.OK for reply in await asyncio.gather(*calls, patient))
        assert (await guarded.unary(request(), timeout=5)).code is grpc.StatusCode.OK  # the crowd has gone


async def test_waiting_counts_against_the_deadline_and_whoever_leaves_frees_the_queue() -> None:
    limits = {"max_concurrent_calls": 1, "max_queued_calls": 1, "drain_s": 0}
    async with world(limits=limits) as (server, guarded):
        server.infer = slow = Slow()
        first = asyncio.create_task(guarded.unary(request()))
        await eventually(lambda: server.calls())
        assert (await guarded.unary(request(), timeout=0.3)).code is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: guarded.count("guard_calls_queued") == 0)
        second = asyncio.create_task(guarded.unary(request()))
        await eventually(lambda: guarded.count("guard_calls_queued") == 1)
        slow.go.set()
        assert (await first).code is (await second).code is grpc.StatusCode.OK
        assert len(server.calls()) == 2


# --- health


async def health(guarded: Guarded, service: str = "") -> Any:
    reply = await guarded.unary(HealthCheckRequest(service=service).SerializeToString(), methods.HEALTH_CHECK)
    return HealthCheckResponse.FromString(reply.body).status if reply.code is grpc.StatusCode.OK else reply.code


async def test_health_follows_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "READY_EVERY_S", 0.1)
    serving_, not_serving = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
    async with world() as (server, guarded):
        for service in ("", "inference.GRPCInferenceService", "m"):
            assert await health(guarded, service) == serving_
        assert await health(guarded, "other") is grpc.StatusCode.NOT_FOUND
        assert guarded.app.runtime.ready
        call = guarded.channel.unary_stream(methods.HEALTH_WATCH)(HealthCheckRequest(service="m").SerializeToString())
        assert HealthCheckResponse.FromString(await call.read()).status == serving_
        unknown = guarded.channel.unary_stream(methods.HEALTH_WATCH)(
            HealthCheckRequest(service="x").SerializeToString()
        )
        assert HealthCheckResponse.FromString(await unknown.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
        server.ready = False
        assert HealthCheckResponse.FromString(await call.read()).status == not_serving
        await eventually(lambda: not guarded.app.runtime.ready)
        assert await health(guarded) == not_serving
        assert await health(guarded, OWN) == not_serving  # its one server
        assert guarded.count("guard_model_ready", model="m") == 0
        server.ready = True
        assert HealthCheckResponse.FromString(await call.read()).status == serving_
        call.cancel()
        unknown.cancel()


async def test_a_gateway_serves_while_one_of_its_servers_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not before one has, so that a rollout with a wrong address gets no further."""
    monkeypatch.setattr(probe, "READY_EVERY_S", 0.1)
    serving_, not_serving = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
    models = [{"name": "m"}, {"name": "away", "upstream": {"address": "127.0.0.1:1"}}]
    async with serving() as server, guarding(settings(server.address, models=models)) as guarded:
        told = {name: await health(guarded, name) for name in ("", "m", "away", OWN)}
        assert told == {"": not_serving, "m": serving_, "away": not_serving, OWN: serving_}
        assert (await guarded.unary(request())).code is grpc.StatusCode.OK
        server.ready = False
        await eventually(lambda: not guarded.app.runtime.serving)
        assert await health(guarded, OWN) == not_serving
        server.ready = True
        await eventually(lambda: guarded.app.runtime.serving)
        guarded.app.runtime.shared.draining = True
        assert await health(guarded, OWN) == not_serving
        guarded.app.runtime.shared.draining = False


async def test_a_probe_that_is_no_message_is_invalid() -> None:
    async with world() as (_, guarded):
        assert (await guarded.unary(b"\xff", methods.HEALTH_CHECK)).code is grpc.StatusCode.INVALID_ARGUMENT
        assert (await guarded.stream(b"\xff", path=methods.HEALTH_WATCH)).code is grpc.StatusCode.INVALID_ARGUMENT
        assert (await guarded.stream(path=methods.HEALTH_WATCH)).code is grpc.StatusCode.INVALID_ARGUMENT
        broken = await guarded.unary(b"\xff", SERVICE + "ModelReady")
        assert broken.code is grpc.StatusCode.INVALID_ARGUMENT


# --- the upstream is away, slow, or wrong


async def test_what_guard_fails_itself_is_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> Any:
        raise KeyError

    async with world() as (_, guarded):
        assert (await guarded.unary(request())).code is grpc.StatusCode.OK
        assert guarded.count("guard_internal_errors_total") == 0
        monkeypatch.setattr(Pipeline, "infer", broken)
        assert (await guarded.unary(request())).code is grpc.StatusCode.INTERNAL
        await eventually(lambda: guarded.count("guard_internal_errors_total") == 1)


async def test_an_upstream_that_is_away_is_unavailable_without_internals() -> None:
    async with guarding(settings("127.0.0.1:1")) as guarded:
        for path in (INFER, SERVICE + "ServerLive", SERVICE + "ModelMetadata"):
            reply = await guarded.unary(request(), path)
            assert (reply.code, reply.details) == (grpc.StatusCode.UNAVAILABLE, "upstream unavailable")
        assert not guarded.app.runtime.ready
        stream = await guarded.stream(request())
        assert (stream.code, stream.details) == (grpc.StatusCode.UNAVAILABLE, "upstream unavailable")


async def test_an_upstream_that_speaks_something_else_is_unavailable() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    other = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with other, guarding(settings(f"127.0.0.1:{other.sockets[0].getsockname()[1]}")) as guarded:
        reply = await guarded.unary(request())
        assert (reply.code, reply.details) == (grpc.StatusCode.UNAVAILABLE, "upstream unavailable")


async def test_an_upstream_that_comes_back_is_used_again() -> None:
    async with world() as (server, guarded):
        assert (await guarded.unary(request())).body
        await server.server.stop(None)
        assert (await guarded.unary(request())).code is grpc.StatusCode.UNAVAILABLE
        again = await start_server(server.address)
        try:
            async with asyncio.timeout(15):
                while (await guarded.unary(request())).code is not grpc.StatusCode.OK:
                    await asyncio.sleep(0.05)
        finally:
            await again.server.stop(None)


async def test_an_upstream_that_dies_under_a_call_is_unavailable() -> None:
    async with world() as (server, guarded):
        server.infer = Slow()
        call = asyncio.create_task(guarded.unary(request()))
        await eventually(lambda: server.calls())
        await server.server.stop(None)
        reply = await call
        assert (reply.code, reply.details) == (grpc.StatusCode.UNAVAILABLE, "upstream unavailable")


async def test_a_broken_connection_under_a_call_is_unavailable() -> None:
    async with serving() as server, tapped(server.address) as (address, _), guarding(settings(address)) as guarded:
        server.infer = Slow()
        call = asyncio.create_task(guarded.unary(request()))
        await eventually(lambda: server.calls())
        for task in asyncio.all_tasks():
            if "tapped" in repr(task.get_coro()):
                task.cancel()
        reply = await asyncio.wait_for(call, 15)
        assert (reply.code, reply.details) == (grpc.StatusCode.UNAVAILABLE, "upstream unavailable")


async def test_an_upstream_that_takes_too_long_is_told_so() -> None:
    async with serving() as server:
        changed = settings(server.address, upstream={"address": server.address, "timeout_s": 0.4})
        async with guarding(changed) as guarded:
            server.infer = Slow()
            reply = await guarded.unary(request())
            assert (reply.code, reply.details) == (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "the upstream did not answer in time",
            )
            await eventually(lambda: server.calls()[0].cancelled)


async def test_an_upstream_that_accepts_and_says_nothing_is_no_hang() -> None:
    silent = await asyncio.start_server(lambda r, w: asyncio.sleep(60), "127.0.0.1", 0)
    address = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    async with silent:
        changed = settings(address, upstream={"address": address, "timeout_s": 0.5})
        async with guarding(changed) as guarded:
            reply = await guarded.unary(request())
            assert reply.code in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}


async def test_models_have_upstreams_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "READY_EVERY_S", 0.1)
    async with serving() as first, serving() as second:
        models = [{"name": "m"}, {"name": "n", "upstream": {"address": second.address}}]
        async with guarding(settings(first.address, models=models)) as guarded:
            await guarded.unary(request(model="n"))
            await guarded.unary(pb.ModelMetadataRequest(name="n").SerializeToString(), SERVICE + "ModelConfig")
            assert len(second.calls()) == len(second.calls(SERVICE + "ModelConfig")) == 1
            assert not first.calls()
            assert pb.ServerReadyResponse.FromString((await guarded.unary(b"", SERVICE + "ServerReady")).body).ready
            await second.server.stop(None)
            await eventually(lambda: not guarded.app.runtime.upstreams_ready)
            assert not pb.ServerReadyResponse.FromString((await guarded.unary(b"", SERVICE + "ServerReady")).body).ready
