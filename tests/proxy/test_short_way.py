"""Requests that nothing but their validity is looked at for take a short way: what comes of it is the same."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from guard.proxy import pipeline
from guard.proxy.budget import Budget
from guard.proxy.pipeline import INLINE_BYTES, LIGHT_ROWS, Pipeline
from guard.wire import messages
from tests.proxy.world import METADATA, VECTOR, Guarded, profile, request, world

pytestmark = pytest.mark.usefixtures("world_stages")

OUTSIDE = np.array([[9.0, 0.5, 0.5, 0.5]], np.float32)
NAN = np.array([[np.nan, 0.5, 0.5, 0.5]], np.float32)
LONG = np.full((1, 5), 0.5, np.float32)
COUNTS = (
    ("guard_decisions_total", {"model": "m", "action": "allow", "would_be": "allow"}),
    ("guard_inspection_seconds_count", {"model": "m"}),
    ("guard_added_seconds_count", {"model": "m"}),
    ("guard_invalid_queries_total", {"model": "m"}),
    ("guard_rows_total", {"model": "m"}),
    ("guard_upstream_calls_total", {"model": "m", "purpose": "original", "grpc_code": "OK"}),
)


@pytest.fixture
def model(tmp_path: Path) -> Any:
    def make(**values: Any) -> dict[str, Any]:
        path = profile(tmp_path / "profile", METADATA, VECTOR)
        named = {"name": "m", "profile": path, "mode": "enforce", **values}
        return {"models": [named], "audit": {"file": str(tmp_path / "audit.jsonl"), "sample_allowed": 0.0}}

    return make


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each request took the short way."""
    taken: list[bool] = []
    short_way = Pipeline._short_way

    async def told(self: Pipeline, *of: Any) -> Any:
        reply = await short_way(self, *of)
        taken.append(reply is not None)
        return reply

    monkeypatch.setattr(Pipeline, "_short_way", told)
    return taken


async def outcome(settings: dict[str, Any], *bodies: bytes) -> list[Any]:
    """What callers and the upstream see, and what is counted."""
    seen: list[Any] = []
    async with world(**settings) as (server, guarded):
        for body in bodies:
            reply = await guarded.unary(body)
            seen.append((reply.code, reply.details, reply.bodies, sorted(reply.trailing)))
        seen += [call.bodies for call in server.calls()]
        seen += [counted(guarded, *of) for of in COUNTS]
    return seen


def counted(guarded: Guarded, name: str, labels: dict[str, str]) -> float:
    return guarded.count(name, **labels)


async def test_the_short_way_comes_to_the_same(model: Any, passed: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [request(), request(), request(OUTSIDE), request(NAN), b"\x0b", request(raw=False)]
    short = await outcome(model(), *bodies)
    assert passed == [True, True, False, False, True]  # what is no message gets no so far
    monkeypatch.setattr(Pipeline, "_light", lambda *_: None)
    assert await outcome(model(), *bodies) == short
    assert [reply[0] for reply in short[:6]] == [
        grpc.StatusCode.OK, grpc.StatusCode.OK, *[grpc.StatusCode.INVALID_ARGUMENT] * 3, grpc.StatusCode.OK,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        {"detectors": [{"stage": "test_mean"}]},
        {"budget": {"rows_per_day": 100}},
        {"policy": {"on_clear": "challenge"}},
    ],
)
async def test_where_more_is_looked_at_it_is_not_taken(model: Any, passed: list[bool], values: dict[str, Any]) -> None:
    async with world(**model(**values)) as (_, guarded):
        await guarded.unary(request())
    assert passed == [False]


async def test_what_is_written_down_does_not_take_it(model: Any, passed: list[bool], tmp_path: Path) -> None:
    settings = model()
    settings["audit"]["sample_allowed"] = 1.0
    async with world(**settings) as (_, guarded):
        await guarded.unary(request())
    assert passed == [False]
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 1


async def test_another_shape_is_refused(model: Any, passed: list[bool]) -> None:
    async with world(**model()) as (server, guarded):
        reply = await guarded.unary(request(LONG))
        assert reply.code is grpc.StatusCode.INVALID_ARGUMENT
        assert not server.calls()
    assert passed == [False]


# --- light stages: inspected where they are read


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was handed to threads."""
    handed: list[str] = []
    run = Budget.run

    async def told(self: Budget, work: Any, *args: Any, **kwargs: Any) -> Any:
        handed.append(work.__qualname__)
        return await run(self, work, *args, **kwargs)

    monkeypatch.setattr(Budget, "run", told)
    return handed


LIGHT: dict[str, Any] = {
    "purifiers": [{"stage": "bit_depth", "when": "always", "options": {"bits": 1}}],
    "outputs": [{"stage": "label_only", "when": "always"}],
}


def rows(count: int) -> bytes:
    return request(np.full((count, 4), 0.7, np.float32))


async def test_light_stages_come_to_the_same_without_a_thread(
    model: Any, in_threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = [rows(1), rows(LIGHT_ROWS), request(OUTSIDE), request(NAN), request(raw=False)]
    here = await outcome(model(**LIGHT), *bodies)
    assert in_threads == []
    assert [reply[0] for reply in here[:2]] == [grpc.StatusCode.OK] * 2
    sent = messages.parse_request(here[len(bodies)][0], max_rows=9, max_elements=99).tensors["x"]
    assert sent.tolist() == [[1.0] * 4]
    monkeypatch.setattr(pipeline, "LIGHT_ROWS", 0)
    assert await outcome(model(**LIGHT), *bodies) == here
    assert len(in_threads) == 5 + 3  # each to decide, those that are valid to conclude


@pytest.mark.parametrize(
    ("values", "body"),
    [
        (LIGHT, rows(LIGHT_ROWS + 1)),
        (LIGHT, request(request_id="i" * INLINE_BYTES)),
        (LIGHT | {"detectors": [{"stage": "test_mean"}]}, rows(1)),
        (LIGHT | {"monitors": [{"stage": "test_repeats"}]}, rows(1)),
    ],
)
async def test_whatever_may_take_longer_is_handed_to_a_thread(
    model: Any, in_threads: list[str], values: dict[str, Any], body: bytes
) -> None:
    async with world(**model(**values)) as (_, guarded):
        await guarded.unary(body)
    assert in_threads
