"""What a client must not be able to tell: the same calls to Guard and to the bare server behind it.

Each check takes a Pair. Guard runs every stage in shadow, so everything that a client sees must be the same: status,
text, answers bit for bit, initial and trailing metadata. Only Guard's own trailer, the decision id, is more.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client
import tritonclient.grpc.aio as aio_client
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from tests.servers.calls import digits, stream, strings, unary
from tests.servers.models import images


@dataclass(frozen=True)
class Pair:
    """A bare server and the same server behind Guard, as HOST:PORT."""

    bare: str
    guarded: str

    def same(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make the call to both, compare, return the guarded outcome."""
        bare, guarded = call(self.bare, *args, **kwargs), call(self.guarded, *args, **kwargs)
        assert guarded.seen == bare.seen
        return guarded


def image_input(x: np.ndarray) -> client.InferInput:
    tensor = client.InferInput("image", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    return tensor


# --- what a server says of itself


def health_and_metadata(pair: Pair) -> None:
    for method, request in (
        ("ServerMetadata", b""),
        ("ModelReady", pb.ModelReadyRequest(name="digits").SerializeToString()),
        ("ModelMetadata", pb.ModelMetadataRequest(name="digits").SerializeToString()),
    ):
        assert pair.same(unary, method, request).code == "OK"
    with client.InferenceServerClient(pair.guarded) as guarded:
        assert guarded.is_server_live()
        assert guarded.is_server_ready()
        assert guarded.is_model_ready("digits")
        assert guarded.get_model_metadata("digits").name == "digits"


# --- inference


def infer_raw(pair: Pair) -> None:
    for n in (1, 3, 17):
        outcome = pair.same(unary, "ModelInfer", digits(images(n, seed=n)).SerializeToString())
        assert outcome.code == "OK"
        assert outcome.decision_id


def infer_typed(pair: Pair) -> None:
    x = images(3)
    outcome = pair.same(unary, "ModelInfer", digits(x, raw=False).SerializeToString())
    assert outcome.code == "OK"
    assert client.InferResult(pb.ModelInferResponse.FromString(outcome.bodies[0])) is not None


def infer_by_client(pair: Pair) -> None:
    x = images(4, seed=2)
    answers = []
    for address in (pair.bare, pair.guarded):
        with client.InferenceServerClient(address) as server:
            wanted = [client.InferRequestedOutput("probabilities")]
            result = server.infer("digits", [image_input(x)], outputs=wanted, request_id="r7", headers={"x-team": "a"})
            assert result.get_response().id == "r7"
            answers.append(result.as_numpy("probabilities"))
    assert answers[0].shape == (4, 10)
    assert np.array_equal(answers[0], answers[1])
    assert len(set(answers[0].argmax(axis=1))) > 1  # the classifier does tell inputs apart


async def infer_by_aio_client(pair: Pair) -> None:
    x = images(2, seed=3)
    answers = []
    for address in (pair.bare, pair.guarded):
        async with aio_client.InferenceServerClient(address) as server:
            result = await server.infer("digits", [image_input(x)])
            answers.append(result.as_numpy("probabilities"))
    assert np.array_equal(answers[0], answers[1])


def many_at_once(pair: Pair) -> None:
    """Forty calls in flight on one connection: every answer belongs to its question."""
    xs = [images(1, seed=i) for i in range(40)]
    answers: dict[tuple[str, int], np.ndarray] = {}
    for address in (pair.bare, pair.guarded):
        done = threading.Semaphore(0)

        def keep(i: int, result: Any, error: Any, address: str = address, done: Any = done) -> None:
            answers[address, i] = error if result is None else result.as_numpy("probabilities")
            done.release()

        with client.InferenceServerClient(address) as server:
            for i, x in enumerate(xs):
                server.async_infer(
                    "digits", [image_input(x)], callback=lambda result, error, i=i: keep(i, result, error)
                )
            assert all(done.acquire(timeout=30) for _ in xs)
    for i in range(len(xs)):
        assert np.array_equal(answers[pair.bare, i], answers[pair.guarded, i])


def large_messages(pair: Pair) -> None:
    """Past gRPC's default of 4 MiB."""
    body = digits(images(1) * np.ones((1500, 1, 1, 1), np.float32)).SerializeToString()
    assert len(body) > 4 * 1024 * 1024
    assert pair.same(unary, "ModelInfer", body).code == "OK"


def compressed(pair: Pair) -> None:
    body = digits(images(8, seed=5)).SerializeToString()
    plain = unary(pair.bare, "ModelInfer", body)
    for algorithm in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        assert pair.same(unary, "ModelInfer", body, compression=algorithm).bodies == plain.bodies
    with client.InferenceServerClient(pair.guarded) as server:
        for name in ("gzip", "deflate"):
            result = server.infer("digits", [image_input(images(8, seed=5))], compression_algorithm=name)
            assert result.as_numpy("probabilities").shape == (8, 10)


# --- errors


def errors(pair: Pair) -> None:
    """An error of the server arrives as it was."""
    other_version = digits(images(1), version="9").SerializeToString()
    assert pair.same(unary, "ModelInfer", other_version).code != "OK"
    request = pb.ModelMetadataRequest(name="digits", version="9").SerializeToString()
    assert pair.same(unary, "ModelMetadata", request).code == "NOT_FOUND"
    nobody = pb.ModelInferRequest(model_name="nobody").SerializeToString()
    assert [unary(a, "ModelInfer", nobody).code for a in (pair.bare, pair.guarded)] == ["NOT_FOUND", "NOT_FOUND"]


def unknown_models(pair: Pair) -> None:
    """Where unlisted models are let through, the server says itself that it does not know one."""
    for method, request in (
        ("ModelInfer", pb.ModelInferRequest(model_name="nobody")),
        ("ModelMetadata", pb.ModelMetadataRequest(name="nobody")),
        ("ModelReady", pb.ModelReadyRequest(name="nobody")),
    ):
        pair.same(unary, method, request.SerializeToString())


def bad_shapes(pair: Pair) -> None:
    """Refused by both; Guard's code is INVALID_ARGUMENT wherever servers differ in theirs."""
    short = digits(images(2))
    short.raw_input_contents[0] = short.raw_input_contents[0][:-4]
    flat = digits(images(2))
    flat.inputs[0].shape[:] = [2, 784]
    wrong_type = digits(images(2))
    wrong_type.inputs[0].datatype = "INT32"
    other_name = digits(images(2))
    other_name.inputs[0].name = "picture"
    for request in (short, flat, wrong_type, other_name):
        outcome = unary(pair.guarded, "ModelInfer", request.SerializeToString())
        assert outcome.code == "INVALID_ARGUMENT"
        assert outcome.details
    with client.InferenceServerClient(pair.guarded) as server, pytest.raises(InferenceServerException) as caught:
        server.infer("digits", [image_input(images(1)[:, :, :14])])
    assert "INVALID_ARGUMENT" in str(caught.value.status())


# --- time


def deadline(pair: Pair) -> None:
    with client.InferenceServerClient(pair.guarded) as server, pytest.raises(InferenceServerException) as caught:
        server.infer("digits", [image_input(images(900, seed=1))], client_timeout=1e-4)
    assert "Deadline Exceeded" in str(caught.value) or "DEADLINE_EXCEEDED" in str(caught.value.status())
    assert unary(pair.guarded, "ModelInfer", digits(images(1)).SerializeToString()).code == "OK"


# --- BYTES and streams, for servers that have the models for it


def texts(pair: Pair) -> None:
    values = [b"", b"plain", "größer".encode(), b"y" * 70_000]
    for raw in (True, False):
        assert pair.same(unary, "ModelInfer", strings(values, raw=raw).SerializeToString()).code == "OK"
    with client.InferenceServerClient(pair.guarded) as server:
        tensor = client.InferInput("INPUT0", [4], "BYTES")
        tensor.set_data_from_numpy(np.array(values, dtype=object))
        result = server.infer("identity", [tensor])
    assert result.as_numpy("OUTPUT0").ravel().tolist() == values


def binary_strings(pair: Pair) -> None:
    """Not every BYTES is text."""
    values = [bytes(range(256)), b"\xff\xfe", b"\x00"]
    for raw in (True, False):
        assert pair.same(unary, "ModelInfer", strings(values, raw=raw).SerializeToString()).code == "OK"


def stream_of_requests(pair: Pair) -> None:
    bodies = [digits(images(2, seed=i), request_id=f"s{i}").SerializeToString() for i in range(5)]
    outcome = pair.same(stream, bodies)
    assert outcome.code == "OK"
    assert len(outcome.bodies) == 5


def stream_by_client(pair: Pair) -> None:
    """tritonclient's own stream: ids come back, and an invalid message does not end the stream."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    x = images(2, seed=4)
    with client.InferenceServerClient(pair.guarded) as server:
        server.start_stream(lambda result, error: answers.put((result, error)))
        server.async_stream_infer("digits", [image_input(x)], request_id="first")
        result, error = answers.get(timeout=20)
        assert error is None
        assert result.get_response().id == "first"
        alone = server.infer("digits", [image_input(x)]).as_numpy("probabilities")
        assert np.array_equal(result.as_numpy("probabilities"), alone)
        server.async_stream_infer("digits", [image_input(x[:, :, :14])], request_id="second")
        result, error = answers.get(timeout=20)
        assert result is None
        assert error is not None
        server.async_stream_infer("digits", [image_input(x)], request_id="third")
        result, error = answers.get(timeout=20)
        assert error is None
        server.stop_stream()


EVERYWHERE = (
    health_and_metadata,
    infer_raw,
    infer_typed,
    infer_by_client,
    many_at_once,
    large_messages,
    compressed,
    errors,
    bad_shapes,
    deadline,
    texts,
    stream_of_requests,
)
