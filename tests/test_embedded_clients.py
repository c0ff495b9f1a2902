"""tritonclient unchanged, against a model that Guard serves itself: with every stage in shadow, and with none."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as client

from tests.servers import conformance, guard
from tests.servers.conformance import Pair, image_input
from tests.servers.models import identity_onnx, images


@pytest.fixture(scope="module")
def pair(digits_file: Path, clean_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Bare: the embedded models alone. Guarded: the same with every stage in shadow."""
    plain, defended = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("defended")
    guard.fit(["--model", str(digits_file), "--clean", str(clean_file), "--out", "profile"], defended)
    digits = {"name": "digits", "embedded": {"file": str(digits_file), "max_batch_rows": 4096}}
    identity = {"name": "identity", "embedded": {"file": str(identity_onnx(plain / "identity.onnx"))}}
    stages = {"profile": str(defended / "profile"), "mode": "shadow", **guard.EVERY_STAGE}
    with (
        guard.start(plain, {"models": [digits, identity]}) as bare,
        guard.start(defended, {"models": [{**digits, **stages}, identity]}) as guarded,
    ):
        yield Pair(bare=bare.address, guarded=guarded.address)


@pytest.mark.parametrize(
    "check",
    [*conformance.EVERYWHERE, conformance.stream_by_client],  # ONNX strings are text: no binary_strings
    ids=lambda check: check.__name__,
)
def test_the_same_as_bare(pair: Pair, check: Callable[[Pair], None]) -> None:
    check(pair)


async def test_the_same_as_bare_for_the_asyncio_client(pair: Pair) -> None:
    await conformance.infer_by_aio_client(pair)


def test_answers_are_onnxruntimes_own(pair: Pair, digits_file: Path) -> None:
    x = images(3, seed=9)
    session = onnxruntime.InferenceSession(str(digits_file), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["probabilities"], {"image": x})
    with client.InferenceServerClient(pair.guarded) as server:
        answer = server.infer("digits", [image_input(x)]).as_numpy("probabilities")
    assert np.allclose(answer, expected, atol=1e-6)
