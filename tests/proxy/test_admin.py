"""Operators' listeners of a whole, running Guard: what they show is what the proxy does."""

import asyncio
import contextlib
import json
from functools import partial
from typing import Any

import grpc
import pytest
from grpc import aio

from guard.client import GuardClient, NoProfile
from guard.proxy.app import App
from guard.settings import ConfigError
from guard.types import Action, Mode, TensorSpec
from tests.proxy.test_admin_http import exchange
from tests.proxy.world import (
    CLEAN,
    FLAGGED,
    METADATA,
    SQUEEZED,
    Guarded,
    answer,
    eventually,
    guarding,
    profile,
    request,
    serving,
    settings,
)

pytestmark = pytest.mark.usefixtures("world_stages")

TOKEN = "the-admin-token"
ADMIN = {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0"}


@contextlib.asynccontextmanager
async def guarded_world(tmp_path, server: dict[str, Any] | None = None, token: str | None = TOKEN, **model: Any):
    """A server, a Guard with its operators' listeners, and a client of Guard's own API, run in threads."""
    model = {"name": "m", "profile": profile(tmp_path / "profile"), "mode": "enforce", **model}
    async with serving(**(server or {})) as upstream:
        made = settings(
            upstream.address, admin=ADMIN, models=[model], audit={"file": str(tmp_path / "audit")}, **IDENTITY
        )
        async with guarding(made, token=token) as guarded:
            yield upstream, guarded


IDENTITY = {"identity": {"chain": [{"kind": "api_key"}, {"kind": "peer"}]}}
MEAN = [{"stage": "test_mean"}]
KEY = (("x-api-key", "one"),)


@contextlib.asynccontextmanager
async def connected(guarded: Guarded):
    with GuardClient(guarded.app.admin["grpc"], TOKEN) as client:

        async def call(method: str, *args: Any, **options: Any) -> Any:
            return await asyncio.to_thread(getattr(client, method), *args, **options)

        yield call


async def page(guarded: Guarded, path: str, token: str = "") -> tuple[int, bytes]:
    head = f"GET {path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n"
    top, _, body = (await exchange(guarded.app.admin["http"], head.encode())).partition(b"\r\n\r\n")
    return int(top.split()[1]), body


def recorded(tmp_path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]


async def test_a_denied_query_is_watched_recorded_and_counted_alike(tmp_path):
    async with guarded_world(tmp_path, detectors=MEAN) as (upstream, guarded), connected(guarded) as client:
        watched = await client("watch", "m", only_non_allowed=True)
        await guarded.unary(request(CLEAN), metadata=KEY)
        refused = await guarded.unary(request(FLAGGED), metadata=KEY)
        assert refused.code is grpc.StatusCode.PERMISSION_DENIED
        seen = await asyncio.to_thread(next, watched)
        assert seen.decision_id == refused.trailing["guard-decision-id"]
        assert (seen.action, seen.model) == (Action.DENY, "m")
        assert seen.caller.startswith("key:")
        assert [f.stage for f in seen.findings if f.fired] == ["test_mean"]
        assert guarded.count("guard_decisions_total", model="m", action="deny", would_be="deny") == 1.0
        assert guarded.count("guard_identities_total", source="api_key") == 2.0
        assert len(upstream.calls()) == 1
    (event,) = recorded(tmp_path)
    assert (event["decision_id"], event["caller"]) == (seen.decision_id, seen.caller)
    assert event["atlas_techniques"] == ["AML.T0015"]


async def test_inspect_judges_as_the_proxy_does_and_forwards_nothing(tmp_path):
    async with guarded_world(tmp_path, detectors=MEAN) as (upstream, guarded), connected(guarded) as client:
        await eventually(lambda: guarded.app.runtime.ready)
        assert (await client("inspect", "m", CLEAN)).action is Action.ALLOW
        assert (await client("inspect", "m", FLAGGED)).action is Action.DENY
        assert upstream.calls() == []


@pytest.mark.parametrize(("x", "action"), [(SQUEEZED, Action.DENY), (SQUEEZED * 0.1, Action.ALLOW)])
async def test_views_decide_as_they_do_in_the_proxy(tmp_path, x, action):
    detectors = [{"stage": "test_views"}]
    async with guarded_world(tmp_path, detectors=detectors) as (_, guarded), connected(guarded) as client:
        served = (await guarded.unary(request(x))).code is grpc.StatusCode.OK
        first = await client("inspect", "m", x)
        views = [answer(view) for view in first.views]
        verdict = await client("inspect", "m", x, answer=answer(x), view_answers=views)
        assert (verdict.action, served) == (action, action is Action.ALLOW)
        assert [(f.stage, f.error) for f in verdict.findings] == [("test_views", None)]


async def test_inspect_and_the_proxy_share_one_history(tmp_path):
    monitors = [{"stage": "test_repeats"}]
    async with guarded_world(tmp_path, monitors=monitors) as (_, guarded), connected(guarded) as client:
        await guarded.unary(request(CLEAN), metadata=KEY)
        finding = (await client("inspect", "m", CLEAN)).findings[0]
        assert finding.scores[0] > 0


async def test_status_of_a_running_guard(tmp_path):
    async with (
        guarded_world(tmp_path, detectors=MEAN, mode="shadow") as (upstream, guarded),
        connected(guarded) as client,
    ):
        await eventually(lambda: guarded.app.runtime.ready)
        status = await client("status")
        (model,) = status.models
        assert (model.name, model.ready, model.reason, model.mode) == ("m", True, "", Mode.SHADOW)
        assert upstream.address in model.upstream
        assert len(model.profile_digest) == 64
        assert [(s.name, s.mode, s.calibration_size) for s in model.stages] == [("test_mean", Mode.SHADOW, 1000)]
        assert json.loads((await page(guarded, "/config", TOKEN))[1])["digest"] == status.config_digest


async def test_a_profile_for_another_model(tmp_path):
    other = {"metadata": METADATA.__class__("m", ("1",), "test", METADATA.inputs, (TensorSpec("y", "FP32", (-1, 9)),))}
    async with guarded_world(tmp_path, other, detectors=MEAN) as (_, guarded), connected(guarded) as client:
        await guarded.unary(request(CLEAN))
        with pytest.raises(NoProfile, match="another model"):
            await client("inspect", "m", CLEAN)
        (model,) = (await client("status")).models
        assert "another model" in model.reason


async def test_readiness_follows_the_upstream(tmp_path):
    async with guarded_world(tmp_path, {"ready": False}) as (upstream, guarded):
        assert await page(guarded, "/readyz") == (503, b"not ready\n")
        assert await page(guarded, "/healthz") == (200, b"ok\n")
        upstream.ready = True
        async with asyncio.timeout(20):
            while (await page(guarded, "/readyz"))[0] != 200:
                await asyncio.sleep(0.1)


async def test_metrics_of_a_running_guard(tmp_path):
    async with guarded_world(tmp_path, detectors=MEAN) as (_, guarded):
        await guarded.unary(request(FLAGGED))
        text = (await page(guarded, "/metrics"))[1].decode()
        assert 'guard_decisions_total{action="deny",model="m",would_be="deny"} 1.0' in text
        assert 'guard_info{config_digest="' in text
        assert 'guard_model_ready{model="m"} 1.0' in text
        assert 'grpc_code="PERMISSION_DENIED"' in text
        assert "api_key" not in text.replace('source="api_key"', "")


async def test_a_failing_stage_is_counted_alike(tmp_path):
    broken = [{"stage": "test_mean", "options": {"broken": True}}]
    made = profile(tmp_path / "broken", broken=True)
    async with guarded_world(tmp_path, detectors=broken, profile=made) as (_, guarded), connected(guarded) as client:
        await guarded.unary(request(CLEAN))
        verdict = await client("inspect", "m", CLEAN, remember=True)
        assert verdict.findings[0].error == "RuntimeError"
        assert guarded.count("guard_stage_errors_total", model="m", stage="test_mean") == 2.0


async def test_without_a_token_the_api_is_not_served(tmp_path):
    async with guarded_world(tmp_path, token=None) as (_, guarded):
        assert set(guarded.app.admin) == {"http"}
        assert (await page(guarded, "/config", TOKEN))[0] == 403


async def test_a_reload_changes_what_is_shown(tmp_path):
    async with serving() as upstream:
        build = partial(settings, upstream.address, admin=ADMIN)
        current = [build()]
        app = await App.start(current[0], lambda: current[0], TOKEN)
        guarded = Guarded(app, aio.insecure_channel(app.address))
        try:
            async with connected(guarded) as client:
                watched = await client("watch")
                before = await client("status")
                current[0] = build(models=[{"name": "m"}, {"name": "n"}])
                assert await app.reload()
                after = await client("status")
                assert [model.name for model in after.models] == ["m", "n"]
                assert before.config_digest != after.config_digest
                assert before.started == after.started
                watched.close()
        finally:
            await guarded.channel.close()
            await app.drain()


async def test_draining_ends_watches(tmp_path):
    async with guarded_world(tmp_path) as (_, guarded), connected(guarded) as client:
        watched = await client("watch")
        ending = asyncio.create_task(asyncio.to_thread(list, watched))
        await guarded.app.drain()
        assert await asyncio.wait_for(ending, 20) == []


@pytest.mark.parametrize("name", ["http", "grpc"])
async def test_an_admin_port_that_is_taken_ends_the_start(name):
    async with serving() as upstream, guarding(settings(upstream.address, admin=ADMIN), token=TOKEN) as first:
        taken = settings(upstream.address, admin={**ADMIN, name: first.app.admin[name]})
        with pytest.raises(ConfigError, match=rf"admin\.{name}"):
            await App.start(taken, lambda: taken, TOKEN)
