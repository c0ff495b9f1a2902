"""Real servers, started once for all tests that want them."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

pytest.register_assert_rewrite("tests.servers.conformance", "tests.servers.guard")

from guard import registry  # noqa: E402
from tests.servers import mlserver as mlserver_process  # noqa: E402
from tests.servers import triton as triton_process  # noqa: E402
from tests.servers.models import digits_onnx, images  # noqa: E402

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")  # how long an example takes is the machine's affair
registry.load()
"""Before a test puts its own stages beside them: what is first imported then would be gone with them."""


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gRPC address of a real Triton that serves digits, identity, repeat, single, spare and stateful."""
    with triton_process.start(tmp_path_factory.mktemp("triton")) as address:
        yield address


@pytest.fixture(scope="session")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gRPC address of a real MLServer that serves digits, identity and words."""
    with mlserver_process.start(tmp_path_factory.mktemp("mlserver")) as address:
        yield address


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digit classifier that Triton and MLServer serve, as an ONNX file."""
    return digits_onnx(tmp_path_factory.mktemp("model") / "digits.onnx")


@pytest.fixture(scope="session")
def clean_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clean inputs for `guard fit`."""
    file = tmp_path_factory.mktemp("clean") / "clean.npz"
    np.savez(file, x=images(400, seed=11))
    return file
