"""Random requests: Guard answers what the server behind it answers, and refuses what it refuses, or the docs say so."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import deserialize_bytes_tensor

from tests.servers import guard
from tests.servers.conformance import Pair
from tests.servers.differential import Seen, compare
from tests.servers.models import identity_onnx

PASSED = "answered alike", "refused by both"
STRICTER = {f"stricter: {why}" for why in ("another count of raw contents", "classification")}
"""What docs/protocol.md says of Triton 2.51; the others are refused by it as well."""
BELIEVED = {
    f"stricter: {why}"
    for why in ("both encodings", "shared memory", "given twice", "dimensions", "another field", "another length")
} | {"stricter: not what the model takes"}
"""What MLServer 1.7.1 answers besides, ignoring what it does not know."""


def defended(address: str, directory: Path, clean_file: Path, dialect: str = "triton") -> dict:
    guard.fit(["--upstream", address, "--model", "digits", "--clean", str(clean_file), "--out", "profile"], directory)
    stages = {"profile": str(directory / "profile"), "mode": "shadow", **guard.EVERY_STAGE}
    return {
        "upstream": {"address": address, "dialect": dialect},
        "unlisted_models": "allow",
        "models": [{"name": "digits", **stages}, {"name": "identity"}],
    }


def held(seen: Seen, *, stricter: set[str]) -> None:
    assert seen.wrong == []
    assert min(seen.counts[kind] for kind in PASSED) > 100, seen.counts
    assert {kind for kind in seen.counts if kind.startswith("stricter")} <= stricter, seen.counts


@pytest.mark.triton
@pytest.mark.parametrize("plane", ["grpcio", "fast"])
def test_triton(triton: str, clean_file: Path, tmp_path: Path, plane: str) -> None:
    with guard.start(tmp_path, defended(triton, tmp_path, clean_file) | {"plane": plane}) as running:
        seen = compare(Pair(bare=triton, guarded=running.address), 800, seed=1)
    held(seen, stricter=STRICTER)
    assert seen.counts["the server's refusal"] > 20


@pytest.mark.mlserver
def test_mlserver(mlserver: str, clean_file: Path, tmp_path: Path) -> None:
    with guard.start(tmp_path, defended(mlserver, tmp_path, clean_file, "mlserver")) as running:
        seen = compare(Pair(bare=mlserver, guarded=running.address), 800, seed=1)
    held(seen, stricter=STRICTER | BELIEVED)


@pytest.fixture(scope="module")
def embedded(digits_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The models that Triton serves here, served by Guard itself."""
    directory = tmp_path_factory.mktemp("embedded")
    models = [
        {"name": "digits", "embedded": {"file": str(digits_file), "max_batch_rows": 4096}},
        {"name": "identity", "embedded": {"file": str(identity_onnx(directory / "identity.onnx"))}},
    ]
    with guard.start(directory, {"models": models}) as running:
        yield running.address


def near(one: bytes, other: bytes) -> bool:
    """The same answer, but for the last bits of numbers (another build of ONNX Runtime) and the encoding."""
    left, right = (pb.ModelInferResponse.FromString(body) for body in (one, other))
    outputs = [[(x.name, x.datatype, list(x.shape)) for x in answer.outputs] for answer in (left, right)]
    if (left.model_name, left.id, outputs[0]) != (right.model_name, right.id, outputs[1]):
        return False
    return all(_equal(*pair) for pair in zip(values(left), values(right), strict=True))


def values(answer: pb.ModelInferResponse) -> list[list]:
    found = []
    for i, output in enumerate(answer.outputs):
        raw = answer.raw_output_contents[i] if answer.raw_output_contents else b""
        if output.datatype == "FP32":
            found.append(np.frombuffer(raw, np.float32).tolist() or list(output.contents.fp32_contents))
        else:
            found.append(list(output.contents.bytes_contents) or deserialize_bytes_tensor(raw).tolist())
    return found


def _equal(left: list, right: list) -> bool:
    if left and isinstance(left[0], bytes):
        return left == right
    return np.allclose(left, right, atol=1e-5, equal_nan=True)


@pytest.mark.triton
def test_an_embedded_model_beside_the_same_in_triton(triton: str, embedded: str) -> None:
    seen = compare(Pair(bare=triton, guarded=embedded), 800, seed=2, same=near, embedded=True)
    held(seen, stricter=STRICTER | {"stricter: version"})
