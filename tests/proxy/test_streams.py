"""ModelStreamInfer in both dialects: every message inspected, none forwarded that was not."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from guard.wire import messages
from guard.wire import open_inference_pb2 as pb
from tests.proxy.test_inspection import MEAN, UNIFORM, VIEWS, ZERO, model
from tests.proxy.world import (
    CLEAN,
    FLAGGED,
    SQUEEZED,
    STREAM,
    Guarded,
    Server,
    answer,
    ended,
    eventually,
    guarding,
    read,
    request,
    serving,
    settings,
    world,
)

pytestmark = pytest.mark.usefixtures("world_stages")
__all__ = ["model"]  # the fixture

REFUSED = "the request was refused"


@pytest.fixture(params=["triton", "mlserver"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def talking(dialect: str, **changes: Any) -> Any:
    return world({"wrapped": dialect == "triton"}, dialect=dialect, **changes)


def outputs(bodies: list[bytes], dialect: str) -> list[Any]:
    """Each answer's output; an error's text."""
    found: list[Any] = []
    for body in bodies:
        inner = messages.unwrap_stream(body, dialect)
        found.append(pb.ModelStreamInferResponse.FromString(body).error_message if inner is None else read(inner))
    return found


async def test_clean_messages_travel_as_bytes(model: Any, dialect: str) -> None:
    sent = [request(request_id=str(i)) + b"\xfa\x3e\x03xyz" for i in range(5)]
    async with talking(dialect, **model(MEAN)) as (server, guarded):
        reply = await guarded.stream(*sent, metadata=(("x-key", "v"),))
        (call,) = server.calls(STREAM)
        assert call.bodies == sent
        assert ("x-key", "v") in call.metadata
        assert reply.code is grpc.StatusCode.OK
        assert reply.bodies == [messages.wrap_stream(await server.plain(body, None), dialect) for body in sent]
        assert len(reply.trailing["guard-decision-id"]) == 32


async def test_refused_and_invalid_messages_in_tritons_dialect(model: Any, tmp_path: Path) -> None:
    bad = request(np.full((1, 4), 7, np.float32), request_id="bad")
    sent = [request(), request(FLAGGED, request_id="f"), bad, b"\xff\xff", request()]
    async with talking("triton", **model(MEAN)) as (server, guarded):
        reply = await guarded.stream(*sent)
        assert server.calls(STREAM)[0].bodies == [request(), request()]
        errors = [pb.ModelStreamInferResponse.FromString(body) for body in reply.bodies]
        texts = [error.error_message for error in errors if error.error_message]
        assert texts[0] == REFUSED
        assert "outside" in texts[1]
        assert len(texts) == 3
        assert [error.infer_response.id for error in errors if error.error_message] == ["f", "bad", ""]
        assert len(reply.bodies) == 5
        assert reply.code is grpc.StatusCode.OK
    events = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [event["decision_id"] for event in events] == [reply.trailing["guard-decision-id"] + ".2"]


@pytest.mark.parametrize(
    ("body", "code"),
    [(request(FLAGGED), grpc.StatusCode.PERMISSION_DENIED), (b"\xff", grpc.StatusCode.INVALID_ARGUMENT)],
)
async def test_a_refusal_ends_the_stream_in_mlservers_dialect(model: Any, body: bytes, code: grpc.StatusCode) -> None:
    async with talking("mlserver", **model(MEAN)) as (server, guarded):
        server.stream = server.lingering
        reply = await guarded.stream(request(), body, request())
        assert reply.code is code
        assert reply.trailing["guard-decision-id"]
        assert all(call.bodies in ([], [request()]) for call in server.calls(STREAM))
        await eventually(lambda: all(call.cancelled for call in server.calls(STREAM)))


async def test_a_first_message_that_is_refused_needs_no_upstream(model: Any) -> None:
    async with talking("triton", **model(MEAN)) as (server, guarded):
        reply = await guarded.stream(request(FLAGGED))
        assert outputs(reply.bodies, "triton") == [REFUSED]
        assert not server.calls(STREAM)


async def test_a_refusal_arrives_while_the_stream_stays_open(model: Any) -> None:
    async with talking("triton", **model(MEAN)) as (_, guarded):
        call = guarded.channel.stream_stream(STREAM)(timeout=20)
        await call.write(request(FLAGGED))
        assert outputs([await call.read()], "triton") == [REFUSED]
        await call.write(request())
        np.testing.assert_array_equal(outputs([await call.read()], "triton")[0], answer(CLEAN))
        await call.done_writing()
        assert (await ended(call)).code is grpc.StatusCode.OK


async def test_an_empty_stream_ends_well(model: Any, dialect: str) -> None:
    async with talking(dialect, **model(MEAN)) as (_, guarded):
        reply = await guarded.stream()
        assert (reply.code, reply.bodies) == (grpc.StatusCode.OK, [])


async def test_a_view_detector_refuses_before_the_message_is_forwarded(model: Any) -> None:
    async with talking("triton", **model(VIEWS)) as (server, guarded):
        reply = await guarded.stream(request(SQUEEZED), request())
        assert server.calls(STREAM)[0].bodies == [request()]
        first, second = outputs(reply.bodies, "triton")
        assert first == REFUSED
        np.testing.assert_array_equal(second, answer(CLEAN))


async def test_a_view_detector_purifies_the_message(model: Any, dialect: str) -> None:
    async with talking(dialect, **model(VIEWS, ZERO, policy={"on_input": "purify"})) as (_, guarded):
        reply = await guarded.stream(request(SQUEEZED))
        np.testing.assert_array_equal(outputs(reply.bodies, dialect)[0], answer(np.zeros_like(SQUEEZED)))


async def test_shadow_views_are_compared_beside_the_stream(model: Any, dialect: str) -> None:
    async with talking(dialect, **model(VIEWS, mode="shadow")) as (server, guarded):
        reply = await guarded.stream(request(SQUEEZED))
        assert server.calls(STREAM)[0].bodies == [request(SQUEEZED)]
        np.testing.assert_array_equal(outputs(reply.bodies, dialect)[0], answer(SQUEEZED))
        await eventually(lambda: guarded.count("guard_decisions_total", model="m", action="allow", would_be="deny"))


@pytest.mark.parametrize("ids", [["a", "b", "c"], ["", "", ""], ["same", "same", "same"]])
async def test_answers_are_protected_whatever_their_order_and_number(model: Any, dialect: str, ids: list[str]) -> None:
    """A decoupled model: three answers to the first message, none to the second, one to the third, all backwards."""
    sent = [request(x, request_id=i) for x, i in zip([CLEAN, SQUEEZED, FLAGGED], ids, strict=True)]
    async with talking(dialect, **model(MEAN, UNIFORM, policy={"on_input": "degrade"})) as (server, guarded):

        async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            first, _, third = [await server.plain(body, context) async for body in bodies]
            for inner in (third, first, first, first):
                yield messages.wrap_stream(inner, dialect)

        server.stream = stream
        reply = await guarded.stream(*sent)
        flagged, *clean = outputs(reply.bodies, dialect)
        np.testing.assert_allclose(flagged, 1 / 3, rtol=1e-6)
        for y in clean:
            np.testing.assert_array_equal(y, answer(CLEAN))
        inner = [messages.unwrap_stream(body, dialect) or b"" for body in reply.bodies]
        assert [pb.ModelInferResponse.FromString(body).id for body in inner] == [ids[2], *[ids[0]] * 3]


async def test_the_upstreams_own_errors_get_their_ids_back(model: Any) -> None:
    async with talking("triton", **model(MEAN, UNIFORM)) as (server, guarded):

        async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for body in bodies:
                number = pb.ModelInferRequest.FromString(body).id
                yield messages.stream_error("out of memory", "triton", number) or b""

        server.stream = stream
        reply = await guarded.stream(request(request_id="mine"))
        error = pb.ModelStreamInferResponse.FromString(reply.bodies[0])
        assert (error.error_message, error.infer_response.id) == ("out of memory", "mine")


async def test_an_answer_that_cannot_be_recognised_does_not_leave(model: Any, dialect: str) -> None:
    always = {"outputs": [{"stage": "test_uniform", "when": "always"}]}
    async with talking(dialect, **model(always)) as (server, guarded):

        async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for body in bodies:
                message = pb.ModelInferResponse.FromString(await server.plain(body, context))
                message.id = "another"
                yield messages.wrap_stream(message.SerializeToString(), dialect)

        server.stream = stream
        reply = await guarded.stream(request())
        text = "upstream answered in an unknown form"
        if dialect == "triton":
            assert outputs(reply.bodies, dialect) == [text]
        else:
            assert (reply.code, reply.details, reply.bodies) == (grpc.StatusCode.INTERNAL, text, [])


async def test_garbage_that_must_be_protected_does_not_leave(model: Any) -> None:
    always = {"outputs": [{"stage": "test_uniform", "when": "always"}]}
    async with talking("triton", **model(always)) as (server, guarded):

        async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for _ in bodies:
                yield b"\xff\xff"

        server.stream = stream
        assert outputs((await guarded.stream(request())).bodies, "triton") == ["upstream answered in an unknown form"]


@pytest.mark.parametrize("on_error", ["allow", "deny"])
async def test_an_answer_of_another_form_is_the_outputs_error(model: Any, dialect: str, on_error: str) -> None:
    always = {"outputs": [{"stage": "test_uniform", "when": "always", "on_error": on_error}]}
    async with talking(dialect, **model(always)) as (server, guarded):

        async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for body in bodies:
                inner = pb.ModelInferResponse(model_name="m", id=pb.ModelInferRequest.FromString(body).id)
                yield messages.wrap_stream(inner.SerializeToString(), dialect)

        server.stream = stream
        reply = await guarded.stream(request(request_id="mine"))
        assert guarded.count("guard_stage_errors_total", model="m", stage="test_uniform") == 1
        if on_error == "allow":
            inner = messages.unwrap_stream(reply.bodies[0], dialect) or b""
            assert pb.ModelInferResponse.FromString(inner).id == "mine"
        elif dialect == "triton":
            assert pb.ModelStreamInferResponse.FromString(reply.bodies[0]).error_message == REFUSED
        else:
            assert (reply.code, reply.bodies) == (grpc.StatusCode.PERMISSION_DENIED, [])


async def test_the_end_of_the_upstreams_stream_is_kept(model: Any, dialect: str) -> None:
    async with talking(dialect, **model(MEAN)) as (server, guarded):

        async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            await context.send_initial_metadata((("x-initial", "i"),))
            async for body in bodies:
                yield messages.wrap_stream(await server.plain(body, context), dialect)
                await context.abort(grpc.StatusCode.ABORTED, "enough", (("x-trailing", "t"),))

        server.stream = stream
        call = guarded.channel.stream_stream(STREAM)(timeout=20)
        await call.write(request())
        reply = await ended(call)
        assert (reply.code, reply.details) == (grpc.StatusCode.ABORTED, "enough")
        assert len(reply.bodies) == 1
        assert reply.initial["x-initial"] == "i"
        assert reply.trailing["x-trailing"] == "t"


async def test_a_cancelled_stream_is_cancelled_behind(model: Any, dialect: str) -> None:
    async with talking(dialect, **model(MEAN)) as (server, guarded):
        server.stream = server.lingering
        call = guarded.channel.stream_stream(STREAM)(timeout=20)
        await call.write(request())
        await call.read()
        call.cancel()
        await eventually(lambda: server.calls(STREAM)[0].cancelled)
        await eventually(lambda: guarded.app.runtime.calls == 0)
        await eventually(lambda: guarded.count("guard_calls_in_flight") == 0)


async def test_messages_for_another_server_are_invalid(model: Any) -> None:
    async with serving() as first, serving() as second:
        made = model(MEAN)
        made["models"].append({"name": "n", "upstream": {"address": second.address}})
        async with guarding(settings(first.address, **made)) as guarded:
            reply = await guarded.stream(request(), request(model="n"))
            assert any("one server" in text for text in outputs(reply.bodies, "triton") if isinstance(text, str))
            assert not second.calls(STREAM)


def silent(address: str, model: Any) -> Any:
    return settings(address, **model(MEAN), upstream={"address": address, "timeout_s": 3.0})


async def test_a_silent_stream_ends(model: Any) -> None:
    async with serving() as server, guarding(silent(server.address, model)) as guarded:
        call = guarded.channel.stream_stream(STREAM)(timeout=20)
        await call.write(request())
        reply = await ended(call)
        assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert len(reply.bodies) == 1


async def test_the_callers_deadline_ends_the_stream_behind(model: Any) -> None:
    async with talking("triton", **model(MEAN)) as (server, guarded):
        server.stream = server.lingering
        call = guarded.channel.stream_stream(STREAM)(timeout=0.5)
        await call.write(request())
        assert (await ended(call)).code is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: server.calls(STREAM)[0].cancelled)


async def test_a_slow_reader_holds_the_upstream_back(model: Any) -> None:
    """Nothing piles up in Guard: what the caller does not read is not asked for."""
    produced = 0

    async with talking("mlserver", **model(MEAN)) as (server, guarded):

        async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            nonlocal produced
            async for _ in bodies:
                for _ in range(1000):
                    produced += 1
                    yield b"x" * 100_000

        server.stream = stream
        call = guarded.channel.stream_stream(STREAM)(timeout=20)
        await call.write(request())
        await call.read()
        await asyncio.sleep(0.5)
        assert produced < 200
        call.cancel()


async def test_streams_count_as_calls_and_leave(model: Any) -> None:
    limits = {"max_concurrent_calls": 1, "max_queued_calls": 0, "drain_s": 0}
    async with talking("triton", **model(MEAN), limits=limits) as (server, guarded):
        assert isinstance(server, Server)
        assert isinstance(guarded, Guarded)
        call = guarded.channel.stream_stream(STREAM)(timeout=20)
        await call.write(request())
        await call.read()
        assert (await guarded.unary(request())).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await call.done_writing()
        assert (await ended(call)).code is grpc.StatusCode.OK
        assert (await guarded.unary(request())).body


@pytest.mark.parametrize("outputs", [(), (UNIFORM,)])
async def test_a_callers_rows_on_a_stream_are_counted_whether_answers_are_held_or_not(model: Any, outputs: Any) -> None:
    monitors = {"monitors": [{"stage": "test_repeats"}]}
    rng = np.random.default_rng(0)
    rows = [np.clip(CLEAN + rng.normal(0, 0.01, CLEAN.shape), 0, 1).astype(np.float32) for _ in range(5)]
    async with world(**model(MEAN, monitors, *outputs)) as (_, guarded):
        reply = await guarded.stream(*[request(x, request_id=str(i)) for i, x in enumerate(rows)])
        assert len(reply.bodies) == 5
        store = guarded.app.runtime.store

        async def known() -> int:
            return max((past.rows for _, past in await store.callers("m")), default=0)

        async with asyncio.timeout(5):
            while not await known():
                await asyncio.sleep(0.02)
