"""Triton's classification extension through Guard: inspected, protected, and no more classes than were asked for."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from guard import registry
from guard.profile import load_profile, save_profile
from guard.proxy.methods import INFER
from guard.types import Array, Batching, TensorSpec
from guard.wire import messages, tensors
from guard.wire import open_inference_pb2 as pb
from tests.proxy.test_inspection import MEAN, UNIFORM, VIEWS, ZERO, assert_refused, events, model  # noqa: F401
from tests.proxy.world import CLEAN, FLAGGED, METADATA, SQUEEZED, answer, eventually, request, world

registry.load()
pytestmark = pytest.mark.usefixtures("world_stages")

LABEL_ONLY = {"outputs": [{"stage": "label_only", "when": "always"}]}
TOP = {"outputs": [{"stage": "top_k", "when": "always"}]}
LABELS = ("a", "b:c", "d")
THREE = np.concatenate([CLEAN, CLEAN * 0.5, CLEAN * 1.2]).astype(np.float32)


def asking(count: int = 1, x: Array = CLEAN, *, name: str = "y", request_id: str = "", other: str = "m") -> bytes:
    message = pb.ModelInferRequest.FromString(request(x, request_id=request_id, model=other))
    message.outputs.add(name=name).parameters["classification"].int64_param = count
    return message.SerializeToString()


def ranked(scores: Array, count: int, order: list[int] | None = None) -> list[bytes]:
    """As Triton ranks one row."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i]) if order is None else order
    return [f"{scores[i]:.6f}:{i}:{LABELS[i]}".encode() for i in order[:count]]


async def triton(body: bytes, context: Any) -> bytes:
    """The world's model, answering as Triton does; without `classification` in plain numbers."""
    message = pb.ModelInferRequest.FromString(body)
    y = answer(messages.parse_request(body, max_rows=99, max_elements=9999).tensors["x"])
    response = pb.ModelInferResponse(model_name="m", model_version="1", id=message.id)
    count = message.outputs[0].parameters["classification"].int64_param if message.outputs else 0
    if count:
        rows = np.array([ranked(row, count) for row in y], dtype=object)
        response.outputs.add(name="y", datatype="BYTES", shape=rows.shape)
        response.raw_output_contents.append(tensors.encode_array(rows, "BYTES"))
    else:
        response.outputs.add(name="y", datatype="FP32", shape=y.shape)
        response.raw_output_contents.append(y.tobytes())
    return response.SerializeToString()


async def talking(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for body in bodies:
        yield messages.wrap_stream(await triton(body, context), "triton")


TRITON = {"infer": triton, "stream": talking}


def entries(body: bytes) -> list:
    return messages.parse_response(body)["y"].tolist()


def asked_for(server: Any, call: int = 0) -> int:
    message = pb.ModelInferRequest.FromString(server.calls()[call].bodies[0])
    return message.outputs[0].parameters["classification"].int64_param


@pytest.mark.parametrize("count", [1, 2, 3, 99])
@pytest.mark.parametrize("mode", ["shadow", "enforce"])
async def test_unprotected_it_is_the_servers_own_answer(model: Any, count: int, mode: str) -> None:  # noqa: F811
    async with world(TRITON, **model(MEAN, VIEWS, UNIFORM, mode=mode)) as (server, guarded):
        for x in (CLEAN, THREE):
            body = asking(count, x, request_id="mine")
            assert (await guarded.unary(body)).body == await triton(body, None)
        assert max(asked_for(server, call) for call in range(len(server.calls()))) == max(count, 3)


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_it_is_protected(model: Any, count: int) -> None:  # noqa: F811
    y = answer(THREE)
    async with world(TRITON, **model(LABEL_ONLY)) as (_, guarded):
        got = entries((await guarded.unary(asking(count, THREE))).body)
        one = np.eye(3)[y.argmax(axis=1)]
        assert got == [ranked(row, count) for row in one]
        bare = entries(await triton(asking(count, THREE), None))
        assert got != bare  # the control
        label = [[entry.split(b":", 1)[1] for entry in row[:1]] for row in bare]
        assert [[entry.split(b":", 1)[1] for entry in row[:1]] for row in got] == label


async def test_suspicious_rows_alone_change(model: Any) -> None:  # noqa: F811
    x = np.concatenate([CLEAN, FLAGGED, CLEAN])
    async with world(TRITON, **model(MEAN, UNIFORM, policy={"on_input": "degrade"})) as (_, guarded):
        got = entries((await guarded.unary(asking(3, x))).body)
        bare = entries(await triton(asking(3, x), None))
        assert [got[0], got[2]] == [bare[0], bare[2]]
        assert {entry.split(b":")[0] for entry in got[1]} == {b"0.333333"}
        assert got[1][0].startswith(b"0.333333:")


async def test_it_is_inspected(model: Any, tmp_path: Path) -> None:  # noqa: F811
    async with world(TRITON, **model(MEAN, VIEWS)) as (server, guarded):
        assert_refused(await guarded.unary(asking(1, FLAGGED)))
        assert not server.calls()
        assert_refused(await guarded.unary(asking(1, SQUEEZED)))
        assert len(server.calls()) == 2  # the original, whose classes are read, and the view, in plain numbers
        assert sorted(asked_for(server, call) for call in (0, 1)) == [0, 3]
    hashes = [event["payload_sha256"] for event in events(tmp_path)]
    assert hashes == [__import__("hashlib").sha256(asking(1, x)).hexdigest() for x in (FLAGGED, SQUEEZED)]


async def test_a_purified_input_is_answered_in_classes(model: Any) -> None:  # noqa: F811
    async with world(TRITON, **model(MEAN, ZERO, policy={"on_input": "purify"})) as (server, guarded):
        assert entries((await guarded.unary(asking(1, FLAGGED))).body) == [
            ranked(row, 1) for row in answer(np.zeros_like(FLAGGED))
        ]
        assert asked_for(server) == 3


async def test_a_purified_input_beside_is_answered_in_classes(model: Any) -> None:  # noqa: F811
    async with world(TRITON, **model(VIEWS, ZERO, TOP, policy={"on_input": "purify"})) as (_, guarded):
        (got,) = entries((await guarded.unary(asking(3, SQUEEZED))).body)
        assert got[0] == b"0.750000:2:d"
        assert [entry.split(b":")[0] for entry in got[1:]] == [b"0.125000", b"0.125000"]


async def test_a_server_that_answers_in_numbers(model: Any) -> None:  # noqa: F811
    """Of a server that does not know the extension, in whose dialect Guard was told it does: numbers as they are."""
    async with world(**model(LABEL_ONLY)) as (_, guarded):
        y = messages.parse_response((await guarded.unary(asking(1))).body)["y"]
        assert y.tolist() == np.eye(3)[answer(CLEAN).argmax(axis=1)].tolist()


def odd(rows: list) -> Any:
    async def infer(body: bytes, context: Any) -> bytes:
        array = np.array(rows, dtype=object)
        response = pb.ModelInferResponse(model_name="m")
        response.outputs.add(name="y", datatype="BYTES", shape=array.shape)
        response.raw_output_contents.append(tensors.encode_array(array, "BYTES"))
        return response.SerializeToString()

    return infer


@pytest.mark.parametrize("on_error", ["allow", "deny"])
@pytest.mark.parametrize("rows", [[[b"0.9:1"]], [[b"0.9:1", b"0.1:1", b"0.0:0"]], [[b"x", b"y", b"z"]]])
async def test_classes_that_cannot_be_read_do_not_leave_unprotected(model: Any, rows: list, on_error: str) -> None:  # noqa: F811
    always = {"outputs": [{**LABEL_ONLY["outputs"][0], "on_error": on_error}]}
    async with world({"infer": odd(rows)}, **model(always)) as (_, guarded):
        reply = await guarded.unary(asking(1))
        assert reply.code is (grpc.StatusCode.PERMISSION_DENIED if on_error == "deny" else grpc.StatusCode.INTERNAL)
    async with world({"infer": odd(rows)}, **model(always, mode="shadow")) as (_, guarded):
        assert (await guarded.unary(asking(1))).body == await odd(rows)(b"", None)  # the control: who only looks


REFUSED = [asking(0), asking(-1), asking(2**31), asking(1, name="z"), asking(1, other="free")]


@pytest.mark.parametrize("body", REFUSED)
async def test_what_cannot_be_read_back_is_refused_unless_allowed(model: Any, body: bytes) -> None:  # noqa: F811
    changes = model(LABEL_ONLY)
    changes["models"].append({"name": "free"})
    async with world(TRITON, **changes) as (server, guarded):
        reply = await guarded.unary(body)
        assert (reply.code, "classification" in reply.details) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        assert not server.calls()
    if b"free" in body:
        return
    async with world(TRITON, **changes, methods={"allow_parameters": ["classification"]}) as (server, guarded):
        await guarded.unary(body)
        assert body in [call.bodies[0] for call in server.calls(INFER)]


async def test_a_profile_that_is_not_used_reads_nothing(model: Any) -> None:  # noqa: F811
    other = {**TRITON, "metadata": replace(METADATA, outputs=(TensorSpec("y", "FP32", (-1, 7)),))}
    for allowed in ((), ("classification",)):
        methods = {"allow_parameters": list(allowed)}
        async with world(other, **model(LABEL_ONLY), methods=methods) as (server, guarded):
            reply = await guarded.unary(asking(1))
            if allowed:
                assert server.calls()[0].bodies == [asking(1)]
                assert reply.body == await triton(asking(1), None)
            else:
                assert reply.code is grpc.StatusCode.INVALID_ARGUMENT
                assert not server.calls()


async def test_mlserver_does_not_know_it(model: Any) -> None:  # noqa: F811
    async with world(**model(LABEL_ONLY), dialect="mlserver") as (server, guarded):
        assert (await guarded.unary(asking(1))).code is grpc.StatusCode.INVALID_ARGUMENT
        assert not server.calls()


@pytest.mark.parametrize("stages", [(LABEL_ONLY,), (MEAN, UNIFORM), (VIEWS, LABEL_ONLY)])
async def test_streams(model: Any, stages: tuple) -> None:  # noqa: F811
    async with world(TRITON, **model(*stages)) as (_, guarded):
        plain = request(request_id="plain")
        got = await guarded.stream(asking(2, THREE[:2], request_id="mine"), plain)
        bodies = [messages.unwrap_stream(body, "triton") for body in got.bodies]
        assert None not in bodies
        y = answer(THREE[:2])
        shown = y if LABEL_ONLY not in stages else np.eye(3)[y.argmax(axis=1)]
        assert entries(bodies[0]) == [ranked(row, 2) for row in shown]
        assert [pb.ModelInferResponse.FromString(body).id for body in bodies] == ["mine", "plain"]


@pytest.mark.parametrize("mode", ["shadow", "enforce"])
async def test_an_unprotected_stream_is_the_servers_own(model: Any, mode: str) -> None:  # noqa: F811
    async with world(TRITON, **model(MEAN, VIEWS, mode=mode)) as (server, guarded):
        body = asking(1, request_id="mine")
        (got,) = (await guarded.stream(body)).bodies
        assert got == messages.wrap_stream(await triton(body, None), "triton")
        assert [body] in [call.bodies for call in server.seen]  # what went up the stream


async def test_a_stream_ends_what_cannot_be_read(model: Any) -> None:  # noqa: F811
    async def broken(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for body in bodies:
            sent = pb.ModelInferResponse.FromString(await odd([[b"0.9:1"]])(b"", None))
            sent.id = pb.ModelInferRequest.FromString(body).id
            yield messages.wrap_stream(sent.SerializeToString(), "triton")

    async with world({**TRITON, "stream": broken}, **model(LABEL_ONLY)) as (_, guarded):
        (got,) = (await guarded.stream(asking(1, request_id="mine"))).bodies
        assert b"0.9:1" not in got
        assert messages.unwrap_stream(got, "triton") is None


async def test_the_answer_is_learnt_from_in_shadow(model: Any) -> None:  # noqa: F811
    async with world(TRITON, **model(VIEWS, mode="shadow")) as (_, guarded):
        assert entries((await guarded.unary(asking(1, SQUEEZED))).body) == [ranked(answer(SQUEEZED)[0], 1)]
        await eventually(
            lambda: guarded.count("guard_decisions_total", model="m", action="allow", would_be="deny") == 1
        )


async def flat(body: bytes, context: Any) -> bytes:
    """The same of a model that does not batch: one ranking of all rows."""
    made = pb.ModelInferResponse.FromString(await triton(body, context))
    rows = messages.parse_response(made.SerializeToString())["y"]
    if rows.dtype == object:
        made.outputs[0].shape[:] = [rows.shape[1]]
        made.raw_output_contents[0] = tensors.encode_array(rows[0], "BYTES")
    return made.SerializeToString()


async def test_a_model_that_does_not_batch(model: Any, tmp_path: Path) -> None:  # noqa: F811
    changes = model(LABEL_ONLY)
    save_profile(replace(load_profile(tmp_path / "profile"), batching=Batching(0)), tmp_path / "profile")
    async with world({"infer": flat}, **changes) as (server, guarded):
        assert entries((await guarded.unary(asking(2))).body) == ranked(np.eye(3)[2], 2)
        assert (await guarded.unary(asking(2, THREE))).code is grpc.StatusCode.INVALID_ARGUMENT
        assert len(server.calls()) == 1


async def test_one_ranking_of_several_rows_does_not_leave(model: Any) -> None:  # noqa: F811
    """Where nobody has said that the model does not batch."""
    async with world({"infer": flat}, **model(LABEL_ONLY)) as (_, guarded):
        assert (await guarded.unary(asking(2, THREE))).code is grpc.StatusCode.INTERNAL


def test_the_stand_in_ranks_as_triton_does() -> None:
    assert ranked(np.array([0.25, 0.5, 0.25]), 2) == [b"0.500000:1:b:c", b"0.250000:0:a"]
