"""The rows of a view detector on a real Triton: what it says of its models, and what its statistics say was run."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as client

from guard.profile import load_profile
from guard.proxy.ask import ServedModel
from guard.types import Batching
from tests.servers import guard
from tests.servers.calls import digits, unary
from tests.servers.conformance import image_input
from tests.servers.models import faint_stripes, images

pytestmark = pytest.mark.triton

SQUEEZERS = 2
"""Views that feature squeezing asks about, of grey images."""


@pytest.fixture(scope="module")
def guarded(triton: str, clean_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[guard.Guarded]:
    """Guard enforcing feature squeezing for a model that batches, and for one that takes one row a call."""
    directory = tmp_path_factory.mktemp("guard")
    models = []
    for name in ("digits", "single"):
        words = ["--upstream", triton, "--model", name, "--clean", str(clean_file), "--out", name]
        guard.fit([*words, "--stage", "detector/feature_squeezing"], directory)
        models.append(
            {
                "name": name,
                "profile": str(directory / name),
                "mode": "enforce",
                "detectors": [{"stage": "feature_squeezing"}],
            }
        )
    with guard.start(directory, {"upstream": {"address": triton}, "models": models}) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", Batching(4096)),
        ("single", Batching(0)),
        ("identity", Batching(0)),
        ("repeat", Batching(0, decoupled=True)),
        ("stateful", Batching(4, stateful=True)),
    ],
)
def test_what_triton_says_of_its_models(triton: str, name: str, expected: Batching) -> None:
    with ServedModel.remote(triton, name) as served:
        assert served.batching() == expected


def test_the_profile_says_it_too(guarded: guard.Guarded) -> None:
    assert load_profile(guarded.audit.parent / "digits").batching == Batching(4096)
    assert load_profile(guarded.audit.parent / "single").batching == Batching(0)


def run(triton: str, name: str) -> tuple[int, int]:
    """How often the model was run, and on how many rows. Triton counts a little after it has answered."""
    seen: list[tuple[int, int]] = []
    with client.InferenceServerClient(triton) as server:
        while len(seen) < 3 or len(set(seen[-3:])) > 1:
            (stats,) = server.get_inference_statistics(name).model_stats
            seen.append((stats.execution_count, stats.inference_count))
            time.sleep(0.05)
    return seen[-1]


@pytest.mark.parametrize("raw", [True, False])
def test_the_model_runs_once_for_the_caller_and_the_views(triton: str, guarded: guard.Guarded, raw: bool) -> None:
    request = digits(images(5), raw=raw).SerializeToString()
    bare = unary(triton, "ModelInfer", request)
    executions, rows = run(triton, "digits")
    outcome = unary(guarded.address, "ModelInfer", request)
    assert outcome.code == "OK"
    assert run(triton, "digits") == (executions + 1, rows + 5 * (1 + SQUEEZERS))
    np.testing.assert_allclose(answered(outcome.bodies[0]), answered(bare.bodies[0]), rtol=1e-5)
    assert answered(outcome.bodies[0]).shape == (5, 10)


def answered(body: bytes) -> np.ndarray:
    return client.InferResult(client.service_pb2.ModelInferResponse.FromString(body)).as_numpy("probabilities")


def test_tritonclient_sees_its_rows_alone(guarded: guard.Guarded) -> None:
    with client.InferenceServerClient(guarded.address) as server:
        result = server.infer("digits", [image_input(images(7))])
    assert result.as_numpy("probabilities").shape == (7, 10)
    assert [list(output.shape) for output in result.get_response().outputs] == [[7, 10]]


def test_what_rides_is_refused(triton: str, guarded: guard.Guarded) -> None:
    x = images(4)
    x[2] = faint_stripes()[0]
    assert unary(guarded.address, "ModelInfer", digits(images(4)).SerializeToString()).code == "OK"
    assert unary(guarded.address, "ModelInfer", digits(x).SerializeToString()).code == "PERMISSION_DENIED"


def test_a_model_of_one_row_a_call_is_asked_beside(triton: str, guarded: guard.Guarded) -> None:
    request = digits(images(1))
    request.model_name = "single"
    bare = unary(triton, "ModelInfer", request.SerializeToString())
    executions, _ = run(triton, "single")
    outcome = unary(guarded.address, "ModelInfer", request.SerializeToString())
    assert outcome.bodies == bare.bodies  # bit-equal
    assert run(triton, "single")[0] == executions + 1 + SQUEEZERS
    request.raw_input_contents[0] = faint_stripes().tobytes()
    assert unary(guarded.address, "ModelInfer", request.SerializeToString()).code == "PERMISSION_DENIED"
