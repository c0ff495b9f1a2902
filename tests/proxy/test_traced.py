"""Tracing in front of a real server, on both planes: what a receiver gets, what the upstream gets, and nobody waits."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from guard.proxy.methods import TABLE
from guard.settings import Tracing
from tests.planes.at import PLANES, TALK, chosen, here
from tests.proxy.world import CLEAN, FLAGGED, INFER, STREAM, eventually, profile, request, world
from tests.receivers import Receiver, receiving
from tests.servers.process import free_port

pytestmark = pytest.mark.usefixtures("world_stages")

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
METHOD = INFER[1:]
CALLER = "somebody-with-a-name"


@pytest.fixture(params=PLANES)
def plane(request: pytest.FixtureRequest) -> dict[str, Any]:
    if not here(request.param):
        pytest.skip("the plane cannot be used here")
    return chosen(request.param)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def tracing(receiver: Receiver, **values: Any) -> dict[str, Any]:
    return {"to": {"url": receiver.url, "attempts": 1}, "ratio": 1.0, **values}


def model(path, **changes: Any) -> list[dict[str, Any]]:
    return [{"name": "m", "profile": profile(path / "p"), **changes}]


def sent(seen: Any, key: str) -> list[str]:
    """What a call to the server behind had under this key."""
    return [value for name, value in seen.metadata if name == key]


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: _plain(pair.value) for pair in span.attributes}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(one) for one in value.array_value.values]
    return None if kind is None else getattr(value, kind)


def by_name(spans: list[Any]) -> dict[str, Any]:
    """One of each name; the server's span under `call`."""
    return {"call" if span.kind == 2 else span.name: span for span in spans}


STAGES: dict[str, Any] = {
    "mode": "enforce",
    "policy": {"on_input": "purify"},
    "detectors": [{"stage": "test_mean"}, {"stage": "test_views"}],
    "monitors": [{"stage": "test_repeats"}],
    "purifiers": [{"stage": "test_zero"}],
    "outputs": [{"stage": "test_uniform", "when": "always"}],
}


async def test_a_call_its_stages_and_its_upstream(tmp_path, receiver, plane) -> None:
    log = tmp_path / "audit.jsonl"
    identity = {"chain": [{"kind": "header", "header": "x-user", "trusted_peers": ["127.0.0.0/8"]}]}
    settings = {"models": model(tmp_path, **STAGES), "audit": {"file": str(log)}, "identity": identity}
    async with world(**settings, tracing=tracing(receiver), **plane) as (server, guarded):
        metadata = (("traceparent", SAMPLED), ("tracestate", "a=1,b=2"), ("x-user", CALLER))
        ended = await guarded.unary(request(FLAGGED), metadata=metadata)
        assert ended.code.name == "OK"
        upstream = server.calls()
    spans = receiver.spans
    named = by_name(spans)
    call = named["call"]
    assert (call.name, call.trace_id.hex(), call.parent_span_id.hex()) == (METHOD, TRACE, SPAN)
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert {span.parent_span_id for span in spans if span is not call} == {call.span_id}
    assert {*named} == {
        *("call", METHOD, "monitor sketch", "store exchange", "monitor test_repeats", "detector test_mean"),
        *("detector test_views", "purifier test_zero", "output test_uniform"),
    }
    below = {span.span_id.hex() for span in spans if span.kind == 3}
    assert len(below) == len(upstream)
    for seen in upstream:  # each with its own span as the parent, and the state as it came
        (parent,) = sent(seen, "traceparent")
        assert parent.startswith(f"00-{TRACE}-")
        assert parent.endswith("-01")
        below.remove(parent.split("-")[2])
        assert sent(seen, "tracestate") == ["a=1,b=2"]
    told = attributes(call)
    assert (told["rpc.system.name"], told["rpc.method"]) == ("grpc", METHOD)
    assert told["rpc.response.status_code"] == "OK"
    assert (told["guard.model"], told["guard.action"], told["guard.enforced"]) == ("m", "purify", True)
    assert "test_mean" in told["guard.fired"]
    (event,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert (event["trace_id"], event["span_id"]) == (TRACE, call.span_id.hex())
    assert event["decision_id"] == told["guard.decision.id"]
    client = attributes(named[METHOD])
    assert client["server.address"] == "127.0.0.1"
    assert client["server.port"] == int(server.address.rpartition(":")[2])
    for stage in ("detector test_mean", "output test_uniform"):
        assert call.start_time_unix_nano <= named[stage].start_time_unix_nano <= named[stage].end_time_unix_nano
    everything = b"".join(one.body for one in receiver.requests)
    assert b"service.name" in everything
    for private in (CALLER.encode(), event["caller"].encode(), event["payload_sha256"].encode(), FLAGGED.tobytes()):
        assert private
        assert private not in everything


async def test_what_is_refused_and_what_fails(tmp_path, receiver, plane) -> None:
    stages = {"mode": "enforce", "detectors": [{"stage": "test_mean"}], "policy": {"on_input": "deny"}}
    async with world(models=model(tmp_path, **stages), tracing=tracing(receiver), **plane) as (server, guarded):
        assert (await guarded.unary(request(FLAGGED))).code.name == "PERMISSION_DENIED"
        assert (await guarded.unary(b"", path="/other.Service/Call")).code.name == "PERMISSION_DENIED"
        await server.server.stop(None)
        assert (await guarded.unary(request(CLEAN))).code.name == "UNAVAILABLE"
    calls = [span for span in receiver.spans if span.kind == 2]
    refused, unknown, away = calls
    assert attributes(refused)["guard.action"] == "deny"
    assert attributes(refused)["rpc.response.status_code"] == "PERMISSION_DENIED"
    assert refused.status.code == 0
    assert unknown.name == "_OTHER"
    assert away.status.code == 2
    assert attributes(away)["error.type"] == "UNAVAILABLE"
    assert b"other.Service" not in b"".join(one.body for one in receiver.requests)


async def test_a_shadow_models_conclusion_is_a_span_behind_the_call(tmp_path, receiver, plane) -> None:
    settings = {"models": model(tmp_path, detectors=[{"stage": "test_mean"}, {"stage": "test_views"}])}
    async with world(**settings, tracing=tracing(receiver), **plane) as (_, guarded):
        await guarded.unary(request(FLAGGED))
        await eventually(lambda: guarded.count("guard_decisions_total", model="m", action="allow", would_be="deny"))
    named = by_name(receiver.spans)
    assert named["conclude"].parent_span_id == named["call"].span_id
    assert named["detector test_mean"].parent_span_id == named["call"].span_id
    assert attributes(named["call"])["guard.would_be"] == "deny"
    assert "test_mean" in attributes(named["conclude"])["guard.fired"]


async def test_a_stream_and_each_of_its_messages(tmp_path, receiver, plane) -> None:
    settings = {"models": model(tmp_path, detectors=[{"stage": "test_mean"}]), "audit": {"sample_allowed": 1.0}}
    async with world(**settings, tracing=tracing(receiver), **plane) as (server, guarded):
        ended = await guarded.stream(*[request(CLEAN)] * 3, metadata=(("traceparent", SAMPLED),))
        assert len(ended.bodies) == 3
        (seen,) = server.calls(STREAM)
    spans = receiver.spans
    (call,) = [span for span in spans if span.kind == 2]
    (upstream,) = [span for span in spans if span.kind == 3]
    messages = [span for span in spans if span.name == "message"]
    detectors = [span for span in spans if span.name == "detector test_mean"]
    assert (call.name, call.parent_span_id.hex()) == (STREAM[1:], SPAN)
    assert {span.parent_span_id for span in (*messages, upstream)} == {call.span_id}
    assert [attributes(span)["guard.message"] for span in messages] == [1, 2, 3]
    assert {span.parent_span_id for span in detectors} == {span.span_id for span in messages}
    assert attributes(upstream)["rpc.response.status_code"] == "OK"
    assert sent(seen, "traceparent") == [f"00-{TRACE}-{upstream.span_id.hex()}-01"]


async def test_a_method_that_is_not_on_the_table_has_no_name(receiver, plane) -> None:
    """Neither where it is denied nor where the settings let it through."""
    async with world(methods={"allow": [TALK]}, tracing=tracing(receiver), **plane) as (server, guarded):
        for path in (TALK, "/other.Service/Guessed1", STREAM.replace("Stream", "Scream")):
            await guarded.stream(request(), path=path)
        assert [seen.path for seen in server.seen if seen.path not in TABLE] == [TALK]
    spans = receiver.spans
    assert [span.kind for span in spans].count(2) == 3
    assert [span.kind for span in spans].count(3) == 1
    assert {span.name for span in spans} == {"_OTHER"}
    assert {attributes(span)["rpc.method"] for span in spans} == {"_OTHER"}


@pytest.mark.parametrize("traced", [False, True])
async def test_what_is_not_traced_travels_as_it_came(receiver, plane, traced) -> None:
    """Without tracing, and with it where the caller says no; the short way, and a stream, too."""
    changes = {"tracing": tracing(receiver)} if traced else {}
    parent = UNSAMPLED if traced else SAMPLED
    async with world(**changes, **plane) as (server, guarded):
        metadata = (("traceparent", parent), ("tracestate", "a=1"))
        await guarded.unary(request(), metadata=metadata)
        await guarded.stream(request(), metadata=metadata)
        if not traced:
            await guarded.unary(request())
        calls = (*server.calls(), *server.calls(STREAM))
    for seen in (calls[0], calls[-1]):
        assert (sent(seen, "traceparent"), sent(seen, "tracestate")) == ([parent], ["a=1"])
    if not traced:
        assert sent(calls[1], "traceparent") == []
    assert receiver.requests == []


async def test_the_short_way_is_traced_and_probes_are_not(tmp_path, receiver, plane) -> None:
    async with world(models=model(tmp_path), tracing=tracing(receiver), **plane) as (_, guarded):
        await guarded.unary(request())
        await guarded.unary(b"", path="/grpc.health.v1.Health/Check")
        await guarded.unary(b"", path="/inference.GRPCInferenceService/ServerReady")
        await guarded.unary(b"", path="/inference.GRPCInferenceService/ServerMetadata")
        await eventually(lambda: len(receiver.spans) == 4)
    spans = receiver.spans
    assert [span.name.rpartition("/")[2] for span in spans if span.kind == 2] == ["ModelInfer", "ServerMetadata"]
    assert [span.name.rpartition("/")[2] for span in spans if span.kind == 3] == ["ModelInfer", "ServerMetadata"]
    first = next(span for span in spans if span.kind == 2)
    assert attributes(first)["guard.action"] == "allow"


# --- a receiver that does not receive


async def test_calls_go_on_while_the_receiver_is_away(plane) -> None:
    to = {"url": f"http://127.0.0.1:{free_port()}", "attempts": 1}
    async with world(tracing={"to": to, "ratio": 1.0}, **plane) as (_, guarded):
        for _ in range(5):
            assert (await guarded.unary(request())).code.name == "OK"
        await eventually(lambda: guarded.count("guard_spans_total", outcome="failed"))


async def test_calls_go_on_while_the_receiver_answers_500(receiver, plane) -> None:
    receiver.always = 500
    sinks = [
        {"kind": "otlp", "to": {"url": receiver.url}},
        {"kind": "cloudevents", "to": {"url": receiver.url, "attempts": 1}},
    ]
    audit = {"file": None, "sinks": sinks, "sample_allowed": 1.0}
    stages = {"models": [{"name": "m"}]}
    async with world(tracing=tracing(receiver), audit=audit, **stages, **plane) as (_, guarded):
        for _ in range(5):
            assert (await guarded.unary(request())).code.name == "OK"
        await eventually(lambda: guarded.count("guard_spans_total", outcome="failed") == 10)


async def test_calls_go_on_while_the_receiver_hangs(plane) -> None:
    with receiving(held=True) as receiver:
        settings = tracing(receiver, max_queued=10)
        async with world(tracing=settings, **plane) as (_, guarded):
            await guarded.unary(request())
            await eventually(lambda: receiver.requests)  # it waits for an answer that does not come
            for _ in range(20):
                assert (await guarded.unary(request())).code.name == "OK"
            dropped = guarded.count("guard_spans_total", outcome="dropped")
            assert dropped >= 20  # of 42, 10 of which wait
            receiver.go.set()
            await eventually(lambda: guarded.count("guard_spans_total", outcome="written") == 42 - dropped)


async def test_a_drain_sends_what_is_there(receiver, plane) -> None:
    async with world(tracing=tracing(receiver), **plane) as (_, guarded):
        await asyncio.gather(*(guarded.unary(request()) for _ in range(20)))
        spans = guarded.metrics.spans
    assert len(receiver.spans) == 40
    assert spans.labels("written")._value.get() == 40


async def test_a_reload_begins_and_ends_tracing(receiver, plane) -> None:
    off = {"tracing": {}}
    async with world(**off, **plane) as (_, guarded):
        settings = guarded.app.runtime.settings
        on = settings.model_copy(update={"tracing": Tracing.model_validate(tracing(receiver))})
        for now in (on, on, settings):
            guarded.app._load = lambda now=now: now
            assert await guarded.app.reload()
            await guarded.unary(request())
        await eventually(lambda: guarded.count("guard_spans_total", outcome="written") == 4)
    assert len(receiver.spans) == 4


async def test_settings_that_cannot_be_used_change_nothing_and_are_named(tmp_path, receiver, caplog) -> None:
    async with world(tracing=tracing(receiver)) as (_, guarded):
        settings = guarded.app.runtime.settings
        to = {"url": "https://127.0.0.1:1", "token_file": tmp_path / "missing"}
        broken = settings.model_copy(update={"tracing": Tracing.model_validate({"to": to})})
        guarded.app._load = lambda: broken
        assert not await guarded.app.reload()
        await guarded.unary(request())
    assert "settings not reloaded: tracing.to.token_file: cannot use" in caplog.text
    assert len(receiver.spans) == 2
