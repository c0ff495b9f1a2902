"""The server behind fails: it is not there, silent, slow, cut off, restarted, or it says what it should not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from guard.wire import open_inference_pb2 as pb
from tests.faults.matrix import WITHIN_S, Watch, codes, model, row, told
from tests.proxy.world import (
    FLAGGED,
    METADATA,
    Guarded,
    Server,
    eventually,
    guarding,
    request,
    serving,
    settings,
    start_server,
    world,
)
from tests.servers.process import free_port
from tests.stores.relay import relayed

PART = "upstream"
FINDS = {"stage": "test_mean"}
GONE = {"UNAVAILABLE", "CANCELLED", "flagged UNAVAILABLE", "flagged CANCELLED"}  # a server that stops cancels


def port_of(server: Server) -> int:
    return int(server.address.rpartition(":")[2])


def never_uninspected(guarded: Guarded) -> None:
    """No call went past the inspection."""
    assert not guarded.count("guard_uninspected_total", model="m", reason="inspection_timeout")
    assert not guarded.count("guard_uninspected_total", model="m", reason="profile_mismatch")


@row(
    PART,
    "refuses connections, and comes back",
    "a model that enforces",
    "UNAVAILABLE at once; then calls are inspected",
)
async def refused(at: Path) -> str:
    address = f"127.0.0.1:{free_port()}"
    async with guarding(settings(address, models=[model(at, FINDS)])) as guarded:
        away = await codes(guarded, 3, timeout=5)
        assert set(away) == {"UNAVAILABLE"}
        server = await start_server(address)
        try:
            async with asyncio.timeout(30):
                while (back := await codes(guarded, 1)) != {"OK": 1}:
                    assert set(back) == {"UNAVAILABLE"}
                    await asyncio.sleep(0.1)
            assert await codes(guarded, 1, request(FLAGGED)) == {"PERMISSION_DENIED": 1}
        finally:
            await server.server.stop(None)
        never_uninspected(guarded)
        return f"{told(away)}; after it came back OK, and a flagged input refused"


@row(PART, "takes connections and says nothing", "`upstream.timeout_s: 0.5`", "DEADLINE_EXCEEDED within that time")
async def black_hole(at: Path) -> str:
    async with serving() as server, relayed(port_of(server)) as relay:
        made = settings(relay.address, models=[model(at, FINDS)], timeout_s=0.5)
        async with guarding(made) as guarded:
            assert await codes(guarded, 1) == {"OK": 1}
            relay.silent = True
            watch = Watch()
            ends = await codes(guarded, 2)
            took = watch.s / 2
            assert set(ends) == {"DEADLINE_EXCEEDED"}
            assert took < 0.5 + WITHIN_S
            relay.silent = False
            await eventually_well(guarded)
            return f"{told(ends)}; afterwards OK"


async def eventually_well(guarded: Guarded) -> None:
    """Calls are answered in the end."""
    async with asyncio.timeout(30):
        while await codes(guarded, 1, timeout=5) != {"OK": 1}:
            await asyncio.sleep(0.05)


@row(
    PART,
    "is slow",
    "caller's deadline 0.5 s",
    "DEADLINE_EXCEEDED at the caller's deadline; the call behind is cancelled",
)
async def slow(at: Path) -> str:
    async def late(body: bytes, context: Any) -> bytes:
        await asyncio.sleep(30)
        return body

    async with world({"infer": late}, models=[model(at, FINDS)]) as (server, guarded):
        ends = await codes(guarded, 2, timeout=0.5)
        assert set(ends) == {"DEADLINE_EXCEEDED"}
        await eventually(lambda: all(call.cancelled for call in server.calls()))
        await eventually(lambda: guarded.app.runtime.calls == 0)
        return f"{told(ends)}; nothing is left behind"


@row(
    PART,
    "the connection breaks in the middle of an answer",
    "defaults",
    "UNAVAILABLE, nothing of the half; then calls go on",
)
async def half_an_answer(at: Path) -> str:
    async def large(body: bytes, context: Any) -> bytes:
        answer = pb.ModelInferResponse.FromString(await plain(body, context))
        answer.id = "x" * 200_000
        return answer.SerializeToString()

    async with serving() as server, relayed(port_of(server)) as relay:
        plain = server.plain
        async with guarding(settings(relay.address, models=[model(at, FINDS)])) as guarded:
            assert await codes(guarded, 1) == {"OK": 1}
            server.infer, relay.cut_after = large, 100_000
            reply = await guarded.unary(request())
            assert reply.code.name == "UNAVAILABLE"
            assert not reply.bodies
            assert "127.0.0.1" not in reply.details
            relay.cut_after, server.infer = None, None
            await eventually_well(guarded)
            return f"{reply.code.name} ({reply.details}); afterwards OK"


def _wrong_shape(server: Server) -> Any:
    async def infer(body: bytes, context: Any) -> bytes:
        answer = pb.ModelInferResponse.FromString(await server.plain(body, context))
        del answer.outputs[0].shape[:]
        answer.outputs[0].shape.extend([1, 7])
        return answer.SerializeToString()

    return infer


async def _unreadable(at: Path, infer: Any, on_error: str) -> str:
    end = {"allow": "OK", "deny": "PERMISSION_DENIED"}[on_error]
    output = {"stage": "test_uniform", "when": "always", "on_error": on_error}
    async with world(models=[model(at, outputs=[output])]) as (server, guarded):
        server.infer = infer(server)
        ends = await codes(guarded, 2)
        assert ends == {end: 2}
        failed = guarded.count("guard_stage_errors_total", model="m", stage="test_uniform")
        assert failed == 2
        return f"{told(ends)}; `guard_stage_errors` {failed:.0f}"


def _garbage(_: Server) -> Any:
    async def infer(body: bytes, context: Any) -> bytes:
        return b"\xff\xff\xff\xff"

    return infer


@row(
    PART,
    "answers with a wrong shape",
    "an output protection, `on_error: deny`",
    "refused: what cannot be protected stays",
)
async def wrong_shape_deny(at: Path) -> str:
    return await _unreadable(at, _wrong_shape, "deny")


@row(PART, "answers with a wrong shape", "an output protection, `on_error: allow`", "leaves as it came; counted")
async def wrong_shape_allow(at: Path) -> str:
    return await _unreadable(at, _wrong_shape, "allow")


@row(PART, "answers with a wrong shape", "the model is in shadow", "the answer leaves as it came")
async def wrong_shape_in_shadow(at: Path) -> str:
    shadow = model(at, mode="shadow", outputs=[{"stage": "test_uniform", "when": "always"}])
    async with world(models=[shadow]) as (server, guarded):
        server.infer = _wrong_shape(server)
        reply = await guarded.unary(request())
        assert reply.body == await server.infer(request(), None)
        return "OK, byte for byte"


@row(PART, "answers with bytes that are no message", "an output protection, `on_error: deny`", "refused; counted")
async def garbage_deny(at: Path) -> str:
    return await _unreadable(at, _garbage, "deny")


@row(
    PART,
    "answers with bytes that are no message",
    "an output protection, `on_error: allow`",
    "leaves as it came; counted",
)
async def garbage_allow(at: Path) -> str:
    return await _unreadable(at, _garbage, "allow")


@row(
    PART,
    "restarts under load",
    "a model that enforces",
    "calls fail meanwhile; every other one is answered or refused as before",
)
async def restarts(at: Path) -> str:
    server = await start_server()
    async with guarding(settings(server.address, models=[model(at, FINDS)])) as guarded:
        ends: list[str] = []
        stop = asyncio.Event()

        async def load() -> None:
            while not stop.is_set():
                clean, flagged = await guarded.unary(request()), await guarded.unary(request(FLAGGED))
                ends.extend((clean.code.name, f"flagged {flagged.code.name}"))
                await asyncio.sleep(0.002)

        loads = [asyncio.ensure_future(load()) for _ in range(4)]
        await eventually(lambda: len(ends) > 100)
        await server.server.stop(None)
        await eventually(lambda: any(end in GONE for end in ends))
        again = await start_server(server.address)
        try:
            before = ends.count("OK")
            await eventually(lambda: ends.count("OK") > before + 50, 30)
            stop.set()
            await asyncio.gather(*loads)
        finally:
            await again.server.stop(None)
        assert set(ends) <= {"OK", "flagged PERMISSION_DENIED"} | GONE, set(ends)
        never_uninspected(guarded)
        return f"{sum(end in GONE for end in ends)} of {len(ends)} failed meanwhile; no flagged input was answered"


@contextlib.asynccontextmanager
async def other_model(at: Path, choice: str) -> AsyncIterator[tuple[Guarded, Server, str]]:
    """Guard behind which another model came; and how a flagged input ends now."""
    async with world(models=[model(at, FINDS, on_profile_mismatch=choice)]) as (server, guarded):
        assert await codes(guarded, 1, request(FLAGGED)) == {"PERMISSION_DENIED": 1}
        await server.server.stop(None)
        inputs = (replace(METADATA.inputs[0], datatype="FP64"),)
        again = await start_server(server.address, metadata=replace(METADATA, inputs=inputs))
        try:
            async with asyncio.timeout(30):
                while not guarded.count("guard_profile_mismatch", model="m"):
                    await guarded.unary(request(FLAGGED), timeout=5)
                    await asyncio.sleep(0.05)
            yield guarded, again, (await guarded.unary(request(FLAGGED))).code.name
        finally:
            await again.server.stop(None)


@row(PART, "another model is served under the name", "`on_profile_mismatch: deny`", "UNAVAILABLE; the gauge alarms")
async def other_model_deny(at: Path) -> str:
    async with other_model(at, "deny") as (guarded, server, end):
        assert end == "UNAVAILABLE"
        assert not [call for call in server.calls() if call.bodies == [request(FLAGGED)]]
        assert guarded.count("guard_rejected_calls_total", reason="profile_mismatch")
        return "UNAVAILABLE, `guard_profile_mismatch` 1, `guard_rejected_calls` counts them"


@row(
    PART,
    "another model is served under the name",
    "`on_profile_mismatch: allow`",
    "uninspected, counted; the gauge alarms",
)
async def other_model_allow(at: Path) -> str:
    async with other_model(at, "allow") as (guarded, _, end):
        assert end == "OK"
        assert guarded.count("guard_uninspected_total", model="m", reason="profile_mismatch")
        return "OK, `guard_profile_mismatch` 1, `guard_uninspected` counts them"
