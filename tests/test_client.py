"""The typed client against a real listener; it is synchronous, so it runs in a thread beside the server's loop."""

import asyncio
import contextlib
import datetime as dt
import subprocess
import sys
import threading
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from guard import client, registry
from guard.audit import Event
from guard.client import BadInput, GuardClient, GuardError, NoProfile, UnknownModel, WrongToken
from guard.types import Action, Finding, Mode
from tests.core.helpers import STAGES
from tests.proxy.admin import BAD, GOOD, TOKEN, FakeModel, Y, serving

PURIFY = {"purifiers": [{"stage": "test_halve"}], "policy": {"on_input": "purify"}}
EVENT = Event(1_700_000_000.25, "d1", "peer:1", "m", "", Action.DENY, Action.DENY, enforced=True)


@pytest.fixture
async def guard(tmp_path, monkeypatch):
    """A Guard with several models, and a client: `await guard(method, ...)` runs it in a thread."""
    monkeypatch.setattr(registry, "_stages", registry._stages | STAGES)
    models = {
        "m": FakeModel.of(detectors=[{"stage": "test_mean"}], **PURIFY),
        "views": FakeModel.of(detectors=[{"stage": "test_views"}]),
        "shadow": FakeModel.of(mode="shadow", monitors=[{"stage": "test_overlap"}]),
        "outputs": FakeModel.of(outputs=[{"stage": "test_uniform", "when": "always"}]),
        "bare": replace(FakeModel.of(), engine=None, profile=None, ready=False, reason="no answer"),
    }
    async with serving(tmp_path / "audit", **models) as (runtime, address):
        with GuardClient(address, TOKEN) as connected:

            async def call(method, *args, **options):
                return await asyncio.to_thread(getattr(connected, method), *args, **options)

            call.runtime, call.address, call.client = runtime, address, connected
            yield call


async def test_inspect_allows(guard):
    verdict = await guard("inspect", "m", GOOD, caller="alice")
    assert verdict.action is verdict.would_be is Action.ALLOW
    assert (verdict.purified, verdict.answer, verdict.views) == (None, None, ())
    finding = verdict.findings[0]
    assert isinstance(finding, Finding)
    assert (finding.stage, finding.kind, finding.mode, finding.error) == ("test_mean", "detector", Mode.ENFORCE, None)
    assert not finding.fired


async def test_inspect_purifies(guard):
    verdict = await guard("inspect", "m", BAD)
    assert verdict.action is Action.PURIFY
    assert verdict.findings[0].fired
    np.testing.assert_allclose(verdict.purified, BAD / 2, rtol=1e-6)
    assert verdict.purified.dtype == np.float32


async def test_inspect_with_answers_on_views(guard):
    first = await guard("inspect", "views", GOOD)
    assert len(first.views) == 1
    far = [np.array([[0.9, 0.1, 0.0]], np.float32)]
    second = await guard("inspect", "views", GOOD, answer=Y, view_answers=far)
    assert (second.action, second.views) == (Action.DENY, ())


async def test_inspect_protects_an_answer(guard):
    verdict = await guard("inspect", "outputs", GOOD, answer=Y)
    np.testing.assert_allclose(verdict.answer, np.full((1, 3), 1 / 3), rtol=1e-6)


async def test_inspect_remembers_when_asked(guard):
    await guard("inspect", "shadow", GOOD, caller="alice")
    assert guard.runtime.store.entries == 0
    await guard("inspect", "shadow", GOOD, caller="alice", remember=True)
    assert guard.runtime.store.entries == 1


async def test_a_datatype_that_numpy_lacks(guard):
    with pytest.raises(BadInput, match="datatype FP32"):
        await guard("inspect", "m", GOOD, datatype="BF16")
    with pytest.raises(ValueError, match="no datatype"):
        await guard("inspect", "m", GOOD.astype(np.complex64))


async def test_errors_are_typed(guard):
    with pytest.raises(UnknownModel):
        await guard("inspect", "nothing", GOOD)
    with pytest.raises(NoProfile):
        await guard("inspect", "bare", GOOD)
    with pytest.raises(BadInput, match="outside") as error:
        await guard("inspect", "m", GOOD + 7)
    assert (error.value.code, isinstance(error.value, GuardError)) == ("INVALID_ARGUMENT", True)


async def test_the_wrong_token(guard):
    with GuardClient(guard.address, "wrong") as other:
        for call in (other.status, lambda: other.inspect("m", GOOD), other.watch):
            with pytest.raises(WrongToken):
                await asyncio.to_thread(call)


async def test_nobody_listens():
    with GuardClient("127.0.0.1:1", TOKEN) as nobody:
        for call in (nobody.status, nobody.watch):
            with pytest.raises(GuardError, match="UNAVAILABLE"):
                await asyncio.to_thread(call)


async def test_status(guard):
    status = await guard("status")
    assert status.version
    assert len(status.config_digest) == 16
    assert abs(status.started - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=5)
    models = {model.name: model for model in status.models}
    assert set(models) == {"m", "views", "shadow", "outputs", "bare"}
    assert (models["bare"].ready, models["bare"].reason, models["bare"].stages) == (False, "no answer", ())
    stages = {stage.name: stage for stage in models["m"].stages}
    assert (stages["test_mean"].kind, stages["test_mean"].calibration_size) == ("detector", 99)
    assert (stages["test_halve"].kind, stages["test_halve"].threshold) == ("purifier", 0.0)
    assert models["shadow"].mode is models["shadow"].stages[0].mode is Mode.SHADOW


async def test_watch(guard):
    watched = await guard("watch", "m")
    finding = Finding("s", "output", Mode.ENFORCE, error="ValueError")
    guard.runtime.watchers.publish(replace(EVENT, decision_id="other", model="views"))
    guard.runtime.watchers.publish(replace(EVENT, findings=(finding,), would_be=Action.DEGRADE))
    seen = await asyncio.to_thread(next, watched)
    assert seen.time == dt.datetime.fromtimestamp(EVENT.time_unix, dt.UTC)
    assert (seen.decision_id, seen.model, seen.caller, seen.lost) == ("d1", "m", "peer:1", 0)
    assert (seen.action, seen.would_be, seen.findings) == (Action.DENY, Action.DEGRADE, (finding,))


async def test_watch_without_the_allowed(guard):
    watched = await guard("watch", only_non_allowed=True)
    guard.runtime.watchers.publish(replace(EVENT, action=Action.ALLOW, would_be=Action.ALLOW))
    guard.runtime.watchers.publish(replace(EVENT, decision_id="d2"))
    assert (await asyncio.to_thread(next, watched)).decision_id == "d2"


async def test_watch_ends_with_guard(guard):
    watched = await guard("watch")
    guard.runtime.watchers.publish(EVENT)
    guard.runtime.watchers.close()
    assert [seen.decision_id for seen in await asyncio.to_thread(list, watched)] == ["d1"]


async def no_readers(guard) -> bool:
    for _ in range(500):
        if not guard.runtime.watchers._readers:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_closing_the_iterator_stops_the_watch(guard):
    watched = await guard("watch")
    guard.runtime.watchers.publish(EVENT)
    with contextlib.closing(watched):
        await asyncio.to_thread(next, watched)
    assert await no_readers(guard)


async def test_an_iterator_that_was_never_read_stops_too(guard):
    watched = await guard("watch")
    watched.close()
    assert await no_readers(guard)


async def test_closing_the_client_wakes_who_waits(guard):
    watched = await guard("watch")
    failed = threading.Event()

    def wait() -> None:
        with contextlib.suppress(GuardError):
            next(watched)
        failed.set()

    waiting = asyncio.create_task(asyncio.to_thread(wait))
    guard.client.close()
    await waiting
    assert failed.is_set()


def test_no_protobuf_on_the_surface():
    public = [value for name, value in vars(client).items() if is_dataclass(value) and not name.startswith("_")]
    assert len(public) >= 5
    for kind in public:
        assert kind.__dataclass_params__.frozen
        assert not any("pb" in str(field.type) or "_pb2" in str(field.type) for field in fields(kind))


def test_needs_no_server_side():
    code = "import sys, guard.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "guard.client" in loaded
    assert not {"onnxruntime", "torch", "cv2", "prometheus_client", "yaml", "jwt", "guard.settings"} & set(loaded)
