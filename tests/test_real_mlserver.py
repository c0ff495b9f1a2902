"""tritonclient unchanged, against Guard in front of a real MLServer 1.7.1, and MLServer's own dialect of streams.

Run with `make test-mlserver`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from tests.servers import conformance, guard
from tests.servers.calls import digits, stream, strings, unary
from tests.servers.conformance import Pair
from tests.servers.models import images

pytestmark = pytest.mark.mlserver


@pytest.fixture(scope="module")
def pair(mlserver: str, clean_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("guard")
    guard.fit(["--upstream", mlserver, "--model", "digits", "--clean", str(clean_file), "--out", "profile"], directory)
    settings = {
        "upstream": {"address": mlserver, "dialect": "mlserver"},
        "unlisted_models": "allow",
        "models": [
            {"name": "digits", "profile": str(directory / "profile"), "mode": "shadow", **guard.EVERY_STAGE},
            *({"name": name} for name in ("identity", "words")),
        ],
    }
    with guard.start(directory, settings) as running:
        yield Pair(bare=mlserver, guarded=running.address)


@pytest.mark.parametrize(
    "check", [*conformance.EVERYWHERE, conformance.unknown_models], ids=lambda check: check.__name__
)
def test_the_same_as_bare(pair: Pair, check: Callable[[Pair], None]) -> None:
    check(pair)


async def test_the_same_as_bare_for_the_asyncio_client(pair: Pair) -> None:
    await conformance.infer_by_aio_client(pair)


def test_typed_questions_get_typed_answers(pair: Pair) -> None:
    for raw in (True, False):
        outcome = pair.same(unary, "ModelInfer", digits(images(2), raw=raw).SerializeToString())
        answer = pb.ModelInferResponse.FromString(outcome.bodies[0])
        assert bool(answer.outputs[0].contents.fp32_contents) is not raw


def test_a_stream_of_words_in_mlservers_dialect(pair: Pair) -> None:
    """Bare ModelInferResponse messages: Triton's wrapper would not parse to the same."""
    outcome = pair.same(stream, [strings([b"one two three"], model="words", raw=False).SerializeToString()])
    answers = [pb.ModelInferResponse.FromString(body) for body in outcome.bodies]
    assert [answer.outputs[0].contents.bytes_contents[0] for answer in answers] == [b"one", b"two", b"three"]


def test_an_invalid_message_ends_a_stream(pair: Pair) -> None:
    """The dialect has no message for an error: the stream's status says it."""
    good, bad = digits(images(1)), digits(images(1))
    bad.inputs[0].shape[:] = [1, 784]
    outcome = stream(pair.guarded, [good.SerializeToString(), bad.SerializeToString()])
    assert outcome.code == "INVALID_ARGUMENT"


def test_mixed_encodings(pair: Pair) -> None:
    """The control of test_bypasses: the real MLServer silently takes `contents`, whatever the raw bytes say."""
    mixed = digits(images(1))
    other = images(1, seed=5)
    mixed.inputs[0].contents.fp32_contents.extend(other.ravel().tolist())
    alone = unary(pair.bare, "ModelInfer", digits(other, raw=False).SerializeToString())
    believed = unary(pair.bare, "ModelInfer", mixed.SerializeToString())
    assert believed.code == "OK"
    assert np.array_equal(probabilities(believed.bodies[0]), probabilities(alone.bodies[0]))
    assert unary(pair.guarded, "ModelInfer", mixed.SerializeToString()).code == "INVALID_ARGUMENT"


def probabilities(body: bytes) -> np.ndarray:
    answer = pb.ModelInferResponse.FromString(body)
    typed = answer.outputs[0].contents.fp32_contents
    return np.array(typed, np.float32) if typed else np.frombuffer(answer.raw_output_contents[0], np.float32)


def test_repository_control_is_denied(pair: Pair) -> None:
    request = pb.RepositoryModelUnloadRequest(model_name="words").SerializeToString()
    assert unary(pair.guarded, "RepositoryModelUnload", request).code == "PERMISSION_DENIED"
    ready = pb.ModelReadyRequest(name="words").SerializeToString()
    assert unary(pair.bare, "ModelReady", ready).bodies == (b"\x08\x01",)
