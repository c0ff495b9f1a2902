"""Something inside of Guard fails: a stage, the threads, the clock, the audit's disk, the settings."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from guard.proxy.app import App
from guard.settings import ConfigError
from tests.faults import stages
from tests.faults.matrix import WITHIN_S, Watch, codes, model, row, told
from tests.proxy.world import FLAGGED, Guarded, eventually, request, settings, world

FINDS = {"stage": "test_mean"}


def failing(how: str, on_error: str = "allow") -> dict[str, Any]:
    """A detector that fails so."""
    return {"stage": "test_faulty", "on_error": on_error, "options": {"how": how}}


def errors(guarded: Guarded) -> float:
    return guarded.count("guard_stage_errors_total", model="m", stage="test_faulty")


async def _detector(at: Path, how: str, on_error: str) -> str:
    end = {"allow": "OK", "deny": "PERMISSION_DENIED"}[on_error]
    async with world(models=[model(at, FINDS, failing(how, on_error))]) as (server, guarded):
        ends = await codes(guarded, 3)
        assert ends == {end: 3}
        assert errors(guarded) == 3
        assert len(server.calls()) == (3 if on_error == "allow" else 0)
        flagged = await guarded.unary(request(FLAGGED))
        assert flagged.code.name == "PERMISSION_DENIED", "the other stages still decide"
        assert "secret" not in flagged.details
        return f"{told(ends)}; `guard_stage_errors` 3; a flagged input is refused by the other detector"


def _detector_row(how: str, fault: str, on_error: str, expected: str) -> None:
    async def does(at: Path) -> str:
        return await _detector(at, how, on_error)

    does.__name__ = f"detector_{how}_{on_error}"
    row("stage", f"a detector {fault}", f"`on_error: {on_error}`", expected)(does)


for _how, _fault in (("raises", "raises"), ("nan", "returns NaN"), ("shape", "returns the wrong shape")):
    _detector_row(_how, _fault, "allow", "the others decide; counted")
    _detector_row(_how, _fault, "deny", "refused, never forwarded; counted")


async def _hangs(at: Path, choice: str) -> str:
    limits = {"inspection_timeout_s": 0.3, "on_inspection_timeout": choice, "drain_s": 0}
    end = {"allow": "OK", "deny": "PERMISSION_DENIED"}[choice]
    async with world(models=[model(at, failing("hangs"))], limits=limits) as (server, guarded):
        watch = Watch()
        ends = await codes(guarded, 1)
        took = watch.s
        assert ends == {end: 1}
        assert took < stages.HANG_S + WITHIN_S
        assert len(server.calls()) == (1 if choice == "allow" else 0)
        uninspected = guarded.count("guard_uninspected_total", model="m", reason="inspection_timeout")
        assert uninspected == (1 if choice == "allow" else 0)
        return f"{told(ends)}; `guard_uninspected` {uninspected:.0f}"


@row("stage", "a detector hangs", "`on_inspection_timeout: allow`", "forwarded after 0.3 s, counted as uninspected")
async def detector_hangs_allow(at: Path) -> str:
    return await _hangs(at, "allow")


@row("stage", "a detector hangs", "`on_inspection_timeout: deny`", "refused after 0.3 s, never forwarded")
async def detector_hangs_deny(at: Path) -> str:
    return await _hangs(at, "deny")


@row(
    "stage",
    "every detector's thread hangs at once",
    "`inspection_threads: 2`",
    "health answers all the while; calls end in time",
)
async def threads_hang(at: Path) -> str:
    limits = {"inspection_timeout_s": 0.3, "on_inspection_timeout": "deny", "drain_s": 0, "inspection_threads": 2}
    async with world(models=[model(at, failing("hangs"))], limits=limits) as (_, guarded):
        calls = [asyncio.ensure_future(guarded.unary(request())) for _ in range(8)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(WITHIN_S):
            live = await guarded.unary(b"", "/inference.GRPCInferenceService/ServerLive")
        async with asyncio.timeout(stages.HANG_S + 4 * WITHIN_S):
            ends = {end.code.name for end in await asyncio.gather(*calls)}
        assert live.code.name == "OK"
        assert ends == {"PERMISSION_DENIED"}
        return "ServerLive OK; 8 of 8 refused in time"


async def _purifier(at: Path, how: str, on_error: str) -> str:
    purifier = {"stage": "test_faulty", "when": "always", "on_error": on_error, "options": {"how": how}}
    end = {"allow": "OK", "deny": "PERMISSION_DENIED"}[on_error]
    async with world(models=[model(at, purifiers=[purifier])]) as (server, guarded):
        ends = await codes(guarded, 2)
        assert ends == {end: 2}
        assert errors(guarded) >= 2
        assert all(call.bodies == [request()] for call in server.calls()), (
            "what is not purified is forwarded as it came"
        )
        return f"{told(ends)}; `guard_stage_errors` {errors(guarded):.0f}"


@row("stage", "a purifier raises", "`on_error: allow`", "the input goes on unpurified; counted")
async def purifier_raises_allow(at: Path) -> str:
    return await _purifier(at, "raises", "allow")


@row("stage", "a purifier raises", "`on_error: deny`", "refused; counted")
async def purifier_raises_deny(at: Path) -> str:
    return await _purifier(at, "raises", "deny")


async def _output(at: Path, how: str, on_error: str) -> str:
    output = {"stage": "test_faulty", "when": "always", "on_error": on_error, "options": {"how": how}}
    end = {"allow": "OK", "deny": "PERMISSION_DENIED"}[on_error]
    async with world(models=[model(at, outputs=[output])]) as (_, guarded):
        ends = await codes(guarded, 2)
        assert ends == {end: 2}
        assert errors(guarded) >= 2
        return f"{told(ends)}; `guard_stage_errors` {errors(guarded):.0f}"


@row("stage", "an output protection returns NaN", "`on_error: allow`", "the answer leaves unprotected; counted")
async def output_nan_allow(at: Path) -> str:
    return await _output(at, "nan", "allow")


@row("stage", "an output protection returns NaN", "`on_error: deny`", "refused; counted")
async def output_nan_deny(at: Path) -> str:
    return await _output(at, "nan", "deny")


@row(
    "audit",
    "the disk is full (/dev/full)",
    "`audit.file`",
    "calls go on as before; `guard_audit_events` counts failures",
)
async def disk_full(at: Path) -> str:
    async with world(models=[model(at, FINDS)], audit={"file": "/dev/full"}) as (_, guarded):
        flagged = await codes(guarded, 5, request(FLAGGED))
        clean = await codes(guarded, 5)
        assert (flagged, clean) == ({"PERMISSION_DENIED": 5}, {"OK": 5})
        await eventually(lambda: guarded.count("guard_audit_events_total", outcome="failed") >= 5)
        return f"{told(flagged)}; {told(clean)}; all events counted as failed"


@contextlib.contextmanager
def shifted(by_s: float) -> Iterator[None]:
    """Guard's wall clock is off by so much; gRPC's own, by which the test's client sets deadlines, is not."""
    ahead = SimpleNamespace(**{**vars(time), "time": lambda: time.time() + by_s})
    readers = [m for name, m in tuple(sys.modules.items()) if name.startswith("guard.") and vars(m).get("time") is time]
    assert len(readers) > 5
    with contextlib.ExitStack() as stack:
        for module in readers:
            stack.enter_context(mock.patch.object(module, "time", ahead))
        yield


@row(
    "clock",
    "jumps by a year, and back by two",
    "a monitor and a detector enforce",
    "decisions as before; deadlines kept",
)
async def clock_jumps(at: Path) -> str:
    monitored = model(at, FINDS, monitors=[{"stage": "test_repeats"}])
    async with world(models=[monitored]) as (_, guarded):
        assert await codes(guarded, 1) == {"OK": 1}
        seen = []
        for years in (1, -1):
            with shifted(years * 365 * 86_400.0):
                watch = Watch()
                seen.append((await codes(guarded, 2, timeout=5), await codes(guarded, 2, request(FLAGGED), timeout=5)))
                assert watch.s < 4 * WITHIN_S
        assert seen == [({"OK": 2}, {"PERMISSION_DENIED": 2})] * 2, seen
        return "OK for clean, refused for flagged inputs, in the past and in the future"


@row(
    "settings",
    "a reload reads a file that is wrong",
    "SIGHUP",
    "the former settings stay; `guard_config_reloads` counts it",
)
async def broken_reload(at: Path) -> str:
    made = settings("127.0.0.1:1", models=[model(at, FINDS)])
    wrong = False

    def load() -> Any:
        if wrong:
            raise ConfigError("models", "is no list")
        return made

    app = await App.start(made, load, None)
    try:
        before = app.runtime
        wrong = True
        await app.reload()
        assert app.runtime is before
        refused = before.metrics._registry.get_sample_value("guard_config_reloads_total", {"result": "refused"})
        assert refused == 1
        wrong = False
        made = replace_longest(made)
        await app.reload()
        assert app.runtime is not before
        return "the former settings served on; the next good file was taken"
    finally:
        await app.drain()


def replace_longest(made: Any) -> Any:
    """The settings with another upstream timeout."""
    return made.model_copy(update={"upstream": made.upstream.model_copy(update={"timeout_s": 7.0})})


@row("load", "more calls than there are places", "`max_concurrent_calls: 2`, `max_queued_calls: 2`",
     "RESOURCE_EXHAUSTED at once for the rest; nothing uninspected")  # fmt: skip
async def overload(at: Path) -> str:
    held = asyncio.Event()

    async def infer(body: bytes, context: Any) -> bytes:
        await held.wait()
        return await server.plain(body, context)

    limits = {"max_concurrent_calls": 2, "max_queued_calls": 2, "drain_s": 0}
    async with world(models=[model(at, FINDS)], limits=limits) as (server, guarded):
        server.infer = infer
        calls = [asyncio.ensure_future(guarded.unary(request())) for _ in range(12)]
        await eventually(lambda: sum(call.done() for call in calls) >= 8)
        refused = [call.result().code.name for call in calls if call.done()]
        live = await guarded.unary(b"", "/inference.GRPCInferenceService/ServerLive")
        held.set()
        ends = [end.code.name for end in await asyncio.gather(*calls)]
        assert set(refused) == {"RESOURCE_EXHAUSTED"}
        assert live.code.name == "OK"
        assert ends.count("OK") == 4
        assert guarded.count("guard_rejected_calls_total", reason="overloaded") == 8
        return f"{len(refused)} of 12 RESOURCE_EXHAUSTED, 4 answered later, ServerLive OK meanwhile"
