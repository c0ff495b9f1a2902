"""A real Triton 2.51 on loopback: python backend, models under explicit control, gRPC only."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import install
from tests.servers.models import digits_onnx
from tests.servers.process import answers, free_port, running

REPOSITORY = Path(__file__).parent / "repositories" / "triton"
READY = "/inference.GRPCInferenceService/ServerReady"


@contextmanager
def start(directory: Path) -> Iterator[str]:
    """Serve the repository from a copy in `directory`; yields the gRPC address."""
    repository = shutil.copytree(REPOSITORY, directory / "models")
    for name in ("digits", "single"):
        digits_onnx(repository / name / "1" / "model.onnx")
    with serve(repository, directory) as address:
        yield address


@contextmanager
def serve(repository: Path, directory: Path, port: int | None = None) -> Iterator[str]:
    """Serve these models; what the server needs else goes to `directory`."""
    venv = install.triton()
    packages = venv / "lib" / "python3.11" / "site-packages"
    server = packages / "pytriton" / "tritonserver"
    backends = shutil.copytree(server / "backends", directory / "backends", dirs_exist_ok=True)
    stub = server / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
    shutil.copy(stub, backends / "python")
    address = f"127.0.0.1:{(port := port or free_port())}"
    command = [
        str(server / "bin" / "tritonserver"),
        *("--model-repository", str(repository), "--backend-directory", str(backends)),
        *("--model-control-mode", "explicit", "--load-model", "*"),
        *("--grpc-address", "127.0.0.1", "--grpc-port", str(port)),
        *("--allow-http", "false", "--allow-metrics", "false"),
    ]
    env = {
        **os.environ,
        "PATH": f"{venv / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
    }
    log = directory / "triton.log"
    with running(command, log, lambda: answers(address, READY, want=b"\x08\x01"), env):
        yield address
