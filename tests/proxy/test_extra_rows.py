"""How the rows of detectors reach the model: behind the caller's own, or beside; and that he never sees them."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from guard import registry
from guard.calibration import Calibration
from guard.profile import Space, StageFit, load_profile, save_profile
from guard.proxy import models, onnx_model, pipeline
from guard.proxy.ask import ServedModel
from guard.settings import Embedded
from guard.types import Array, Batching, ModelMetadata, TensorSpec
from guard.wire import messages, tensors
from guard.wire import open_inference_pb2 as pb
from guard.wire.contents import encode_contents
from tests.proxy.test_embedded import save
from tests.proxy.test_inspection import MEAN, VIEWS, ZERO, assert_refused
from tests.proxy.world import (
    CLEAN,
    FLAGGED,
    METADATA,
    SQUEEZED,
    STREAM,
    VECTOR,
    Guarded,
    Server,
    Views,
    answer,
    eventually,
    guarding,
    profile,
    read,
    request,
    settings,
    world,
)

pytestmark = pytest.mark.usefixtures("world_stages", "thrice")

FOUR = np.concatenate([CLEAN, CLEAN + 0.1, CLEAN - 0.1, CLEAN + 0.2]).astype(np.float32)
OTHERS = ("test_thrice", "test_surprise")
THRICE = {"detectors": [{"stage": "test_thrice"}]}
ANY = Batching()


@dataclass(frozen=True)
class Thrice(Views):
    """Three times the same view."""

    def views(self, x: Array) -> tuple[Array, ...]:
        return super().views(x) * 3


@pytest.fixture
def thrice(monkeypatch: pytest.MonkeyPatch, world_stages: None) -> None:
    more = {("detector", "test_thrice"): Thrice, ("detector", "test_surprise"): Surprise}
    monkeypatch.setattr(registry, "_stages", registry._stages | more)


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., dict]:
    """Settings of an enforcing model whose profile says how it batches."""

    def make(
        stages: dict,
        batching: Batching | None = ANY,
        *more: dict,
        metadata: ModelMetadata = METADATA,
        space: Space = VECTOR,
        **values: Any,
    ) -> dict:
        path = tmp_path / "profile"
        profile(path, metadata, space)
        made = load_profile(path)
        rng = np.random.default_rng(0)
        joint = {"detector/test_mean": rng.uniform(0, 0.5, 1000), "detector/test_thrice": rng.uniform(0, 1, 1000)}
        others = {f"detector/{name}": StageFit({}, Calibration.of(np.linspace(0, 1, 1000))) for name in OTHERS}
        fits = dict(made.stages) | others
        if "escalate_below" in values:
            fits = {key: replace(fit, joint=joint[key]) for key, fit in fits.items() if key in joint}
        save_profile(replace(made, batching=batching, stages=fits), path)
        merged = {"name": "m", "profile": str(path), "mode": "enforce", **stages, **values}
        for stage in more:
            merged |= {key: [*merged.get(key, ()), *value] for key, value in stage.items()}
        return {"models": [merged]}

    return make


def sent(server: Server) -> list[Array]:
    """The inspected input of each inference."""
    return [
        messages.parse_request(call.bodies[0], max_rows=99, max_elements=9999).tensors["x"] for call in server.calls()
    ]


def squeezed(x: Array) -> Array:
    return np.concatenate([np.zeros_like(x[:, :1]), x[:, 1:]], axis=1)


def extra(guarded: Guarded, how: str) -> float:
    return guarded.count("guard_extra_rows_total", model="m", how=how)


async def test_views_ride_and_the_caller_gets_his_rows(model: Any) -> None:
    async with world(**model(THRICE)) as (server, guarded):
        reply = await guarded.unary(request(FOUR, request_id="mine"))
        assert reply.body == await server.plain(request(FOUR, request_id="mine"), None)
        (x,) = sent(server)
        np.testing.assert_array_equal(x, np.concatenate([FOUR, *[squeezed(FOUR)] * 3]))
        assert server.calls()[0].bodies[0] != request(FOUR)
        assert guarded.count("guard_rows_total", model="m") == 4
        assert (extra(guarded, "ride"), extra(guarded, "beside")) == (12, 0)
        assert guarded.count("guard_upstream_calls_total", model="m", purpose="ride", grpc_code="OK") == 1
        assert guarded.count("guard_decisions_total", model="m", action="allow", would_be="allow") == 1


async def test_what_rides_is_judged_and_refused(model: Any) -> None:
    """Every row is held against its own view: one bad row among four is found wherever it stands."""
    async with world(**model(THRICE)) as (server, guarded):
        for place in range(4):
            x = FOUR.copy()
            x[place] = SQUEEZED
            assert_refused(await guarded.unary(request(x)))
        assert len(server.calls()) == 4
        assert read((await guarded.unary(request(FOUR))).body).shape == (4, 3)


@pytest.mark.parametrize(
    ("batching", "values", "rides"),
    [
        (Batching(16), {}, True),
        (Batching(15), {}, False),  # 4 + 12 rows
        (Batching(1), {}, False),
        (Batching(0), {}, False),
        (None, {}, False),
        (ANY, {"extra_rows": "beside"}, False),
    ],
)
async def test_rows_go_beside_where_they_may_not_ride(
    model: Any, batching: Batching | None, values: dict, rides: bool
) -> None:
    async with world(**model(THRICE, batching, **values)) as (server, guarded):
        reply = await guarded.unary(request(FOUR))
        assert reply.body == await server.plain(request(FOUR), None)
        assert sorted(len(x) for x in sent(server)) == ([16] if rides else [4, 4, 4, 4])
        assert (request(FOUR) in [call.bodies[0] for call in server.calls()]) is not rides  # bit-equal
        assert (extra(guarded, "ride"), extra(guarded, "beside")) == ((12, 0) if rides else (0, 12))
        x = FOUR.copy()
        x[2] = SQUEEZED
        assert_refused(await guarded.unary(request(x)))


async def test_large_requests_are_not_made_larger_than_requests_may_be(model: Any) -> None:
    x = np.tile(CLEAN, (60, 1))
    async with world(**model(VIEWS), limits={"max_request_bytes": 1024}) as (server, guarded):
        assert (await guarded.unary(request(x))).body
        assert [len(x) for x in sent(server)] == [60, 60]


@pytest.mark.parametrize("batching", [Batching(9, stateful=True), Batching(9, decoupled=True)])
async def test_models_that_must_not_be_asked_again_are_not(model: Any, batching: Batching) -> None:
    async with world(**model(VIEWS, batching)) as (server, guarded):
        assert (await guarded.unary(request(SQUEEZED))).body
        assert len(server.calls()) == 1
        assert guarded.count("guard_stage_errors_total", model="m", stage="test_views") == 1
        assert (extra(guarded, "ride"), extra(guarded, "beside")) == (0, 0)


async def test_a_request_of_a_sequence_stays_alone(model: Any) -> None:
    message = pb.ModelInferRequest.FromString(request(SQUEEZED))
    message.parameters["sequence_id"].int64_param = 7
    async with world(**model(VIEWS)) as (server, guarded):
        assert (await guarded.unary(message.SerializeToString())).body
        assert [call.bodies[0] for call in server.calls()] == [message.SerializeToString()]


# --- other inputs, several outputs, both encodings

TWO = ModelMetadata(
    "m",
    ("1",),
    "test",
    (TensorSpec("k", "INT32", (-1,)), TensorSpec("x", "FP32", (-1, 4))),
    (TensorSpec("word", "BYTES", (-1, 2)), TensorSpec("y", "FP32", (-1, 3)), TensorSpec("key", "INT32", (-1,))),
)


def two(x: Array, keys: list[int], *, raw: bool, **more: Any) -> bytes:
    return messages.build_request("m", {"k": np.array(keys, np.int32), "x": x}, raw=raw, **more)


def several(made: Callable[[pb.ModelInferResponse], None] = lambda _: None) -> Callable[..., Any]:
    """A model of several outputs, which answers as it is asked: raw or typed."""

    async def infer(body: bytes, context: Any) -> bytes:
        inference = messages.parse_request(body, max_rows=99, max_elements=9999)
        keys = inference.tensors["k"]
        words = np.empty((len(keys), 2), dtype=object)
        words[:] = [[b"w" * int(key), str(key).encode()] for key in keys]
        outputs = {"word": ("BYTES", words), "y": ("FP32", answer(inference.tensors["x"])), "key": ("INT32", keys)}
        response = pb.ModelInferResponse(model_name="m", model_version="1", id=inference.id)
        wanted = [output.name for output in inference.message.outputs]
        for name, (datatype, array) in outputs.items():
            if wanted and name not in wanted:
                continue
            tensor = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
            if inference.raw:
                response.raw_output_contents.append(tensors.encode_array(array, datatype))
            else:
                tensor.contents.CopyFrom(encode_contents(array, datatype))
        made(response)
        return response.SerializeToString()

    return infer


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("batching", [ANY, Batching(0)])
async def test_every_input_rides_and_every_output_is_cut(model: Any, raw: bool, batching: Batching) -> None:
    body = two(FOUR, [3, 1, 0, 2], raw=raw)
    infer = several()
    async with world({"metadata": TWO, "infer": infer}, **model(THRICE, batching, metadata=TWO)) as (server, guarded):
        assert (await guarded.unary(body)).body == await infer(body, None)
        first = messages.parse_request(server.calls()[0].bodies[0], max_rows=99, max_elements=9999)
        assert first.raw is raw
        assert first.tensors["k"].tolist() == [3, 1, 0, 2] * (4 if batching is ANY else 1)
        x = FOUR.copy()
        x[3] = SQUEEZED
        assert_refused(await guarded.unary(two(x, [3, 1, 0, 2], raw=raw)))


@pytest.mark.parametrize("outputs", [("y",), ("key", "y"), ("key",)])
async def test_the_outputs_that_were_asked_for_and_no_others(model: Any, outputs: tuple[str, ...]) -> None:
    infer = several()
    async with world({"metadata": TWO, "infer": infer}, **model(VIEWS, metadata=TWO)) as (server, guarded):
        body = two(FOUR, [3, 1, 0, 2], raw=True, outputs=outputs)
        assert (await guarded.unary(body)).body == await infer(body, None)
        assert len(server.calls()) == (1 if "y" in outputs else 3)  # else the original, a probe, and the views
        x = FOUR.copy()
        x[1] = SQUEEZED
        assert_refused(await guarded.unary(two(x, [3, 1, 0, 2], raw=True, outputs=outputs)))


async def test_answers_as_labels_do_not_ride(model: Any) -> None:
    message = pb.ModelInferRequest.FromString(request(SQUEEZED))
    message.outputs.add(name="y").parameters["classification"].int64_param = 1
    async with world(**model(VIEWS)) as (server, guarded):
        assert_refused(await guarded.unary(message.SerializeToString()))
        assert len(server.calls()) == 2


async def test_inputs_of_other_sizes_do_not_ride(model: Any) -> None:
    """One key for all rows: whose rows are whose cannot be said."""
    metadata = replace(TWO, inputs=(TensorSpec("k", "INT32", (-1,)), TensorSpec("x", "FP32", (-1, 4))))

    async def infer(body: bytes, context: Any) -> bytes:
        x = messages.parse_request(body, max_rows=99, max_elements=9999).tensors["x"]
        response = pb.ModelInferResponse(model_name="m")
        response.outputs.add(name="y", datatype="FP32", shape=[len(x), 3])
        response.raw_output_contents.append(answer(x).tobytes())
        return response.SerializeToString()

    async with world({"metadata": metadata, "infer": infer}, **model(VIEWS, metadata=metadata)) as (server, guarded):
        assert (await guarded.unary(two(FOUR, [1], raw=True))).body
        assert [len(x) for x in sent(server)] == [4, 4]


# --- failures


def at_most(server: Server, rows: int) -> Callable[..., Any]:
    """A model that takes fewer rows than its profile says."""

    async def infer(body: bytes, context: Any) -> bytes:
        if messages.parse_request(body, max_rows=99, max_elements=9999).rows > rows:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too many rows")
        return await server.plain(body, context)

    return infer


async def test_a_ride_that_fails_costs_the_caller_nothing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(**model(THRICE)) as (server, guarded):
        server.infer = at_most(server, 4)
        assert (await guarded.unary(request(FOUR))).body == await server.plain(request(FOUR), None)
        assert [len(x) for x in sent(server)] == [16, 4, 4, 4, 4]
        assert (extra(guarded, "ride"), extra(guarded, "beside")) == (12, 12)
        assert guarded.count("guard_stage_errors_total", model="m", stage="test_thrice") == 0
        x = FOUR.copy()
        x[0] = SQUEEZED
        assert_refused(await guarded.unary(request(x)))
        assert [len(x) for x in sent(server)][5:] == [4, 4, 4, 4]  # nothing rides for a while
        monkeypatch.setattr(models.time, "monotonic", lambda now=models.time.monotonic: now() + models.BESIDE_S)
        assert (await guarded.unary(request(FOUR))).body
        assert [len(x) for x in sent(server)][9:] == [16, 4, 4, 4, 4]


async def test_without_the_way_back_the_caller_would_suffer(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same call, with every failure of a ride taken for the caller's own."""
    monkeypatch.setattr(pipeline, "ENDED", {3})
    async with world(**model(THRICE)) as (server, guarded):
        server.infer = at_most(server, 4)
        assert (await guarded.unary(request(FOUR))).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_callers_own_error_is_his(model: Any) -> None:
    async with world(**model(VIEWS)) as (server, guarded):
        server.infer = at_most(server, 0)
        reply = await guarded.unary(request(FOUR))
        assert (reply.code, reply.details) == (grpc.StatusCode.INVALID_ARGUMENT, "too many rows")
        server.infer = None
        assert (await guarded.unary(request(FOUR))).body
        assert len(sent(server)[-1]) == 8  # it was not the rows' fault: they ride on


async def test_a_deadline_is_not_answered_by_asking_again(model: Any) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "slow")
        return b""

    async with world({"infer": infer}, **model(VIEWS)) as (server, guarded):
        assert (await guarded.unary(request(FOUR))).code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert len(server.calls()) == 1
        assert guarded.count("guard_decisions_total", model="m", action="allow", would_be="allow") == 1


def _scalar(response: pb.ModelInferResponse) -> None:
    response.outputs.add(name="loss", datatype="FP32", shape=[1])
    response.raw_output_contents.append(bytes(4))


def _unraw(response: pb.ModelInferResponse) -> None:
    response.raw_output_contents.append(b"")


@pytest.mark.parametrize("change", [_scalar, _unraw])
async def test_answers_whose_rows_cannot_be_told_apart_are_asked_for_alone(model: Any, change: Any) -> None:
    infer = several(change)
    async with world({"metadata": TWO, "infer": infer}, **model(VIEWS, metadata=TWO)) as (server, guarded):
        body = two(FOUR, [3, 1, 0, 2], raw=True)
        assert (await guarded.unary(body)).body == await infer(body, None)
        assert len(server.calls()) == 3
        assert server.calls()[1].bodies == [body]


# --- a purified standby


async def test_a_standby_rides_too(model: Any) -> None:
    x = np.concatenate([CLEAN, SQUEEZED])
    async with world(**model(VIEWS, ANY, ZERO, policy={"on_input": "purify"})) as (server, guarded):
        reply = await guarded.unary(request(x, request_id="mine"))
        assert reply.body == await server.plain(request(np.zeros_like(x), request_id="mine"), None)
        (all_rows,) = sent(server)
        np.testing.assert_array_equal(all_rows, np.concatenate([x, np.zeros_like(x), squeezed(x)]))
        assert extra(guarded, "ride") == 4
        assert (await guarded.unary(request(FOUR))).body == await server.plain(request(FOUR), None)


# --- rows of some inputs only


async def test_only_rows_that_are_escalated_ride(model: Any) -> None:
    stages = {"detectors": [{"stage": "test_mean"}, {"stage": "test_thrice"}]}
    x = np.concatenate([CLEAN * 0, CLEAN * 1.9, CLEAN * 0, CLEAN * 1.96]).astype(np.float32)  # 0.475 and 0.49
    for batching, sizes in ((ANY, [10]), (Batching(9), [2, 2, 2, 4]), (Batching(0), [4, 4, 4, 4])):
        async with world(**model(stages, batching, escalate_below=0.2)) as (server, guarded):
            assert (await guarded.unary(request(x))).body == await server.plain(request(x), None)
            assert sorted(len(rows) for rows in sent(server)) == sizes
            assert guarded.count("guard_stage_errors_total", model="m", stage="test_thrice") == 0
            if batching is ANY:
                np.testing.assert_array_equal(sent(server)[0][4:], np.concatenate([squeezed(x[1::2])] * 3))
            assert (await guarded.unary(request(CLEAN * 0))).body
            assert len(server.calls()) == len(sizes) + 1  # nothing is asked about that row
            y = x.copy()
            y[3] = [1.0, 0.3, 0.3, 0.3]  # a gap of 2 between its answer and its view's
            assert_refused(await guarded.unary(request(y)))


async def test_other_inputs_follow_the_rows(model: Any) -> None:
    stages = {"detectors": [{"stage": "test_mean"}, {"stage": "test_thrice"}]}
    x = np.concatenate([CLEAN * 0, CLEAN * 1.9, CLEAN * 0]).astype(np.float32)
    made = model(stages, ANY, metadata=TWO, escalate_below=0.2)
    async with world({"metadata": TWO, "infer": several()}, **made) as (server, guarded):
        assert (await guarded.unary(two(x, [7, 8, 9], raw=True))).body
        got = messages.parse_request(server.calls()[0].bodies[0], max_rows=99, max_elements=9999)
        assert got.tensors["k"].tolist() == [7, 8, 9, 8, 8, 8]


# --- answers that do not wait


@pytest.mark.parametrize(
    ("batching", "sizes"),
    [
        (ANY, [4, 12]),
        (Batching(11), [4, 4, 8]),
        (Batching(4), [4, 4, 4, 4]),
        (Batching(0), [4] * 4),
        (None, [4] * 4),
    ],
)
async def test_in_shadow_the_original_goes_alone_and_the_rest_in_few_calls(
    model: Any, batching: Batching | None, sizes: list[int]
) -> None:
    x = FOUR.copy()
    x[1] = SQUEEZED
    async with world(**model(THRICE, batching, mode="shadow")) as (server, guarded):
        assert (await guarded.unary(request(x))).body == await server.plain(request(x), None)
        await eventually(lambda: guarded.count("guard_decisions_total", model="m", action="allow", would_be="deny"))
        assert server.calls()[0].bodies == [request(x)]
        assert sorted(len(rows) for rows in sent(server)) == sizes
        assert (extra(guarded, "ride"), extra(guarded, "beside")) == (0, 12)


async def test_a_call_of_several_views_that_fails_is_made_view_by_view(model: Any) -> None:
    x = FOUR.copy()
    x[1] = SQUEEZED
    async with world(**model(THRICE, mode="shadow")) as (server, guarded):
        server.infer = at_most(server, 4)
        assert (await guarded.unary(request(x))).body
        await eventually(lambda: guarded.count("guard_decisions_total", model="m", action="allow", would_be="deny"))
        assert [len(rows) for rows in sent(server)] == [4, 12, 4, 4, 4]
        assert guarded.count("guard_stage_errors_total", model="m", stage="test_thrice") == 0


# --- streams, and encoded images


async def test_a_streams_messages_are_asked_about_in_one_call(model: Any) -> None:
    made = model(VIEWS, ANY, ZERO, policy={"on_input": "purify"})
    async with world(**made) as (server, guarded):
        reply = await guarded.stream(request(SQUEEZED), request(CLEAN))
        got = [read(messages.unwrap_stream(body, "triton") or b"") for body in reply.bodies]
        np.testing.assert_array_equal(got, [answer(np.zeros_like(SQUEEZED)), answer(CLEAN)])
        assert server.calls(STREAM)[0].bodies == [request(np.zeros_like(SQUEEZED)), request(CLEAN)]
        assert [len(x) for x in sent(server)] == [3, 3]
        assert extra(guarded, "ride") == 6  # the message's own rows are asked about a second time


async def test_a_streams_message_whose_ride_fails_is_judged_all_the_same(model: Any) -> None:
    async with world(**model(VIEWS)) as (server, guarded):
        server.infer = at_most(server, 1)
        reply = await guarded.stream(request(SQUEEZED), request(CLEAN))
        assert server.calls(STREAM)[0].bodies == [request(CLEAN)]
        assert len(reply.bodies) == 2


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2), value, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


async def test_encoded_images_ride(model: Any) -> None:
    metadata = replace(METADATA, inputs=(TensorSpec("x", "BYTES", (-1, 1)),))
    space = Space("encoded", (0.0,), (255.0,), certain=True, image_shape=(2, 2, 1))
    x = np.array([[png(10)], [png(60)]], dtype=object)

    async def infer(body: bytes, context: Any) -> bytes:
        files = messages.parse_request(body, max_rows=99, max_elements=9999).tensors["x"]
        pixels = np.array([np.asarray(Image.open(io.BytesIO(file))).ravel() for file in files.ravel()]) / 255
        response = pb.ModelInferResponse(model_name="m")
        response.outputs.add(name="y", datatype="FP32", shape=[len(pixels), 3])
        response.raw_output_contents.append(answer(pixels.astype(np.float32)).tobytes())
        return response.SerializeToString()

    made = model(VIEWS, ANY, metadata=metadata, space=space)
    async with world({"metadata": metadata, "infer": infer}, **made) as (server, guarded):
        assert (await guarded.unary(request(x))).body == await infer(request(x), None)
        (files,) = sent(server)
        assert files.shape == (4, 1)
        assert files[:2].tolist() == x.tolist()
        assert np.asarray(Image.open(io.BytesIO(files[3, 0]))).tolist() == [[0, 0], [60, 60]]


# --- detectors that look at the caller's own answer


@dataclass(frozen=True)
class Surprise:
    """Twice what the answer gives to class 0."""

    def score_answer(self, x: Array, probs: Array) -> Array:
        return 2 * probs[:, 0]


SURPRISE = {"detectors": [{"stage": "test_surprise"}]}


async def test_a_detector_of_answers_needs_no_further_rows(model: Any) -> None:
    async with world(**model(SURPRISE)) as (server, guarded):
        assert (await guarded.unary(request(FOUR))).body == await server.plain(request(FOUR), None)
        assert_refused(await guarded.unary(request(SQUEEZED)))
        assert [len(x) for x in sent(server)] == [4, 1]
        assert (extra(guarded, "ride"), extra(guarded, "beside")) == (0, 0)


async def test_a_detector_of_answers_is_not_blinded_by_asking_for_another_output(model: Any) -> None:
    infer = several()
    x = FOUR.copy()
    x[1] = SQUEEZED
    async with world({"metadata": TWO, "infer": infer}, **model(SURPRISE, metadata=TWO)) as (server, guarded):
        body = two(FOUR, [3, 1, 0, 2], raw=True, outputs=("key",))
        assert (await guarded.unary(body)).body == await infer(body, None)
        assert len(server.calls()) == 2
        assert_refused(await guarded.unary(two(x, [3, 1, 0, 2], raw=True, outputs=("key",))))


async def test_a_detector_of_answers_judges_a_streams_messages_before_they_are_forwarded(model: Any) -> None:
    async with world(**model(SURPRISE)) as (server, guarded):
        reply = await guarded.stream(request(SQUEEZED), request(CLEAN))
        assert server.calls(STREAM)[0].bodies == [request(CLEAN)]
        assert len(reply.bodies) == 2
        assert extra(guarded, "beside") == 2
        assert guarded.count("guard_stage_errors_total", model="m", stage="test_surprise") == 0


# --- a file served in this process


@pytest.mark.parametrize(("limit", "runs"), [(16, [16]), (15, [4, 4, 4, 4])])
async def test_the_embedded_model_runs_once(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, runs: list[int]
) -> None:
    """(N, 4) -> (N, 3) as `world.answer` has it."""
    w = np.array([[1, -0.25, -0.75], [0, 0, 0], [0, 0, 0], [0, 0, 0]], np.float32)
    b = np.array([0, 0.25, 0.75], np.float32)
    file = save(
        tmp_path / "m.onnx",
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        {"x": (TensorProto.FLOAT, ["n", 4])},
        {"y": (TensorProto.FLOAT, ["n", 3])},
        (numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")),
    )
    served = {"file": str(file), "max_batch_rows": limit}
    with ServedModel.embedded(Embedded(file=file, max_batch_rows=limit), "m") as asked:
        metadata, batching = asked.metadata(), asked.batching()
        expected = asked.answer({"x": FOUR})["y"]
    assert batching == Batching(limit)
    sizes = []
    run = onnx_model.OnnxModel.run

    def counted(self: Any, arrays: Any, outputs: Any, options: Any) -> list[Array]:
        sizes.append(len(arrays["x"]))
        return run(self, arrays, outputs, options)

    monkeypatch.setattr(onnx_model.OnnxModel, "run", counted)
    (one,) = model(THRICE, batching, metadata=metadata)["models"]
    async with guarding(settings("127.0.0.1:1", upstream=None, models=[one | {"embedded": served}])) as guarded:
        await eventually(lambda: guarded.app.runtime.models["m"].ready)
        y = read((await guarded.unary(request(FOUR))).body)
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        assert sizes == runs
        x = FOUR.copy()
        x[3] = SQUEEZED
        assert_refused(await guarded.unary(request(x)))


async def test_no_rows_and_flagged_rows(model: Any) -> None:
    async with world(**model({"detectors": [*MEAN["detectors"], *VIEWS["detectors"]]})) as (server, guarded):
        assert_refused(await guarded.unary(request(FLAGGED)))
        assert not server.calls()
        assert guarded.count("guard_rows_total", model="m") == 0
        await guarded.unary(request(CLEAN[:0]))
        assert all(len(x) == 0 for x in sent(server))
