"""Protected answers through real gRPC: the label kept in every dtype and encoding, the same bytes from replicas."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard import registry
from guard.equipping import learner_of
from guard.profile import Profile, StageFit, save_profile, stage_key, stage_options, to_probabilities
from guard.settings import build_stage
from guard.types import Material, ModelMetadata, TensorSpec
from guard.wire import messages
from guard.wire import open_inference_pb2 as pb
from guard.wire.tensors import encode_array
from tests.proxy.world import VECTOR, Guarded, Server, guarding, request, serving, settings

registry.load()

CLASSES, ROWS = 10, 12
DTYPES = {"FP16": np.float16, "BF16": np.float32, "FP32": np.float32, "FP64": np.float64}
TYPED = {"FP32": "fp32_contents", "FP64": "fp64_contents"}  # the protocol has no typed contents for the halves
FORMS = [(datatype, raw) for datatype in DTYPES for raw in (True, False) if raw or datatype in TYPED]
SECRET, OTHER = "a secret of all replicas", "a secret of somebody else"
KEYED = {"adaptive_misinformation", "low_confidence_noise", "membership_noise"}
"""Those whose noise is drawn: another secret draws otherwise."""
ZERO = pytest.approx(0.0, abs=1e-12)
X = np.random.default_rng(0).random((ROWS, 4)).astype(np.float32)


def answers() -> np.ndarray:
    """(ROWS, CLASSES): sure ones, unsure ones, and near ties."""
    rng = np.random.default_rng(1)
    sharp = rng.dirichlet(np.full(CLASSES, 0.1), ROWS)
    sharp[4:8] = rng.dirichlet(np.full(CLASSES, 5.0), 4)
    sharp[8:, 3] = sharp[8:].max(axis=1)
    sharp[8:, 7] = sharp[8:, 3] * 1.05
    return (sharp + 1e-6) / (sharp + 1e-6).sum(axis=1, keepdims=True)


def metadata(datatype: str) -> ModelMetadata:
    outputs = (TensorSpec("y", datatype, (-1, CLASSES)), TensorSpec("other", "FP32", (-1, 2)))
    return ModelMetadata("m", ("1",), "test", (TensorSpec("x", "FP32", (-1, 4)),), outputs)


def profile(path: Path, name: str, datatype: str, meaning: Any) -> str:
    """With what the output protection learned, where it learns."""
    stage, stages = build_stage("output", name, {}), dict[str, StageFit]()
    learn = learner_of(stage)
    if learn is not None:
        rng = np.random.default_rng(2)
        material = Material(rng.random((400, 4), dtype=np.float32), rng.dirichlet(np.full(CLASSES, 0.3), 400), CLASSES)
        stages[stage_key("output", name)] = StageFit(stage_options(stage), None, arrays=learn(material))
    save_profile(Profile(metadata(datatype), "x", "FP32", VECTOR, "y", meaning, CLASSES, stages), path)
    return str(path)


class Answering:
    """An upstream with another output beside the classification."""

    def __init__(self, server: Server, datatype: str, meaning: str, *, raw: bool) -> None:
        self.probs, self.datatype, self.raw = answers(), datatype, raw
        y = np.log(self.probs) if meaning == "logits" else self.probs
        self.y, self.beside = y.astype(DTYPES[datatype]), np.random.default_rng(3).random((ROWS, 2), dtype=np.float32)
        server.infer = self

    async def __call__(self, body: bytes, context: Any) -> bytes:
        message = pb.ModelInferRequest.FromString(body)
        x = messages.parse_request(body, max_rows=99, max_elements=9999).tensors["x"]
        rows = [int(np.abs(X - row).sum(axis=1).argmin()) for row in x]
        response = pb.ModelInferResponse(model_name="m", model_version="1", id=message.id)
        for name, datatype, array in (("other", "FP32", self.beside[rows]), ("y", self.datatype, self.y[rows])):
            output = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
            if self.raw:
                response.raw_output_contents.append(encode_array(array, datatype))
            else:
                getattr(output.contents, TYPED[datatype]).extend(array.ravel().tolist())
        return response.SerializeToString()


def guard(server: Server, name: str, path: str, secret: Path) -> Any:
    model = {"name": "m", "mode": "enforce", "profile": path, "outputs": [{"stage": name, "when": "always"}]}
    return guarding(settings(server.address, models=[model], secret_file=str(secret)))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o600)
    return file


async def told(guarded: Guarded, x: np.ndarray = X) -> bytes:
    reply = await guarded.unary(request(x))
    assert reply.code.name == "OK"
    return reply.body


@pytest.mark.parametrize("meaning", ["probabilities", "logits"])
@pytest.mark.parametrize("name", registry.names("output"))
async def test_the_label_is_kept_in_every_dtype_and_encoding(
    name: str, meaning: str, tmp_path: Path, secret: Path
) -> None:
    changed = 0
    for i, (datatype, raw) in enumerate(FORMS):
        path = profile(tmp_path / str(i), name, datatype, meaning)
        async with serving(metadata=metadata(datatype)) as server, guard(server, name, path, secret) as guarded:
            upstream = Answering(server, datatype, meaning, raw=raw)
            plain = messages.parse_response(await upstream(request(X), None))
            body = await told(guarded)
            message, found = messages.parse_answer(body)
            assert [output.name for output in message.outputs] == ["other", "y"]
            assert message.outputs[1].datatype == datatype
            assert bool(message.raw_output_contents) is raw
            np.testing.assert_array_equal(found["other"], plain["other"])
            assert found["y"].dtype == plain["y"].dtype
            np.testing.assert_array_equal(found["y"].argmax(axis=1), plain["y"].argmax(axis=1))
            assert np.isfinite(found["y"]).all()
            if meaning == "probabilities":
                assert np.abs(found["y"].astype(float).sum(axis=1) - 1.0).max() < 0.03  # a half's steps, ten of them
            changed += not np.array_equal(found["y"], plain["y"])
    assert changed == len(FORMS)  # the control: it does protect


@pytest.mark.parametrize("name", registry.names("output"))
async def test_replicas_with_one_secret_answer_alike_whatever_the_batch(
    name: str, tmp_path: Path, secret: Path
) -> None:
    path, other = profile(tmp_path / "p", name, "FP32", "probabilities"), tmp_path / "other"
    other.write_text(OTHER)
    async with serving(metadata=metadata("FP32")) as server:
        Answering(server, "FP32", "probabilities", raw=True)
        async with guard(server, name, path, secret) as one, guard(server, name, path, secret) as two:
            mine = [await told(one) for _ in range(3)]
            assert [await told(two) for _ in range(3)] == mine
            assert len(set(mine)) == 1
            whole = messages.parse_response(mine[0])["y"]
            rows = [messages.parse_response(await told(two, X[i : i + 1]))["y"] for i in range(ROWS)]
            np.testing.assert_array_equal(np.concatenate(rows), whole)
        async with guard(server, name, path, other) as stranger:
            theirs = await told(stranger)
    assert (theirs != mine[0]) is (name in KEYED)


def test_probabilities_are_read_as_they_are_meant() -> None:
    """The world's own check: its near ties are near, and its logits mean its probabilities."""
    probs = answers()
    np.testing.assert_allclose(to_probabilities(np.log(probs), "logits"), probs, rtol=1e-9)
    ordered = np.sort(probs[8:], axis=1)
    assert (ordered[:, -1] / ordered[:, -2]).max() < 1.06
    assert probs.sum(axis=1) - 1 == ZERO
