"""The inspected path of a unary request: what is refused, replaced, held, and left alone."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from PIL import Image

from guard.profile import Space
from guard.proxy import case
from guard.stores.memory import MemoryStore
from guard.types import ModelMetadata, TensorSpec
from guard.wire import messages
from guard.wire import open_inference_pb2 as pb
from tests.proxy.world import (
    CLEAN,
    FLAGGED,
    METADATA,
    SQUEEZED,
    VECTOR,
    Guarded,
    answer,
    eventually,
    profile,
    read,
    request,
    world,
)

pytestmark = pytest.mark.usefixtures("world_stages")

MEAN = {"detectors": [{"stage": "test_mean"}]}
VIEWS = {"detectors": [{"stage": "test_views"}]}
UNIFORM = {"outputs": [{"stage": "test_uniform"}]}
OUTCOMES = [("allow", grpc.StatusCode.OK), ("deny", grpc.StatusCode.PERMISSION_DENIED)]
ZERO = {"purifiers": [{"stage": "test_zero"}]}


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """Settings of the guarded model, enforcing."""

    def make(
        *stages: dict,
        mean: dict | None = None,
        metadata: ModelMetadata = METADATA,
        space: Space = VECTOR,
        **values: Any,
    ) -> dict:
        path = profile(tmp_path / "profile", metadata, space, **(mean or {}))
        values["policy"] = {"lag_rows": 1} | values.get("policy", {})  # levels act at once
        merged: dict[str, Any] = {"name": "m", "profile": path, "mode": "enforce", **values}
        for stage in stages:
            for key, value in stage.items():
                merged[key] = _merged(merged.get(key), value)
        return {"models": [merged], "audit": {"file": str(tmp_path / "audit.jsonl")}}

    return make


def _merged(known: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [*(known or ()), *value]
    return {**(known or {}), **value} if isinstance(value, dict) else value


def events(tmp_path: Path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]


async def test_a_clean_query_goes_through_untouched(model: Any) -> None:
    async with world(**model(MEAN, VIEWS, UNIFORM)) as (server, guarded):
        reply = await guarded.unary(request())
        assert request() in [call.bodies[0] for call in server.calls()]
        assert reply.body == await server.plain(request(), None)
        assert guarded.count("guard_decisions_total", model="m", action="allow", would_be="allow") == 1
        assert guarded.count("guard_inspection_seconds_count", model="m") == 1


async def test_a_flagged_query_is_refused_and_never_forwarded(model: Any, tmp_path: Path) -> None:
    async with world(**model(MEAN)) as (server, guarded):
        reply = await guarded.unary(request(FLAGGED))
        assert_refused(reply)
        assert not server.calls()
        assert guarded.count("guard_findings_total", model="m", kind="detector", stage="test_mean", mode="enforce") == 1
        assert guarded.count("guard_decisions_total", model="m", action="deny", would_be="deny") == 1
    (event,) = events(tmp_path)
    assert event["decision_id"] == reply.trailing["guard-decision-id"]
    assert (event["action"], event["caller"], event["model"]) == ("deny", "peer:127.0.0.1", "m")
    assert event["payload_sha256"] == __import__("hashlib").sha256(request(FLAGGED)).hexdigest()


def assert_refused(reply: Any) -> None:
    assert (reply.code, reply.details) == (grpc.StatusCode.PERMISSION_DENIED, "the request was refused")
    details = status_pb2.Status.FromString(reply.trailing["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert details.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("REFUSED", "guard")


async def test_every_refusal_looks_the_same(model: Any) -> None:
    """By a detector, by a view detector, by a stage that failed: only the decision's id differs."""
    looks = []
    for stages, mean, x in (
        (MEAN, {}, FLAGGED),
        (VIEWS, {}, SQUEEZED),
        (
            {"detectors": [{"stage": "test_mean", "on_error": "deny", "options": {"broken": True}}]},
            {"broken": True},
            CLEAN,
        ),
    ):
        async with world(**model(stages, mean=mean)) as (_, guarded):
            reply = await guarded.unary(request(x))
            reply.trailing.pop("guard-decision-id")
            looks.append((reply.code, reply.details, reply.bodies, reply.initial, reply.trailing))
    assert looks[0] == looks[1] == looks[2]


async def test_shadow_is_the_identity_and_does_not_wait(model: Any, tmp_path: Path) -> None:
    held = asyncio.Event()

    async with world(**model(MEAN, VIEWS, UNIFORM, mode="shadow")) as (server, guarded):

        async def infer(body: bytes, context: Any) -> bytes:
            if body != request(SQUEEZED):
                await held.wait()  # views do not come before the answer has left
            return await server.plain(body, context)

        server.infer = infer
        reply = await guarded.unary(request(SQUEEZED))
        assert reply.body == await server.plain(request(SQUEEZED), None)
        held.set()
        await eventually(lambda: guarded.count("guard_decisions_total", model="m", action="allow", would_be="degrade"))
    (event,) = events(tmp_path)
    assert (event["action"], event["would_be"], event["enforced"]) == ("allow", "degrade", False)
    assert event["decision_id"] == reply.trailing["guard-decision-id"]


async def test_shadow_conclusions_past_the_bound_are_counted(model: Any) -> None:
    limits = {"max_concurrent_calls": 1, "drain_s": 0}
    held = asyncio.Event()
    async with world(**model(VIEWS, mode="shadow"), limits=limits) as (server, guarded):

        async def infer(body: bytes, context: Any) -> bytes:
            if body != request():
                await held.wait()
            return await server.plain(body, context)

        server.infer = infer
        for _ in range(3):
            assert (await guarded.unary(request())).body
        assert guarded.count("guard_uninspected_total", model="m", reason="background_full") == 2
        held.set()


async def test_a_purified_input_goes_up_instead(model: Any) -> None:
    body = request(np.concatenate([CLEAN, FLAGGED]))
    async with world(**model(MEAN, ZERO, policy={"on_input": "purify"})) as (server, guarded):
        reply = await guarded.unary(body)
        sent = messages.parse_request(server.calls()[0].bodies[0], max_rows=9, max_elements=99).tensors["x"]
        np.testing.assert_array_equal(sent, np.concatenate([CLEAN, np.zeros_like(FLAGGED)]))
        np.testing.assert_array_equal(read(reply.body), answer(sent))


@pytest.mark.parametrize("raw", [True, False])
async def test_a_degraded_answer_keeps_its_encoding_and_other_rows(model: Any, raw: bool) -> None:
    body = request(np.concatenate([CLEAN, FLAGGED]))
    async with world(**model(MEAN, UNIFORM, policy={"on_input": "degrade"})) as (server, guarded):
        if not raw:
            server.infer = typed
        y = read((await guarded.unary(body)).body)
        np.testing.assert_array_equal(y[0], answer(CLEAN)[0])
        np.testing.assert_allclose(y[1], 1 / 3, rtol=1e-6)
        assert server.calls()[0].bodies == [body]


async def typed(body: bytes, context: Any) -> bytes:
    y = answer(messages.parse_request(body, max_rows=9, max_elements=99).tensors["x"])
    response = pb.ModelInferResponse(model_name="m", model_version="1")
    output = response.outputs.add(name="y", datatype="FP32", shape=y.shape)
    output.contents.fp32_contents.extend(y.ravel().tolist())
    return response.SerializeToString()


async def test_view_detectors_refuse_after_the_original_was_asked(model: Any) -> None:
    async with world(**model(VIEWS)) as (server, guarded):
        assert_refused(await guarded.unary(request(SQUEEZED)))
        assert request(SQUEEZED) in [call.bodies[0] for call in server.calls()]
        assert len(server.calls()) == 2


async def test_a_view_detector_answers_with_the_standbys_reply(model: Any) -> None:
    async with world(**model(VIEWS, ZERO, policy={"on_input": "purify"})) as (server, guarded):
        reply = await guarded.unary(request(SQUEEZED))
        np.testing.assert_array_equal(read(reply.body), answer(np.zeros_like(SQUEEZED)))
        assert len(server.calls()) == 3


async def test_asking_for_another_output_does_not_blind_view_detectors(model: Any) -> None:
    message = pb.ModelInferRequest.FromString(request(SQUEEZED))
    message.outputs.add(name="other")
    async with world(**model(VIEWS)) as (server, guarded):

        async def infer(body: bytes, context: Any) -> bytes:
            wanted = {output.name for output in pb.ModelInferRequest.FromString(body).outputs}
            return await server.plain(body, context) if not wanted or "y" in wanted else b""

        server.infer = infer
        assert_refused(await guarded.unary(message.SerializeToString()))


@pytest.mark.parametrize(("on_error", "code"), OUTCOMES)
async def test_a_failed_view_call_is_the_stages_error(model: Any, on_error: str, code: grpc.StatusCode) -> None:
    stage = {"detectors": [{"stage": "test_views", "on_error": on_error}]}
    async with world(**model(stage)) as (server, guarded):

        async def infer(body: bytes, context: Any) -> bytes:
            if body != request(SQUEEZED):
                await context.abort(grpc.StatusCode.INTERNAL, "no")
            return await server.plain(body, context)

        server.infer = infer
        assert (await guarded.unary(request(SQUEEZED))).code is code
        assert guarded.count("guard_stage_errors_total", model="m", stage="test_views") == 1


async def test_a_slow_view_is_a_missing_one(model: Any) -> None:
    limits = {"inspection_timeout_s": 0.3, "drain_s": 0}
    async with world(**model(VIEWS), limits=limits) as (server, guarded):

        async def infer(body: bytes, context: Any) -> bytes:
            if body != request(SQUEEZED):
                await asyncio.sleep(60)
            return await server.plain(body, context)

        server.infer = infer
        assert (await guarded.unary(request(SQUEEZED))).body
        assert guarded.count("guard_stage_errors_total", model="m", stage="test_views") == 1
        await eventually(lambda: all(call.cancelled for call in server.calls() if call.bodies != [request(SQUEEZED)]))


async def test_a_sequence_gets_no_further_calls(model: Any) -> None:
    message = pb.ModelInferRequest.FromString(request(SQUEEZED))
    message.parameters["sequence_id"].int64_param = 7
    async with world(**model(VIEWS)) as (server, guarded):
        assert (await guarded.unary(message.SerializeToString())).body
        assert len(server.calls()) == 1
        assert guarded.count("guard_stage_errors_total", model="m", stage="test_views") == 1


async def test_an_upstreams_error_passes_and_the_event_is_made(model: Any, tmp_path: Path) -> None:
    async with world(**model(MEAN, VIEWS, mode="shadow")) as (server, guarded):

        async def infer(body: bytes, context: Any) -> bytes:
            await context.abort(grpc.StatusCode.INTERNAL, "out of memory")

        server.infer = infer
        reply = await guarded.unary(request(FLAGGED))
        assert (reply.code, reply.details) == (grpc.StatusCode.INTERNAL, "out of memory")
        assert reply.trailing["guard-decision-id"]
    (event,) = events(tmp_path)
    assert event["would_be"] == "deny"


async def test_garbage_passes_where_nothing_is_read(model: Any) -> None:
    async with world(**model(MEAN)) as (server, guarded):
        server.infer = garbage
        assert (await guarded.unary(request())).body == b"\xff\xff"


async def garbage(body: bytes, context: Any) -> bytes:
    return b"\xff\xff"


@pytest.mark.parametrize(("on_error", "code"), OUTCOMES)
async def test_garbage_that_must_be_protected_is_the_outputs_error(
    model: Any, on_error: str, code: grpc.StatusCode
) -> None:
    stage = {"outputs": [{"stage": "test_uniform", "when": "always", "on_error": on_error}]}
    async with world(**model(stage)) as (server, guarded):
        server.infer = garbage
        assert (await guarded.unary(request())).code is code
        assert guarded.count("guard_stage_errors_total", model="m", stage="test_uniform") == 1


async def test_garbage_beside_a_readable_probe_does_not_leave(model: Any) -> None:
    """The caller asks for another output, whose answer cannot be read, and the inspected one must be protected."""
    message = pb.ModelInferRequest.FromString(request())
    message.outputs.add(name="other")
    stages = {"outputs": [{"stage": "test_uniform", "when": "always"}]}
    async with world(**model(VIEWS, stages)) as (server, guarded):

        async def infer(body: bytes, context: Any) -> bytes:
            wanted = {output.name for output in pb.ModelInferRequest.FromString(body).outputs}
            return await server.plain(body, context) if "y" in wanted else b"\xff\xff"

        server.infer = infer
        reply = await guarded.unary(message.SerializeToString())
        assert (reply.code, reply.details) == (grpc.StatusCode.INTERNAL, "upstream answered in an unknown form")


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.full((1, 4), np.nan, np.float32), "NaN"),
        (np.full((1, 4), 7, np.float32), "outside"),
        (np.zeros((1, 5), np.float32), "shape"),
        (np.zeros((1, 4), np.float64), "FP64"),
    ],
)
async def test_values_and_shapes_that_do_not_fit_are_invalid(model: Any, x: Any, text: str) -> None:
    async with world(**model(MEAN)) as (server, guarded):
        reply = await guarded.unary(request(x))
        assert reply.code is grpc.StatusCode.INVALID_ARGUMENT
        assert text in reply.details
        assert not server.calls()
        assert guarded.count("guard_invalid_queries_total", model="m") == 1
        assert reply.trailing["guard-decision-id"]


def _both() -> bytes:
    message = pb.ModelInferRequest.FromString(request())
    message.inputs[0].contents.fp32_contents.extend([0, 0, 0, 0])
    return message.SerializeToString()


def _shared() -> bytes:
    message = pb.ModelInferRequest.FromString(request())
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    del message.raw_input_contents[:]
    return message.SerializeToString()


def _classified() -> bytes:
    """Of an output that no profile knows."""
    message = pb.ModelInferRequest.FromString(request())
    message.outputs.add(name="z").parameters["classification"].int64_param = 1
    return message.SerializeToString()


@pytest.mark.parametrize("body", [_both(), _shared(), _classified(), b"\xff\xff"])
@pytest.mark.parametrize("with_profile", [True, False])
async def test_what_cannot_be_inspected_is_invalid_with_and_without_a_profile(
    model: Any, body: bytes, with_profile: bool
) -> None:
    async with world(**(model(MEAN) if with_profile else {})) as (server, guarded):
        assert (await guarded.unary(body)).code is grpc.StatusCode.INVALID_ARGUMENT
        assert not server.calls()


@pytest.mark.parametrize(("body", "parameter"), [(_shared(), "shared_memory"), (_classified(), "classification")])
async def test_hidden_parameters_pass_where_allowed(model: Any, body: bytes, parameter: str) -> None:
    async with world(**model(MEAN), methods={"allow_parameters": [parameter]}) as (server, guarded):
        server.infer = garbage
        assert (await guarded.unary(body)).body
        assert server.calls()[0].bodies == [body]
        shared = guarded.count("guard_uninspected_total", model="m", reason="shared_memory")
        assert shared == (parameter == "shared_memory")


@pytest.mark.parametrize(("unlisted", "code"), [("deny", grpc.StatusCode.NOT_FOUND), ("allow", grpc.StatusCode.OK)])
async def test_unlisted_models(model: Any, unlisted: str, code: grpc.StatusCode) -> None:
    async with world(**model(MEAN), unlisted_models=unlisted) as (server, guarded):
        server.infer = garbage
        assert (await guarded.unary(request(model="other"))).code is code
        assert (await guarded.unary(b"\x0a\x05other", "/inference.GRPCInferenceService/ModelConfig")).code is code
        assert len(server.calls()) == (unlisted == "allow")
        assert guarded.count("guard_uninspected_total", model="unknown", reason="unlisted_model") == len(server.calls())


@pytest.mark.parametrize(
    ("on_mismatch", "code"), [("allow", grpc.StatusCode.OK), ("deny", grpc.StatusCode.UNAVAILABLE)]
)
async def test_a_profile_of_another_model_is_not_used(model: Any, on_mismatch: str, code: grpc.StatusCode) -> None:
    other = ModelMetadata("m", ("1",), "test", METADATA.inputs, (TensorSpec("y", "FP32", (-1, 7)),))
    async with world(**model(MEAN, metadata=other, on_profile_mismatch=on_mismatch)) as (server, guarded):
        assert (await guarded.unary(request(FLAGGED))).code is code
        assert len(server.calls()) == (on_mismatch == "allow")
        assert guarded.count("guard_profile_mismatch", model="m") == 1
        assert "made for another model" in guarded.app.runtime.models["m"].reason


async def test_another_version_than_the_fitted_one_is_a_mismatch(model: Any) -> None:
    async with world(**model(MEAN)) as (server, guarded):
        assert_refused(await guarded.unary(request(FLAGGED, version="1")))
        assert (await guarded.unary(request(FLAGGED, version="2"))).body
        assert guarded.count("guard_uninspected_total", model="m", reason="profile_mismatch") == 1
        assert len(server.calls()) == 1


@pytest.mark.parametrize(
    ("mode", "policy", "code"),
    [
        ("enforce", "deny", grpc.StatusCode.PERMISSION_DENIED),
        ("enforce", "allow", grpc.StatusCode.OK),
        ("shadow", "deny", grpc.StatusCode.OK),
    ],
)
async def test_an_inspection_that_takes_too_long(model: Any, mode: str, policy: str, code: grpc.StatusCode) -> None:
    slow = {"slow_s": 0.6}
    limits = {"inspection_timeout_s": 0.2, "on_inspection_timeout": policy, "drain_s": 0}
    stages = {"detectors": [{"stage": "test_mean", "options": slow}]}
    async with world(**model(stages, mean=slow, mode=mode), limits=limits) as (server, guarded):
        reply = await guarded.unary(request(FLAGGED))
        assert reply.code is code
        assert len(server.calls()) == (code is grpc.StatusCode.OK)
        series = ("guard_rejected_calls_total", {"reason": "inspection_timeout"})
        if code is grpc.StatusCode.OK:
            series = ("guard_uninspected_total", {"model": "m", "reason": "inspection_timeout"})
        assert guarded.count(series[0], **series[1]) == 1


async def test_a_repeating_caller_is_refused_by_its_evidence(model: Any, tmp_path: Path) -> None:
    stages = {"monitors": [{"stage": "test_repeats"}], "false_alarms_per_caller_month": 0.001}
    async with world(**model(stages)) as (server, guarded):
        codes = [(await guarded.unary(request(near(i)))).code for i in range(8)]
        assert codes[0] is grpc.StatusCode.OK
        assert codes[-1] is grpc.StatusCode.PERMISSION_DENIED
        assert len(server.calls()) == codes.count(grpc.StatusCode.OK)


def near(i: int) -> Any:
    x = CLEAN.copy()
    x[0, 0] = i / 100
    return x


async def test_evidence_counts_although_the_caller_leaves(model: Any) -> None:
    stages = {"monitors": [{"stage": "test_repeats"}]}
    async with world(**model(stages)) as (server, guarded):

        async def infer(body: bytes, context: Any) -> bytes:
            await asyncio.sleep(60)
            return b""

        server.infer = infer
        for i in range(6):
            await guarded.unary(request(near(i)), timeout=0.3)
        server.infer = None
        assert (await guarded.unary(request(near(7)))).code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_model_that_is_swapped_behind_is_seen_at_the_new_connection(model: Any) -> None:
    from tests.proxy.world import start_server

    async with world(**model(MEAN)) as (server, guarded):
        assert_refused(await guarded.unary(request(FLAGGED)))
        await server.server.stop(None)
        other = ModelMetadata("m", ("1",), "test", METADATA.inputs, (TensorSpec("y", "FP32", (-1, 7)),))
        again = await start_server(server.address, metadata=other)
        try:
            async with asyncio.timeout(20):
                while (await guarded.unary(request(FLAGGED))).code is grpc.StatusCode.UNAVAILABLE:
                    await asyncio.sleep(0.05)
            assert guarded.count("guard_profile_mismatch", model="m") == 1
            assert again.calls()
        finally:
            await again.server.stop(None)


async def test_identities_are_required_where_settings_say_so(model: Any) -> None:
    identity = {"chain": [{"kind": "api_key"}], "required": True}
    async with world(identity=identity) as (server, guarded):
        assert (await guarded.unary(request())).code is grpc.StatusCode.UNAUTHENTICATED
        assert not server.calls()
        assert (await guarded.unary(request(), metadata=(("x-api-key", "k"),))).body
        assert (await guarded.unary(b"", "/inference.GRPCInferenceService/ServerLive")).body


async def test_large_requests_are_read_in_a_thread(model: Any) -> None:
    body = request(np.tile(CLEAN, (4000, 1)))
    async with world(**model(MEAN)) as (server, guarded):
        assert isinstance(guarded, Guarded)
        assert len(body) > 16 * 1024
        server.infer = garbage
        assert (await guarded.unary(body)).body == b"\xff\xff"
        assert (await guarded.unary(body[:-1])).code is grpc.StatusCode.INVALID_ARGUMENT


# --- encoded images

PICTURES = ModelMetadata("m", ("1",), "test", (TensorSpec("x", "BYTES", (-1, 1)),), METADATA.outputs)
ENCODED = Space("encoded", (0.0,), (255.0,), certain=True, image_shape=(6, 5, 3))


def picture(value: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 6), (value, value, value)).save(buffer, format=kind)
    return buffer.getvalue()


def pictures(*encoded: bytes) -> bytes:
    rows = np.array(encoded, dtype=object).reshape(-1, 1)
    return messages.build_request("m", {"x": rows})


async def empty(body: bytes, context: Any) -> bytes:
    return b""


async def test_encoded_images_are_inspected_and_travel_as_they_are(model: Any) -> None:
    async with world({"metadata": PICTURES}, **model(MEAN, metadata=PICTURES, space=ENCODED)) as (server, guarded):
        server.infer = empty
        clean = pictures(picture(20), picture(30, "JPEG"))
        assert (await guarded.unary(clean)).body == b""
        assert server.calls()[0].bodies == [clean]
        assert_refused(await guarded.unary(pictures(picture(20), picture(250))))
        broken = await guarded.unary(pictures(picture(20)[:-20]))
        assert broken.code is grpc.StatusCode.INVALID_ARGUMENT
        assert broken.details.startswith("image 0")
        assert len(server.calls()) == 1


async def test_purified_images_are_encoded_again_each_in_its_own_format(model: Any) -> None:
    stages = model(MEAN, ZERO, metadata=PICTURES, space=ENCODED, policy={"on_input": "purify"})
    async with world({"metadata": PICTURES}, **stages) as (server, guarded):
        server.infer = empty
        await guarded.unary(pictures(picture(20), picture(250), picture(250, "JPEG")))
        sent = messages.parse_request(server.calls()[0].bodies[0], max_rows=9, max_elements=99).tensors["x"]
        shown = [Image.open(io.BytesIO(data)) for data in sent.ravel()]
        assert [image.format for image in shown] == ["PNG", "PNG", "JPEG"]
        assert [int(np.asarray(image).max()) for image in shown] == [20, 0, 0]


async def test_a_row_without_an_array_to_inspect_is_invalid(model: Any) -> None:
    """The profile was made for numbers; the server says BYTES by now, and its operator says to go on."""
    scalar = ModelMetadata("m", ("1",), "test", (TensorSpec("x", "FP32", ()),), METADATA.outputs)
    async with world({"metadata": scalar}, **model(MEAN, metadata=scalar)) as (server, guarded):
        reply = await guarded.unary(messages.build_request("m", {"x": np.array(0.5, np.float32)}))
        assert reply.code is grpc.StatusCode.INVALID_ARGUMENT
        assert not server.calls()


# --- what fails inside


@pytest.mark.parametrize(("on_error", "code"), OUTCOMES)
async def test_a_store_that_fails_is_the_monitors_error(
    model: Any, on_error: str, code: grpc.StatusCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route to the store")

    monkeypatch.setattr(MemoryStore, "exchange", fail)
    async with world(**model({"monitors": [{"stage": "test_repeats", "on_error": on_error}]})) as (_, guarded):
        assert (await guarded.unary(request())).code is code
        await eventually(lambda: guarded.count("guard_stage_errors_total", model="m", stage="test_repeats") == 1)


@pytest.mark.parametrize(("step", "stages"), [("look", MEAN), ("plan", MEAN), ("conclude", VIEWS)])
@pytest.mark.parametrize(("policy", "code"), OUTCOMES)
async def test_a_fault_in_the_inspection_follows_the_settings(
    model: Any,
    step: str,
    stages: dict,
    policy: str,
    code: grpc.StatusCode,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(case, step, fail)
    limits = {"on_inspection_timeout": policy, "drain_s": 0}
    async with world(**model(stages), limits=limits) as (_, guarded):
        reply = await guarded.unary(request())
        assert reply.code is code
        assert "secret" not in reply.details
        counted = guarded.count("guard_uninspected_total", model="m", reason="inspection_error")
        assert counted == (policy == "allow")
    if policy == "deny":
        assert events(tmp_path)[-1]["findings"][0]["error"] == "error"


async def test_an_upstreams_error_under_an_enforcing_model_passes(model: Any) -> None:
    async with world(**model(VIEWS)) as (server, guarded):

        async def infer(body: bytes, context: Any) -> bytes:
            await context.abort(grpc.StatusCode.INTERNAL, "out of memory")

        server.infer = infer
        reply = await guarded.unary(request(SQUEEZED))
        assert (reply.code, reply.details) == (grpc.StatusCode.INTERNAL, "out of memory")
        assert guarded.count("guard_decisions_total", model="m", action="allow", would_be="allow") == 1


async def test_a_shadow_conclusion_outlives_a_reload(model: Any) -> None:
    held = asyncio.Event()
    async with world(**model(VIEWS, mode="shadow")) as (server, guarded):

        async def infer(body: bytes, context: Any) -> bytes:
            if body != request(SQUEEZED):
                await held.wait()
            return await server.plain(body, context)

        server.infer = infer
        assert (await guarded.unary(request(SQUEEZED))).body
        former = guarded.app.runtime
        assert await guarded.app.reload()
        assert guarded.app.runtime is not former
        await asyncio.sleep(0.2)
        held.set()
        await eventually(lambda: guarded.count("guard_decisions_total", model="m", action="allow", would_be="deny"))
        await eventually(lambda: former.calls == 0)
