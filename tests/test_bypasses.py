"""Ways around the inspection, tried for real. Each has a control that shows the bare server accepting it.

Whether anything got through is read from the server behind: Triton's own statistics, or what the lenient server kept.
"""

import queue
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException, shared_memory

from tests.servers import guard, lenient
from tests.servers.calls import digits, stream, strings, unary
from tests.servers.conformance import image_input
from tests.servers.models import faint_stripes, images

pytestmark = pytest.mark.triton

LOOKS = 4
OUTSIDE = np.full((1, 1, 28, 28), 7.0, np.float32)


@dataclass(frozen=True)
class Stand:
    """Triton, and Guard in front of it that enforces everything for the digits."""

    bare: str
    guarded: str

    def executed(self, model: str = "digits") -> int:
        """Requests that this model of the bare server ever saw, by its own count, once that has come to rest.

        Triton counts a little after it has answered, so one look could miss a call, or blame the next one for it.
        """
        with client.InferenceServerClient(self.bare) as server:
            looks: list[int] = []
            while len(looks) < LOOKS or len(set(looks[-LOOKS:])) > 1:
                statistics = server.get_inference_statistics(model).model_stats[0].inference_stats
                looks.append(statistics.success.count + statistics.fail.count)
                time.sleep(0.1)
        return looks[-1]

    @contextmanager
    def nothing_executed(self, model: str = "digits") -> Iterator[None]:
        before = self.executed(model)
        yield
        assert self.executed(model) == before


@pytest.fixture(scope="module")
def stand(triton: str, clean_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    directory = tmp_path_factory.mktemp("guard")
    guard.fit(["--upstream", triton, "--model", "digits", "--clean", str(clean_file), "--out", "profile"], directory)
    model = {
        "name": "digits",
        "profile": str(directory / "profile"),
        "mode": "enforce",
        "detectors": [{"stage": "feature_squeezing"}],
        "monitors": [{"stage": "fingerprint", "mode": "shadow"}],
    }
    names = ("identity", "repeat", "spare")
    settings = {"upstream": {"address": triton}, "models": [model, *({"name": name} for name in names)]}
    with guard.start(directory, settings) as running:
        yield Stand(triton, running.address)


# --- both encodings in one request: a proxy that reads one and a server that reads the other


def mixed() -> pb.ModelInferRequest:
    """Harmless raw bytes, something else in `contents`."""
    request = digits(images(1))
    request.inputs[0].contents.fp32_contents.extend(OUTSIDE.ravel().tolist())
    return request


def twice() -> pb.ModelInferRequest:
    """One input under two descriptions: which of them counts is each server's own affair."""
    request = digits(OUTSIDE)
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(images(1).tobytes())
    return request


@pytest.mark.parametrize("request_of", [mixed, twice])
def test_two_versions_of_one_input(tmp_path: Path, request_of: Callable[[], pb.ModelInferRequest]) -> None:
    with lenient.start() as server:
        settings = {"upstream": {"address": server.address}, "models": [{"name": "digits"}]}
        control = unary(server.address, "ModelInfer", request_of().SerializeToString())
        assert control.code == "OK"
        believed = np.frombuffer(pb.ModelInferResponse.FromString(control.bodies[0]).raw_output_contents[0], np.float32)
        assert believed.item() == OUTSIDE.sum()  # the control used what may never have been inspected
        server.requests.clear()
        with guard.start(tmp_path, settings) as guarded:
            outcome = unary(guarded.address, "ModelInfer", request_of().SerializeToString())
            assert outcome.code == "INVALID_ARGUMENT"
            assert server.requests == []
            assert unary(guarded.address, "ModelInfer", digits(images(1)).SerializeToString()).code == "OK"
            assert len(server.requests) == 1


def test_mixed_encodings_in_front_of_triton(stand: Stand) -> None:
    with stand.nothing_executed():
        assert unary(stand.guarded, "ModelInfer", mixed().SerializeToString()).code == "INVALID_ARGUMENT"
    assert unary(stand.bare, "ModelInfer", mixed().SerializeToString()).code == "INVALID_ARGUMENT"


# --- shared memory: an inference whose input is not on the wire


@pytest.fixture
def region(stand: Stand) -> Iterator[tuple[str, np.ndarray]]:
    """A region that the bare server knows, with an image in it."""
    x, name = images(1), f"guard-test-{uuid.uuid4().hex[:8]}"
    handle = shared_memory.create_shared_memory_region(name, name, x.nbytes)
    try:
        shared_memory.set_shared_memory_region(handle, [x])
        with client.InferenceServerClient(stand.bare) as server:
            server.register_system_shared_memory(name, name, x.nbytes)
            yield name, x
            server.unregister_system_shared_memory(name)
    finally:
        shared_memory.destroy_shared_memory_region(handle)


def by_shared_memory(region: str, x: np.ndarray) -> client.InferInput:
    tensor = client.InferInput("image", list(x.shape), "FP32")
    tensor.set_shared_memory(region, x.nbytes)
    return tensor


def test_shared_memory_inputs(stand: Stand, region: tuple[str, np.ndarray]) -> None:
    with client.InferenceServerClient(stand.bare) as server:
        before = stand.executed()
        server.infer("digits", [by_shared_memory(*region)])
        assert stand.executed() == before + 1  # the control: the bare server answers
    with client.InferenceServerClient(stand.guarded) as server, stand.nothing_executed():
        for compression in (None, "gzip"):
            with pytest.raises(InferenceServerException, match="shared") as caught:
                server.infer("digits", [by_shared_memory(*region)], compression_algorithm=compression)
            assert "INVALID_ARGUMENT" in str(caught.value.status())


def test_shared_memory_outputs(stand: Stand, region: tuple[str, np.ndarray]) -> None:
    """An answer that Guard could not protect, because it does not pass through Guard."""
    wanted = client.InferRequestedOutput("probabilities")
    wanted.set_shared_memory(region[0], 40)
    with client.InferenceServerClient(stand.bare) as server:
        answer = server.infer("digits", [image_input(region[1])], outputs=[wanted])
        assert not any(answer.get_response().raw_output_contents)  # the control: nothing on the wire
    with (
        client.InferenceServerClient(stand.guarded) as server,
        stand.nothing_executed(),
        pytest.raises(InferenceServerException, match="shared"),
    ):
        server.infer("digits", [image_input(region[1])], outputs=[wanted])


def test_shared_memory_for_a_model_without_a_profile(stand: Stand) -> None:
    """What cannot be inspected is refused for every model, not only for those with stages."""
    request = strings([b"x"])
    del request.raw_input_contents[:]
    request.inputs[0].parameters["shared_memory_region"].string_param = "any"
    request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 5
    with stand.nothing_executed("identity"):
        assert unary(stand.guarded, "ModelInfer", request.SerializeToString()).code == "INVALID_ARGUMENT"


def test_registering_shared_memory(stand: Stand) -> None:
    name = f"guard-test-{uuid.uuid4().hex[:8]}"
    handle = shared_memory.create_shared_memory_region(name, name, 64)
    try:
        with client.InferenceServerClient(stand.guarded) as guarded, client.InferenceServerClient(stand.bare) as bare:
            for call in (
                lambda: guarded.register_system_shared_memory(name, name, 64),
                lambda: guarded.unregister_system_shared_memory(name),
                guarded.get_system_shared_memory_status,
                lambda: guarded.register_cuda_shared_memory(name, b"aGFuZGxl", 0, 64),
                guarded.unregister_cuda_shared_memory,
                guarded.get_cuda_shared_memory_status,
            ):
                with pytest.raises(InferenceServerException) as caught:
                    call()
                assert "PERMISSION_DENIED" in str(caught.value.status())
            assert name not in bare.get_system_shared_memory_status().regions
            bare.register_system_shared_memory(name, name, 64)  # the control
            assert name in bare.get_system_shared_memory_status().regions
            bare.unregister_system_shared_memory(name)
    finally:
        shared_memory.destroy_shared_memory_region(handle)


# --- streams: every message is inspected, not only the first


def test_each_message_of_a_stream(stand: Stand, region: tuple[str, np.ndarray]) -> None:
    hidden = pb.ModelInferRequest(model_name="digits", id="hidden")
    tensor = hidden.inputs.add(name="image", datatype="FP32", shape=[1, 1, 28, 28])
    tensor.parameters["shared_memory_region"].string_param = region[0]
    tensor.parameters["shared_memory_byte_size"].int64_param = region[1].nbytes
    outside, other = digits(OUTSIDE, request_id="outside"), mixed()
    good = digits(images(1), request_id="good")
    assert stream(stand.bare, [m.SerializeToString() for m in (good, hidden, outside)]).code == "OK"

    def ask(*messages: pb.ModelInferRequest) -> list[pb.ModelStreamInferResponse]:
        outcome = stream(stand.guarded, [message.SerializeToString() for message in messages])
        return [pb.ModelStreamInferResponse.FromString(body) for body in outcome.bodies]

    control = [
        pb.ModelStreamInferResponse.FromString(body).error_message
        for body in stream(stand.bare, [m.SerializeToString() for m in (good, hidden, outside)]).bodies
    ]
    assert control == ["", "", ""]  # the bare server answers all three
    with stand.nothing_executed():
        assert all(answer.error_message for answer in ask(hidden, outside, other))
    answers = ask(good, hidden, outside, other, good)
    assert sorted(bool(answer.error_message) for answer in answers) == [False, False, True, True, True]


def test_a_refused_input_gets_no_answer_in_a_stream(stand: Stand) -> None:
    """Stages, too, act on every message: the third is refused after two clean ones on the same stream."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask(address: str) -> list[bool]:
        with client.InferenceServerClient(address) as server:
            server.start_stream(lambda result, error: answers.put((result, error)))
            got = []
            for x in (images(1), images(1, seed=1), faint_stripes()):
                server.async_stream_infer("digits", [image_input(x)])
                got.append(answers.get(timeout=20)[1] is None)
            with suppress(InferenceServerException):
                server.stop_stream()
        return got

    assert ask(stand.bare) == [True, True, True]
    assert ask(stand.guarded) == [True, True, False]


# --- control of the server through its inference port


def test_repository_control(stand: Stand) -> None:
    with client.InferenceServerClient(stand.guarded) as guarded, client.InferenceServerClient(stand.bare) as bare:
        for call in (
            lambda: guarded.unload_model("spare"),
            lambda: guarded.load_model("spare"),
            lambda: guarded.load_model("spare", config="{}"),
            guarded.get_model_repository_index,
        ):
            with pytest.raises(InferenceServerException) as caught:
                call()
            assert "PERMISSION_DENIED" in str(caught.value.status())
        assert bare.is_model_ready("spare")
        bare.unload_model("spare")  # the control: the bare server obeys
        assert not bare.is_model_ready("spare")
        bare.load_model("spare")
        assert bare.is_model_ready("spare")


def test_trace_and_log_settings(stand: Stand) -> None:
    with client.InferenceServerClient(stand.guarded) as guarded, client.InferenceServerClient(stand.bare) as bare:
        for call in (
            lambda: guarded.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
            guarded.get_trace_settings,
            lambda: guarded.update_log_settings({"log_verbose_level": 1}),
            guarded.get_log_settings,
        ):
            with pytest.raises(InferenceServerException) as caught:
                call()
            assert "PERMISSION_DENIED" in str(caught.value.status())
        assert bare.get_log_settings().settings["log_verbose_level"].uint32_param == 0
        bare.update_log_settings({"log_verbose_level": 1})  # the control
        assert bare.get_log_settings().settings["log_verbose_level"].uint32_param == 1
        bare.update_log_settings({"log_verbose_level": 0})


@pytest.mark.parametrize(
    "path",
    [
        "/inference.GRPCInferenceService/ModelInfer/",
        "/inference.GRPCInferenceService/modelinfer",
        "/inference.grpcinferenceservice/ModelInfer",
        "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/anything.Else/Entirely",
    ],
)
def test_paths_off_the_table(stand: Stand, path: str) -> None:
    with stand.nothing_executed():
        outcome = unary(stand.guarded, path, digits(images(1)).SerializeToString())
    assert outcome.code in {"PERMISSION_DENIED", "UNIMPLEMENTED"}
    assert outcome.bodies == ()


# --- classification: an answer in a form that no output protection reads


def test_class_count(stand: Stand) -> None:
    wanted = client.InferRequestedOutput("probabilities", class_count=3)
    with client.InferenceServerClient(stand.bare) as bare:
        answer = bare.infer("digits", [image_input(images(1))], outputs=[wanted]).as_numpy("probabilities")
        assert b":digit-" in answer.ravel()[0]  # the control: b'0.187714:5:digit-5'
    with client.InferenceServerClient(stand.guarded) as guarded:
        read = guarded.infer("digits", [image_input(images(1))], outputs=[wanted]).as_numpy("probabilities")
        assert read.tolist() == answer.tolist()  # nothing protects here, and it was read
    message = digits(images(1))
    message.outputs.add(name="probabilities").parameters["classification"].string_param = "3"
    with stand.nothing_executed():
        outcome = unary(stand.guarded, "ModelInfer", message.SerializeToString())
    assert (outcome.code, "classification" in outcome.details) == ("INVALID_ARGUMENT", True)


# --- values that no clean input has


def test_values_outside_the_bounds(stand: Stand) -> None:
    assert unary(stand.bare, "ModelInfer", digits(OUTSIDE).SerializeToString()).code == "OK"
    with stand.nothing_executed():
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            outcome = unary(stand.guarded, "ModelInfer", digits(OUTSIDE).SerializeToString(), compression=compression)
            assert outcome.code == "INVALID_ARGUMENT"
