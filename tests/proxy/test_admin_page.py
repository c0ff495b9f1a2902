"""The page of a running Guard over HTTP: what is said without the token, sessions, headers, what is shown, pictures."""

import asyncio
import json
import re
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import aio

import guard
from guard import config
from guard.client import GuardClient, GuardError
from guard.lately import merged
from guard.metrics import Metrics
from guard.profile import Space
from guard.proxy import admin_http, admin_page
from guard.proxy import overview as overview_module
from guard.proxy.admin_page import CONTENT_SECURITY_POLICY, AdminPage
from guard.proxy.app import page_of
from guard.proxy.door import TRIES, Door
from guard.proxy.overview import Away, Overview, Workers
from guard.types import ModelMetadata, TensorSpec
from guard.wire.guard.v1 import guard_pb2 as pb
from tests.proxy.test_admin import IDENTITY, KEY, MEAN, TOKEN, guarded_world
from tests.proxy.test_admin_http import get
from tests.proxy.world import CLEAN, FLAGGED, Guarded, eventually, guarding, profile, request, serving, settings

pytestmark = pytest.mark.usefixtures("world_stages")

ID = "0123456789abcdef0123456789abcdef"
OPEN = {"/metrics", "/healthz", "/readyz"}
FILES = {"/", "/page.js", "/charts.js", "/page.css", "/icon.svg"}
BEHIND = {"/config", "/overview", f"/pictures/{ID}/0"}
MISSING = {"/nothing", "/page.html", "/static/page.js", "/pictures", "/pictures/", f"/pictures/{ID}"}
MISSING |= {f"/pictures/{ID}/x", "/pictures/../0/0", "/overview/", "//overview", "/session/", "/page.js/.."}
RIGHT = f"Authorization: Bearer {TOKEN}"


def at(guarded: Guarded) -> SimpleNamespace:
    return SimpleNamespace(address=guarded.app.admin["http"])


async def signed_in(state: SimpleNamespace) -> str:
    status, headers, body = await get(state, "/session", RIGHT, "Content-Length: 0", method="POST")
    assert (status, headers["content-type"]) == (200, "application/json")
    return f"Authorization: Bearer {json.loads(body)['session']}"


async def overview(state: SimpleNamespace, header: str = RIGHT) -> dict[str, Any]:
    status, _, body = await get(state, "/overview", header)
    assert status == 200, body
    return json.loads(body)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
async def test_nothing_is_said_without_the_token(tmp_path, method):
    """Beyond health and metrics: files that are the same for everybody, and that there is nothing to see."""
    async with guarded_world(tmp_path, detectors=MEAN) as (upstream, guarded):
        await guarded.unary(request(FLAGGED), metadata=KEY)
        event = (await overview(at(guarded)))["decisions"][0]
        secret = (TOKEN, event["caller"], event["decision_id"], guard.__version__, upstream.address, "test_mean")
        for path in sorted({*FILES, *BEHIND, *MISSING, "/session", f"/pictures/{event['decision_id']}/0"}):
            status, headers, body = await get(at(guarded), path, method=method)
            assert not any(word.encode() in body for word in secret), path
            asked = method in {"GET", "HEAD"}
            if path in FILES:
                assert status == (200 if asked else 405)
            elif path in MISSING:
                assert status == 404
            elif path == "/session":
                assert status == {"POST": 401, "DELETE": 204}.get(method, 405)
            else:
                assert status == (401 if asked else 405), path
            assert "set-cookie" not in headers
        for path in OPEN:
            assert (await get(at(guarded), path, method=method))[0] == (200 if asked else 405)


async def test_files_are_what_is_shipped(tmp_path):
    folder = Path(admin_page.__file__).parent / "static"
    async with guarded_world(tmp_path) as (_, guarded):
        served = {path: (await get(at(guarded), path))[2] for path in FILES}
    assert served.pop("/") == (folder / "page.html").read_bytes()
    assert served == {f"/{file.name}": file.read_bytes() for file in folder.iterdir() if file.name != "page.html"}


async def test_every_answer_forbids_what_it_does_not_need(tmp_path):
    async with guarded_world(tmp_path) as (_, guarded):
        for path in (*OPEN, *FILES, *BEHIND, "/nothing", "/session"):
            for header in ("X: y", RIGHT):
                _, headers, _ = await get(at(guarded), path, header)
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["x-frame-options"] == "DENY"
                assert headers["referrer-policy"] == "no-referrer"
                assert headers["cache-control"] == "no-store"
                policy = headers["content-security-policy"]
                assert policy.startswith("default-src 'none'; ")
                assert "frame-ancestors 'none'" in policy
                assert not re.search(r"unsafe|data:|blob:|https?:|\*", policy)
        assert (await get(at(guarded), "/"))[1]["content-security-policy"] == CONTENT_SECURITY_POLICY


def test_the_files_have_nothing_inline_and_nothing_from_elsewhere():
    folder = Path(admin_page.__file__).parent / "static"
    page = (folder / "page.html").read_text()
    assert re.findall(r"<script[^>]*>", page) == ['<script type="module" src="/page.js">']
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    for file in folder.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|innerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), file
        assert len(text) < 40_000


async def test_a_session_looks_and_ends(tmp_path):
    async with guarded_world(tmp_path) as (_, guarded):
        session = await signed_in(at(guarded))
        assert TOKEN not in session
        assert (await overview(at(guarded), session))["models"][0]["name"] == "m"
        assert (await get(at(guarded), "/config", session))[0] == 401, "the page is all that it opens"
        assert (await get(at(guarded), "/session", session, method="POST"))[0] == 401
        given = session.removeprefix("Authorization: Bearer ")
        with GuardClient(guarded.app.admin["grpc"], given) as client, pytest.raises(GuardError, match="token"):
            await asyncio.to_thread(client.status)
        assert (await get(at(guarded), "/session", session, method="DELETE"))[0] == 204
        assert (await get(at(guarded), "/overview", session))[0] == 401


async def test_wrong_tries_are_few_on_each_listener_by_itself(tmp_path):
    async with guarded_world(tmp_path) as (_, guarded), aio.insecure_channel(guarded.app.admin["grpc"]) as channel:
        session = await signed_in(at(guarded))
        status = channel.unary_unary("/guard.v1.GuardService/Status")

        async def ask(token: str) -> grpc.StatusCode:
            try:
                await status(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=20)
            except aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        for path in ("/overview", "/config") * (TRIES // 2):
            assert (await get(at(guarded), path, "Authorization: Bearer wrong"))[0] == 401
        refused = await get(at(guarded), "/session", RIGHT, method="POST")
        assert refused[0] == 429
        assert int(refused[1]["retry-after"]) >= 1
        assert (await get(at(guarded), "/overview", session))[0] == 200
        assert await ask(TOKEN) is grpc.StatusCode.OK
        codes = [await ask("wrong") for _ in range(TRIES + 2)]
        assert codes[:TRIES] == [grpc.StatusCode.UNAUTHENTICATED] * TRIES
        assert codes[-1] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await ask(TOKEN) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert guarded.count("guard_admin_refused_total", reason="wrong") >= 2 * TRIES
        assert guarded.count("guard_admin_refused_total", reason="too_many") >= 3


async def test_without_a_token_there_is_nothing_to_see(tmp_path):
    async with guarded_world(tmp_path, token=None) as (_, guarded):
        for path in BEHIND:
            assert (await get(at(guarded), path, "Authorization: Bearer "))[0] == 403
        status, _, body = await get(at(guarded), "/session", RIGHT, method="POST")
        assert (status, b"no admin token is set" in body) == (403, True)


async def test_a_page_that_is_not_wanted(tmp_path):
    door = Door(TOKEN, lambda _: None)
    made = config.validate({"upstream": {"address": "127.0.0.1:1"}, "admin": {"page": False}})
    runtime = SimpleNamespace(settings=made, metrics=Metrics())
    site = page_of(door, Told(), lambda: runtime)
    listener = await admin_http.start(lambda: runtime, "127.0.0.1:0", door, site)
    for path in (*FILES, "/overview", "/session"):
        assert (await get(listener, path, RIGHT))[0] == 404
    assert (await get(listener, "/config", RIGHT))[0] == 200
    await listener.close()


# --- what is shown


async def test_what_the_proxy_does_is_shown(tmp_path):
    async with guarded_world(tmp_path, detectors=MEAN, monitors=[{"stage": "test_repeats"}]) as (upstream, guarded):
        await eventually(lambda: guarded.app.runtime.ready)
        await guarded.unary(request(CLEAN), metadata=KEY)
        refused = await guarded.unary(request(FLAGGED), metadata=KEY)
        shown = await overview(at(guarded))
    assert shown["ready"] is True
    assert shown["version"] == guard.__version__
    (model,) = shown["models"]
    assert (model["name"], model["mode"], model["ready"]) == ("m", "enforce", True)
    assert upstream.address in model["upstream"]
    assert [stage["name"] for stage in model["stages"]] == ["test_mean", "test_repeats"]
    (decision,) = shown["decisions"]
    assert decision["decision_id"] == refused.trailing["guard-decision-id"]
    assert (decision["action"], decision["pictures"]) == ("deny", [])
    assert decision["findings"][0]["stage"] == "test_mean"
    counts = shown["counts"]
    assert counts["calls"] == {"OK": 1.0, "PERMISSION_DENIED": 1.0}
    assert {(one["action"], one["count"]) for one in counts["decisions"]} == {("allow", 1.0), ("deny", 1.0)}
    assert counts["inspected"] == 2.0
    assert counts["store_away"] is False
    assert [point[1:] for point in shown["traffic"]["points"]][-1] == [2.0, 1.0, 1.0]


async def test_who_is_forgiven_is_gone_from_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(overview_module, "FRESH_S", 0.0)
    repeats = [{"stage": "test_agreement"}]
    async with guarded_world(tmp_path, monitors=repeats, mode="shadow") as (_, guarded):
        for i in range(6):
            await guarded.unary(request(CLEAN + i / 100), metadata=KEY)
        (caller,) = (await overview(at(guarded)))["callers"]
        assert caller["level"] == "watch"
        with GuardClient(guarded.app.admin["grpc"], TOKEN) as client:
            assert await asyncio.to_thread(client.forgive, "m", caller["caller"])
        assert (await overview(at(guarded)))["callers"] == []


class Told:
    """A source that says this."""

    def __init__(self, **lately: Any) -> None:
        self.asked = 0
        self.away = False
        self.noticed = {**merged([], 1, 1), "known": [], **lately}
        self.answer = pb.StatusResponse(version="9")

    async def status(self) -> pb.StatusResponse:
        self.asked += 1
        if self.away:
            raise Away
        return self.answer

    async def lately(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.noticed))


def shower(source: Any, **settings: Any) -> tuple[AdminPage, Door]:
    made = config.validate({"upstream": {"address": "127.0.0.1:1"}, **settings})
    metrics, door = Metrics(), Door(TOKEN, lambda _: None)
    return AdminPage(door, Overview(source, lambda: made, lambda: metrics, lambda: True), lambda: made.quarantine), door


def asking(path: str) -> admin_http.Request:
    return admin_http.Request("GET", path, {"authorization": f"Bearer {TOKEN}"})


async def test_many_who_look_cost_as_one():
    source = Told()
    page, _ = shower(source)
    answers = await asyncio.gather(*(page.answer(asking("/overview")) for _ in range(20)))
    assert len({answer.body for answer in answers}) == 1
    assert source.asked == 1


async def test_nobody_answers_who_could_tell():
    source = Told()
    source.away = True
    page, _ = shower(source)
    answer = await page.answer(asking("/overview"))
    assert (answer.status, answer.body) == (503, b"no worker answers\n")


async def test_traffic_is_noted_and_bounded(monkeypatch):
    monkeypatch.setattr(overview_module, "EVERY_S", 0.0)
    page, _ = shower(Told())
    running = asyncio.create_task(page.run())
    async with asyncio.timeout(60):
        while len(page._overview._traffic) < 5:
            await asyncio.sleep(0.01)
    running.cancel()
    assert page._overview._traffic.maxlen == overview_module.KEPT
    points = json.loads((await page.answer(asking("/overview"))).body)["traffic"]["points"]
    assert len(points) >= 6
    assert points == sorted(points)


class Link:
    """A worker."""

    def __init__(self, told: Told, code: grpc.StatusCode | None = None) -> None:
        self.told, self.code = told, code
        self.api = self.own = self

    def _end(self) -> None:
        if self.code is not None:
            raise aio.AioRpcError(self.code, aio.Metadata(), aio.Metadata())

    async def Status(self, _: Any, **__: Any) -> pb.StatusResponse:
        self._end()
        return self.told.answer

    async def lately(self, decisions: int, callers: int) -> dict[str, Any]:
        self._end()
        return await self.told.lately()


async def test_workers_are_shown_together_and_one_that_is_away_is_passed_over():
    decided = [{"time": float(i), "decision_id": str(i), "pictures": None} for i in range(3)]
    links = [
        Link(Told(decisions=decided[1:2])),
        Link(Told(), grpc.StatusCode.UNAVAILABLE),
        Link(Told(decisions=decided[::2])),
    ]
    page, _ = shower(Workers(links, 7.0))
    shown = json.loads((await page.answer(asking("/overview"))).body)
    assert [one["decision_id"] for one in shown["decisions"]] == ["2", "1", "0"]
    assert shown["started"] == 7.0
    nobody, _ = shower(Workers(links[1:2], 7.0))
    assert (await nobody.answer(asking("/overview"))).status == 503


async def test_a_mistake_is_no_absence():
    class Broken(Link):
        async def Status(self, _: Any, **__: Any) -> pb.StatusResponse:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Workers([Broken(Told())], 0.0).status()


# --- pictures


async def test_pictures_of_what_the_quarantine_keeps(tmp_path):
    """From a batch of grey images, the row that was flagged; of decisions that are shown, and no others."""
    metadata = ModelMetadata(
        "m", ("1",), "test", (TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 3)),)
    )
    space = Space("flat", (0.0,), (1.0,), certain=True, image_shape=(2, 2, 1))
    made = profile(tmp_path / "images", metadata, space)
    kept = {"url": str(tmp_path / "q"), "payload": True}
    async with serving() as upstream:
        model = {"name": "m", "profile": made, "detectors": MEAN}
        admin = {"http": "127.0.0.1:0", "grpc": None}
        own = settings(upstream.address, admin=admin, models=[model], quarantine=kept, **IDENTITY)
        async with guarding(own, token=TOKEN) as guarded:
            await guarded.unary(request(np.concatenate([CLEAN, FLAGGED])), metadata=KEY)
            written = {"what": "digest", "outcome": "written"}
            await eventually(lambda: guarded.count("guard_quarantined_rows_total", **written) == 1.0, 30)
            path = lambda row: f"/pictures/{decision['decision_id']}/{row}"
            assert (await get(at(guarded), f"/pictures/{ID}/0", RIGHT))[0] == 404
            (decision,) = (await overview(at(guarded)))["decisions"]
            assert decision["pictures"] == [1]
            status, headers, body = await get(at(guarded), path(1), await signed_in(at(guarded)))
            assert (status, headers["content-type"], body[:4]) == (200, "image/png", b"\x89PNG")
            assert (await get(at(guarded), path(0), RIGHT))[0] == 404
            assert (await get(at(guarded), path(1)))[0] == 401
            assert (await get(at(guarded), f"/pictures/{ID}/1", RIGHT))[0] == 404


async def test_pictures_of_decisions_that_others_have_followed(monkeypatch):
    """They are asked for a moment after the decision was shown; how many are known is bounded."""
    monkeypatch.setattr(overview_module, "FRESH_S", 0.0)
    monkeypatch.setattr(overview_module, "PICTURED", 3)
    source = Told()
    page, _ = shower(source)
    for number in range(5):
        source.noticed["decisions"] = [{"time": 1.0, "decision_id": f"{number:032x}", "pictures": {"rows": [0]}}]
        await page.answer(asking("/overview"))
    assert list(page._overview.pictures) == [f"{number:032x}" for number in (2, 3, 4)]


async def test_a_quarantine_that_hangs_takes_one_thread_and_none_of_others(monkeypatch):
    """However often somebody looks."""
    go = threading.Event()

    class Hanging:
        def read(self, name: str) -> bytes:
            go.wait(30)
            raise FileNotFoundError(name)

    monkeypatch.setattr(admin_page, "PICTURE_S", 0.05)
    monkeypatch.setattr(admin_page, "open_place", lambda settings: Hanging())
    how = {"rows": [0], "layout": "nhwc", "shape": [1, 1, 1], "low": [0.0], "high": [1.0]}
    page, _ = shower(Told(decisions=[{"time": 1.0, "decision_id": ID, "pictures": how}]))
    await page.answer(asking("/overview"))
    try:
        for _ in range(64):  # asyncio has 32 threads at most
            answer = await page.answer(asking(f"/pictures/{ID}/0"))
            assert (answer.status, answer.body) == (503, b"the quarantine is busy\n")
        assert [thread.name for thread in threading.enumerate()].count("guard-pictures") == 1
        assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 10) == 7
    finally:
        go.set()
    async with asyncio.timeout(10):
        while (await page.answer(asking(f"/pictures/{ID}/0"))).status != 204:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("where", "expected"), [(None, 404), ("empty", 204), ("a file", 503)])
async def test_pictures_that_are_not_there(tmp_path, where, expected):
    how = {"rows": [0], "layout": "nhwc", "shape": [1, 1, 1], "low": [0.0], "high": [1.0]}
    decided = [{"time": 1.0, "decision_id": ID, "pictures": how}]
    quarantine = {} if where is None else {"quarantine": {"url": str(tmp_path / "q"), "payload": True}}
    page, _ = shower(Told(decisions=decided), **quarantine)
    await page.answer(asking("/overview"))
    if where == "a file":
        (tmp_path / "q").write_bytes(b"in the way")
    answer = await page.answer(asking(f"/pictures/{ID}/0"))
    assert answer.status == expected
