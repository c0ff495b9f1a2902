"""Guard's own API over a real connection: who may call, and what a hostile or mistaken caller gets."""

import asyncio
import json
from dataclasses import replace

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from guard import registry
from guard.audit import Event
from guard.drift import Drift, Watched
from guard.engine import Engine
from guard.profile import Space
from guard.proxy import admin_grpc
from guard.proxy.door import Door
from guard.settings import ConfigError
from guard.types import Action, Finding, Mode
from guard.wire.guard.v1 import guard_pb2 as pb
from guard.wire.guard.v1 import guard_pb2_grpc
from guard.wire.images import encode_images
from guard.wire.tensors import decode_array, encode_array
from tests.core.helpers import STAGES, MeanDetector, profile_of
from tests.proxy.admin import BAD, CLEAN, GOOD, PROFILE, TOKEN, FakeModel, Y, serving

RIGHT = (("authorization", f"Bearer {TOKEN}"),)
EVENT = Event(1_700_000_000.25, "d1", "peer:1", "m", "", Action.DENY, Action.DENY, enforced=True)
MEAN = [{"stage": "test_mean"}]
VIEWS = [{"stage": "test_views"}]
OVERLAP = [{"stage": "test_overlap"}]


@pytest.fixture(autouse=True)
def stages(monkeypatch):
    """The small stages of the core's tests."""
    monkeypatch.setattr(registry, "_stages", registry._stages | STAGES)


def tensor(array, datatype: str = "FP32", name: str = "") -> pb.Tensor:
    array = np.asarray(array)
    return pb.Tensor(name=name, datatype=datatype, shape=array.shape, raw=encode_array(array, datatype))


def array_of(message: pb.Tensor):
    return decode_array(message.datatype, tuple(message.shape), message.raw)


class Api:
    """The generated stubs on one connection, with the right token unless told otherwise."""

    def __init__(self, channel, runtime) -> None:
        self.channel, self.runtime = channel, runtime
        self.stub = guard_pb2_grpc.GuardServiceStub(channel)

    async def inspect(self, x=GOOD, **fields) -> pb.InspectResponse:
        request = pb.InspectRequest(**({"model": "m", "input": tensor(x)} | fields))
        return await self.stub.Inspect(request, metadata=RIGHT, timeout=20)

    async def fails(self, call) -> tuple[str, str]:
        with pytest.raises(aio.AioRpcError) as error:
            await call
        return error.value.code().name, error.value.details()


@pytest.fixture
async def api(tmp_path):
    """Start the API over one model `m` with the given settings."""
    stack = []

    async def start(model: FakeModel | None = None, **values) -> Api:
        serve = serving(tmp_path / "audit", m=model or FakeModel.of(**values))
        runtime, address = await serve.__aenter__()
        channel = aio.insecure_channel(address)
        stack.append((serve, channel))
        return Api(channel, runtime)

    yield start
    for serve, channel in stack:
        await channel.close()
        await serve.__aexit__(None, None, None)


def events(tmp_path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]


# --- the token


METHODS = [
    "/guard.v1.GuardService/Inspect",
    "/guard.v1.GuardService/Watch",
    "/guard.v1.GuardService/Status",
    "/guard.v1.GuardService/ListCallers",
    "/guard.v1.GuardService/Explain",
    "/guard.v1.GuardService/Forgive",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/guard.v1.GuardService/Nothing",
    "/no.Service/Nothing",
]
WRONG = [
    (),
    (("authorization", "Bearer wrong"),),
    (("authorization", f"Basic {TOKEN}"),),
    (("authorization", TOKEN),),
    (("authorization", f"Bearer {TOKEN[:-1]}"),),
    (*RIGHT, *RIGHT),
    (("authorization-bin", f"Bearer {TOKEN}".encode()),),
]


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_wants_the_token(api, method):
    channel = (await api(detectors=MEAN)).channel
    for metadata in WRONG:
        with pytest.raises(aio.AioRpcError) as error:
            await channel.unary_unary(method)(b"", metadata=metadata, timeout=20)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert error.value.details() == "the admin token is needed"


@pytest.mark.parametrize("method", METHODS)
async def test_a_stream_is_refused_before_it_says_anything(api, method):
    one = await api(detectors=MEAN)
    call = one.channel.stream_stream(method)(timeout=20)
    assert (await one.fails(call.read()))[0] == "UNAUTHENTICATED"


async def test_health_and_reflection_with_the_token(api):
    channel = (await api(detectors=MEAN)).channel
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", admin_grpc.SERVICE):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service), metadata=RIGHT)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    async def asked():
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=admin_grpc.SERVICE)

    answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked(), metadata=RIGHT)
    file = descriptor_pb2.FileDescriptorProto.FromString(
        (await answers.read()).file_descriptor_response.file_descriptor_proto[0]
    )
    methods = [method.name for method in file.service[0].method]
    assert methods == ["Inspect", "Watch", "Status", "ListCallers", "Explain", "Forgive"]


async def test_unknown_methods_with_the_token(api):
    channel = (await api(detectors=MEAN)).channel
    with pytest.raises(aio.AioRpcError) as error:
        await channel.unary_unary("/guard.v1.GuardService/Nothing")(b"", metadata=RIGHT)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


# --- Inspect


async def test_a_clean_input_is_allowed(api):
    response = await (await api(detectors=MEAN)).inspect()
    assert response.action == response.would_be == pb.ACTION_ALLOW
    assert len(response.decision_id) == 32
    finding = response.findings[0]
    assert (finding.stage, finding.kind, finding.mode) == ("test_mean", "detector", pb.MODE_ENFORCE)
    assert finding.p_values == pytest.approx([0.8])
    assert (finding.threshold, finding.fired) == (pytest.approx(0.1), False)
    assert not response.HasField("purified")
    assert not response.HasField("answer")


async def test_a_suspicious_input_is_denied(api):
    response = await (await api(detectors=MEAN)).inspect(BAD)
    assert response.action == pb.ACTION_DENY
    assert response.findings[0].fired


async def test_in_shadow_the_verdict_says_what_would_be(api):
    response = await (await api(detectors=MEAN, mode="shadow")).inspect(BAD)
    assert (response.action, response.would_be) == (pb.ACTION_ALLOW, pb.ACTION_DENY)


async def test_a_purified_input_comes_back_as_the_model_takes_it(api):
    purify = {"purifiers": [{"stage": "test_halve"}], "policy": {"on_input": "purify"}}
    response = await (await api(detectors=MEAN, **purify)).inspect(BAD)
    assert response.action == pb.ACTION_PURIFY
    assert (response.purified.name, response.purified.datatype) == ("x", "FP32")
    np.testing.assert_allclose(array_of(response.purified), BAD / 2, rtol=1e-6)


async def test_answers_are_protected(api):
    outputs = {"outputs": [{"stage": "test_uniform", "when": "always"}]}
    one = await api(**outputs)
    response = await one.inspect(answer=tensor(Y, name="probabilities"))
    assert response.answer.name == "probabilities"
    np.testing.assert_allclose(array_of(response.answer), np.full((1, 3), 1 / 3), rtol=1e-6)
    assert not (await one.inspect()).HasField("answer")


async def test_views_and_the_answers_on_them(api):
    one = await api(detectors=VIEWS)
    first = await one.inspect()
    assert [array_of(view).tolist() for view in first.views] == [[[0.0] * 4]]
    assert first.action == pb.ACTION_ALLOW
    assert not first.findings
    same = await one.inspect(answer=tensor(Y))
    assert len(same.views) == 1
    assert not same.findings, "no answers on views yet: that is no failure"
    far = await one.inspect(answer=tensor(Y), view_answers=[tensor([[0.9, 0.1, 0.0]])])
    assert (far.action, far.findings[0].fired, len(far.views)) == (pb.ACTION_DENY, True, 0)
    near = await one.inspect(answer=tensor(Y), view_answers=[tensor(Y)])
    assert (near.action, near.findings[0].fired) == (pb.ACTION_ALLOW, False)


async def test_views_of_some_rows(api):
    joint = np.random.default_rng(0).permutation(CLEAN)
    fits = {key: replace(fit, joint=joint if "views" in key else CLEAN) for key, fit in PROFILE.stages.items()}
    profile = replace(PROFILE, stages={key: fit for key, fit in fits.items() if key.startswith("detector")})
    one = await api(FakeModel.of(profile, detectors=[*MEAN, *VIEWS], escalate_below=0.5, false_positive_rate=0.1))
    x = np.concatenate([GOOD, GOOD * 4, GOOD, GOOD * 4])
    first = await one.inspect(x)
    assert list(first.view_rows) == [1, 3]
    assert [array_of(view).shape for view in first.views] == [(2, 4)]
    y, far = np.repeat(Y, 4, axis=0), np.array([[0.2, 0.3, 0.5], [0.9, 0.1, 0.0]], np.float32)
    second = await one.inspect(x, answer=tensor(y), view_answers=[tensor(far)])
    (found,) = [finding for finding in second.findings if finding.stage == "test_views"]
    assert (second.action, [p <= found.threshold for p in found.p_values]) == (pb.ACTION_DENY, [False] * 3 + [True])
    call = one.inspect(x, answer=tensor(y), view_answers=[tensor(y)])
    assert await one.fails(call) == (
        "INVALID_ARGUMENT",
        "answers on views have the shape of the answer on the input, with the rows of the views",
    )
    assert not (await one.inspect(GOOD * 4)).view_rows  # all of them
    assert not (await one.inspect(GOOD)).views


async def test_a_view_detector_that_fires_may_purify(api):
    purify = {"purifiers": [{"stage": "test_halve"}], "policy": {"on_input": "purify"}}
    one = await api(detectors=VIEWS, **purify)
    response = await one.inspect(answer=tensor(Y), view_answers=[tensor([[0.9, 0.1, 0.0]])])
    assert response.action == pb.ACTION_PURIFY
    np.testing.assert_allclose(array_of(response.purified), GOOD / 2, rtol=1e-6)
    assert not response.HasField("answer")
    assert not (await one.inspect(answer=tensor(Y), view_answers=[tensor(Y)])).HasField("purified")


async def test_history_is_written_only_when_asked(api):
    one = await api(monitors=OVERLAP)
    x = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    overlaps = [(await one.inspect(x, caller="alice")).findings[0].scores[0] for _ in range(3)]
    assert overlaps == [0.0] * 3
    assert (one.runtime.store.entries, one.runtime.store.people) == (0, 0)
    await one.inspect(x, caller="alice", remember=True)
    assert (one.runtime.store.entries, one.runtime.store.people) == (1, 1)
    assert (await one.inspect(x, caller="bob")).findings[0].scores[0] > 0


async def test_what_is_remembered_counts_against_the_caller(api):
    one = await api(monitors=OVERLAP, false_alarms_per_caller_month=0.01)
    steps = [np.array([[0.1, 0.2, 0.3, 0.001 * i]], np.float32) for i in range(40)]
    actions = [(await one.inspect(x, caller="eve", remember=True)).action for x in steps]
    assert actions[0] == pb.ACTION_ALLOW
    assert actions[-1] == pb.ACTION_DENY
    assert (await one.inspect(caller="alice")).action == pb.ACTION_ALLOW


async def test_only_what_counts_is_recorded(api, tmp_path):
    one = await api(detectors=MEAN)
    reader = one.runtime.watchers.subscribe()
    await one.inspect(BAD)
    response = await one.inspect(BAD, caller="eve", remember=True)
    event, _ = await anext(reader)
    assert event.decision_id == response.decision_id
    one.runtime.audit.close()
    assert [(e["decision_id"], e["caller"]) for e in events(tmp_path)] == [(response.decision_id, "eve")]
    text = one.runtime.metrics.exposition()[0].decode()
    assert 'guard_decisions_total{action="deny",model="m",would_be="deny"} 1.0' in text
    assert 'guard_findings_total{kind="detector",mode="enforce",model="m",stage="test_mean"} 1.0' in text


async def test_nobody_is_the_anonymous_caller(api, tmp_path):
    one = await api(detectors=MEAN)
    await one.inspect(BAD, remember=True)
    one.runtime.audit.close()
    assert events(tmp_path)[0]["caller"] == "anonymous"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"input": pb.Tensor()}, "datatype"),
        ({"input": tensor(GOOD, "FP64")}, "datatype FP32"),
        ({"input": tensor(GOOD, name="other")}, "the inspected input is 'x'"),
        ({"input": pb.Tensor(datatype="FP32", shape=(1, 4), raw=b"123")}, "3 came"),
        ({"input": pb.Tensor(datatype="FP32", shape=(-1, 4))}, "negative"),
        ({"input": pb.Tensor(datatype="FP32", shape=(2**40, 2**40))}, "elements"),
        ({"input": tensor(np.float32(1))}, "rows"),
        ({"input": tensor(np.zeros((9, 4), np.float32))}, "8 rows"),
        ({"input": tensor(np.full((1, 4), 2.0, np.float32))}, "outside"),
        ({"input": tensor(np.full((1, 4), np.nan, np.float32))}, "NaN"),
        ({"caller": "x" * 257}, "256"),
        ({"answer": pb.Tensor(name="y", datatype="FP32", shape=(1, 3), raw=b"1")}, "y: "),
        ({"view_answers": [tensor(Y)]}, "beside them"),
        ({"answer": tensor(Y), "view_answers": [tensor(Y)] * 2}, "there are 1 views"),
        ({"answer": tensor(Y), "view_answers": [tensor(Y[:, :2])]}, "the shape"),
    ],
)
async def test_bad_input_is_explained(api, fields, text):
    one = await api(detectors=VIEWS)
    code, details = await one.fails(one.inspect(**fields))
    assert code == "INVALID_ARGUMENT"
    assert text in details


async def test_an_unknown_model(api):
    one = await api(detectors=MEAN)
    assert await one.fails(one.inspect(model="other")) == ("NOT_FOUND", "there is no such model")


async def test_a_model_without_a_profile_in_use(api):
    good = FakeModel.of(detectors=MEAN)
    one = await api(replace(good, engine=None, profile=None))
    assert await one.fails(one.inspect()) == ("FAILED_PRECONDITION", "the model has no profile")
    two = await api(replace(good, mismatch="the profile was made for another model"))
    code, details = await two.fails(two.inspect())
    assert (code, details) == ("FAILED_PRECONDITION", "the profile was made for another model")


async def test_what_fails_inside_stays_inside(api, monkeypatch, caplog):
    one = await api(detectors=MEAN)

    def broken(*_args):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Engine, "decide", broken)
    assert await one.fails(one.inspect()) == ("INTERNAL", "internal error")
    assert "secret detail" in caplog.text


async def test_encoded_images(api):
    space = Space("encoded", (0.0,), (255.0,), certain=True, image_shape=(4, 4, 1))
    profile = replace(profile_of({("detector", "test_mean"): (MeanDetector(), CLEAN)}, space=space), datatype="BYTES")
    purify = {"purifiers": [{"stage": "test_halve"}], "policy": {"on_input": "purify"}}
    one = await api(FakeModel.of(profile, detectors=MEAN, **purify))

    def picture(value: int):
        rows = np.empty(1, dtype=object)
        rows[:] = encode_images(np.full((1, 4, 4, 1), value, np.uint8), ["PNG"])
        return tensor(rows.reshape(1, 1), "BYTES")

    assert (await one.inspect(input=picture(20))).action == pb.ACTION_ALLOW
    response = await one.inspect(input=picture(240))
    assert response.action == pb.ACTION_PURIFY
    assert tuple(response.purified.shape) == (1, 1)
    assert response.purified.raw == picture(120).raw
    broken = np.empty((1, 1), dtype=object)
    broken[:] = b"no picture"
    assert (await one.fails(one.inspect(input=tensor(broken, "BYTES"))))[0] == "INVALID_ARGUMENT"


# --- Watch


async def watch(one: Api, **fields):
    """A subscribed reader."""
    call = one.stub.Watch(pb.WatchRequest(**fields), metadata=RIGHT, timeout=20)
    await call.initial_metadata()
    return call


async def test_watching(api):
    one = await api(detectors=MEAN)
    call = await watch(one)
    finding = Finding("s", "monitor", Mode.SHADOW, (1.0, 2.0), (0.5,), 0.25, error="ValueError")
    one.runtime.watchers.publish(replace(EVENT, findings=(finding,), would_be=Action.PURIFY))
    seen = await call.read()
    assert seen.time.ToNanoseconds() == 1_700_000_000_250_000_000
    assert (seen.decision_id, seen.model, seen.caller, seen.lost) == ("d1", "m", "peer:1", 0)
    assert (seen.action, seen.would_be) == (pb.ACTION_DENY, pb.ACTION_PURIFY)
    assert seen.findings[0] == pb.Finding(
        stage="s",
        kind="monitor",
        mode=pb.MODE_SHADOW,
        scores=[1.0, 2.0],
        p_values=[0.5],
        threshold=0.25,
        error="ValueError",
    )


async def test_watching_one_model_without_the_allowed(api):
    one = await api(detectors=MEAN)
    call = await watch(one, model="m", only_non_allowed=True)
    allowed = replace(EVENT, action=Action.ALLOW, would_be=Action.ALLOW)
    for event in (
        replace(allowed, decision_id="plain"),
        replace(EVENT, decision_id="other", model="n"),
        replace(allowed, decision_id="shadow", would_be=Action.DENY),
        replace(EVENT, decision_id="denied"),
    ):
        one.runtime.watchers.publish(event)
    assert [(await call.read()).decision_id for _ in range(2)] == ["shadow", "denied"]


async def test_a_reader_that_leaves_gives_its_place_back(api):
    one = await api(detectors=MEAN)
    calls = [await watch(one) for _ in range(4)]
    assert await one.fails(one.stub.Watch(pb.WatchRequest(), metadata=RIGHT).read()) == (
        "RESOURCE_EXHAUSTED",
        "too many readers",
    )
    calls[0].cancel()
    for _ in range(500):
        if len(one.runtime.watchers._readers) < 4:
            break
        await asyncio.sleep(0.01)
    await watch(one)


async def test_watches_end_when_guard_stops(tmp_path):
    async with serving(tmp_path / "audit", m=FakeModel.of(detectors=MEAN)) as (runtime, address):
        channel = aio.insecure_channel(address)
        one = Api(channel, runtime)
        call = await watch(one)
        runtime.watchers.close()
        assert await call.read() is aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        await channel.close()


# --- Status


async def test_status(api):
    good = FakeModel.of(detectors=MEAN, monitors=[{"stage": "test_overlap", "mode": "shadow"}])
    one = await api(replace(good, ready=False, reason="the upstream says it is not ready"))
    status = await one.stub.Status(pb.StatusRequest(), metadata=RIGHT, timeout=20)
    assert status.version
    assert status.started.seconds > 1_700_000_000
    model = status.models[0]
    assert (model.name, model.upstream, model.mode) == ("m", "127.0.0.1:8001", pb.MODE_ENFORCE)
    assert (model.ready, model.reason) == (False, "the upstream says it is not ready")
    assert (model.profile_digest, model.false_positive_rate) == (PROFILE.digest, pytest.approx(0.1))
    assert {(s.name, s.kind, s.mode, s.calibration_size) for s in model.stages} == {
        ("test_mean", "detector", pb.MODE_ENFORCE, 99),
        ("test_overlap", "monitor", pb.MODE_SHADOW, 999),
    }
    assert [s.threshold for s in model.stages if s.kind == "detector"] == [pytest.approx(0.1)]


async def test_status_tells_of_drift(api):
    good = FakeModel.of(detectors=MEAN, monitors=[{"stage": "test_overlap", "mode": "shadow"}])
    watched = Drift({"test_mean": Watched(0.1, 99)})
    one = await api(replace(good, drift=watched))
    for count, rows, alarm in ((249, None, False), (1, 250, False), (250, 500, True)):
        watched.add([Finding("test_mean", "detector", Mode.SHADOW, p_values=(0.2 if alarm else 0.9,) * count)])
        status = await one.stub.Status(pb.StatusRequest(), metadata=RIGHT, timeout=20)
        mean, overlap = status.models[0].stages
        assert not overlap.HasField("drift")
        assert mean.HasField("drift") is (rows is not None)
        assert (mean.drift.rows, mean.drift.alarm) == (rows or 0, alarm)
    assert mean.drift.expected_rate == 0.1
    assert mean.drift.distance > 0.3


async def test_status_of_a_model_without_a_profile(api):
    one = await api(replace(FakeModel.of(detectors=MEAN), engine=None, profile=None))
    status = await one.stub.Status(pb.StatusRequest(), metadata=RIGHT, timeout=20)
    assert (status.models[0].profile_digest, len(status.models[0].stages)) == ("", 0)


# --- the listener


async def test_an_address_that_is_taken(api, tmp_path):
    async with serving(tmp_path / "audit", m=FakeModel.of(detectors=MEAN)) as (runtime, address):
        with pytest.raises(ConfigError, match=r"admin\.grpc"):
            await admin_grpc.start(lambda: runtime, address, Door(TOKEN, lambda _: None))


async def test_a_unix_socket(tmp_path):
    async with serving(tmp_path / "audit", m=FakeModel.of(detectors=MEAN)) as (runtime, _):
        listener = await admin_grpc.start(lambda: runtime, f"unix:{tmp_path}/admin", Door(TOKEN, lambda _: None))
        async with aio.insecure_channel(listener.address) as channel:
            assert (await Api(channel, runtime).inspect()).action == pb.ACTION_ALLOW
        await listener.close()
