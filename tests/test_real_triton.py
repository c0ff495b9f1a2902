"""tritonclient unchanged, against Guard in front of a real Triton 2.51: only the decision id tells them apart."""

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as client
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from tests.servers import conformance, guard
from tests.servers.calls import digits, stream, strings, unary
from tests.servers.conformance import Pair, image_input
from tests.servers.models import faint_stripes, images

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def guarded(triton: str, clean_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[guard.Guarded]:
    """Guard with every stage in shadow for the digits, on a profile that `guard fit` learns from this Triton."""
    directory = tmp_path_factory.mktemp("guard")
    guard.fit(["--upstream", triton, "--model", "digits", "--clean", str(clean_file), "--out", "profile"], directory)
    settings = {
        "upstream": {"address": triton},
        "unlisted_models": "allow",
        "models": [
            {"name": "digits", "profile": str(directory / "profile"), "mode": "shadow", **guard.EVERY_STAGE},
            *({"name": name} for name in ("identity", "repeat")),
        ],
    }
    with guard.start(directory, settings) as running:
        yield running


@pytest.fixture
def pair(triton: str, guarded: guard.Guarded) -> Pair:
    return Pair(bare=triton, guarded=guarded.address)


@pytest.mark.parametrize(
    "check",
    [*conformance.EVERYWHERE, conformance.binary_strings, conformance.unknown_models, conformance.stream_by_client],
    ids=lambda check: check.__name__,
)
def test_the_same_as_bare(pair: Pair, check: Callable[[Pair], None]) -> None:
    check(pair)


async def test_the_same_as_bare_for_the_asyncio_client(pair: Pair) -> None:
    await conformance.infer_by_aio_client(pair)


def test_every_stage_really_ran_in_shadow(pair: Pair, guarded: guard.Guarded) -> None:
    """The control of every 'bit-equal' above: what would be purified is answered unchanged, and recorded."""
    outcome = pair.same(unary, "ModelInfer", digits(faint_stripes()).SerializeToString())
    event = _event(guarded, outcome.decision_id)
    assert event["action"] == "allow"
    assert event["would_be"] == "purify"  # by default the mildest that its stages can
    assert {finding["stage"] for finding in event["findings"]} >= {"feature_squeezing", "fingerprint"}


def _event(guarded: guard.Guarded, decision_id: str | None) -> dict[str, Any]:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        found = [event for event in guarded.events() if event["decision_id"] == decision_id]
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"no audit event {decision_id}")


def test_config_and_statistics(pair: Pair) -> None:
    request = pb.ModelConfigRequest(name="digits").SerializeToString()
    assert pair.same(unary, "ModelConfig", request).code == "OK"
    with client.InferenceServerClient(pair.guarded) as server:
        assert server.get_model_config("digits").config.max_batch_size == 4096
        statistics = server.get_inference_statistics("digits")
    assert statistics.model_stats[0].inference_count > 0


def test_a_decoupled_model_streams_its_answers(pair: Pair) -> None:
    request = pb.ModelInferRequest(model_name="repeat", id="r1")
    request.inputs.add(name="IN", datatype="INT32", shape=[4])
    request.raw_input_contents.append(np.arange(4, dtype=np.int32).tobytes())
    outcome = pair.same(stream, [request.SerializeToString()])
    assert outcome.code == "OK"
    assert len(outcome.bodies) >= 4

    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with client.InferenceServerClient(pair.guarded) as server:
        server.start_stream(lambda result, error: answers.put((result, error)))
        tensor = client.InferInput("IN", [4], "INT32")
        tensor.set_data_from_numpy(np.arange(4, dtype=np.int32))
        server.async_stream_infer("repeat", [tensor])
        got = [answers.get(timeout=20) for _ in range(4)]
        server.stop_stream()
    assert [result.as_numpy("OUT").item() for result, _ in got] == [0, 1, 2, 3]


def test_an_error_of_the_model_arrives_as_it_was(pair: Pair) -> None:
    request = strings([b"x"])
    request.parameters["fail"].bool_param = True
    outcome = pair.same(unary, "ModelInfer", request.SerializeToString())
    assert outcome.code == "INVALID_ARGUMENT"
    assert "asked to fail" in outcome.details
    assert (
        "asked to fail"
        in pb.ModelStreamInferResponse.FromString(
            pair.same(stream, [request.SerializeToString()]).bodies[0]
        ).error_message
    )


def test_a_deadline_ends_a_slow_call(pair: Pair) -> None:
    request = strings([b"x"])
    request.parameters["delay_ms"].int64_param = 3000
    for address in (pair.bare, pair.guarded):
        assert unary(address, "ModelInfer", request.SerializeToString(), timeout_s=0.3).code == "DEADLINE_EXCEEDED"


def test_a_cancelled_call_is_over(pair: Pair) -> None:
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with client.InferenceServerClient(pair.guarded) as server:
        tensor = client.InferInput("INPUT0", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([b"x"], dtype=object))
        call = server.async_infer(
            "identity", [tensor], lambda result, error: answers.put((result, error)), parameters={"delay_ms": 3000}
        )
        time.sleep(0.2)
        call.cancel()
        result, error = answers.get(timeout=20)
    assert result is None
    assert isinstance(error, InferenceServerException)
    assert "CANCELLED" in str(error.status())


def test_a_requested_output_and_version(pair: Pair) -> None:
    request = digits(images(2), version="1")
    request.outputs.add(name="probabilities")
    assert pair.same(unary, "ModelInfer", request.SerializeToString()).code == "OK"
    request.outputs[0].name = "nothing"
    assert pair.same(unary, "ModelInfer", request.SerializeToString()).code == "INVALID_ARGUMENT"


def test_a_compressed_stream(pair: Pair) -> None:
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with client.InferenceServerClient(pair.guarded) as server:
        server.start_stream(lambda result, error: answers.put((result, error)), compression_algorithm="gzip")
        server.async_stream_infer("digits", [image_input(images(5))])
        result, error = answers.get(timeout=20)
        server.stop_stream()
    assert error is None
    assert result.as_numpy("probabilities").shape == (5, 10)
