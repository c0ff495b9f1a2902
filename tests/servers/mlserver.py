"""A real MLServer 1.7.1 on loopback: runtimes of our own, no worker processes."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import install
from tests.servers.models import digits_onnx
from tests.servers.process import answers, free_port, running

REPOSITORY = Path(__file__).parent / "repositories" / "mlserver"
READY = "/inference.GRPCInferenceService/ServerReady"


@contextmanager
def start(directory: Path) -> Iterator[str]:
    """Serve the repository from a copy in `directory`; yields the gRPC address."""
    venv = install.mlserver()
    repository = shutil.copytree(REPOSITORY, directory / "models")
    digits_onnx(repository / "digits" / "model.onnx")
    ports = {f"{kind}_port": free_port() for kind in ("http", "grpc", "metrics")}
    settings = repository / "settings.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **ports}))
    address = f"127.0.0.1:{ports['grpc_port']}"
    log = directory / "mlserver.log"
    command = [str(venv / "bin" / "mlserver"), "start", str(repository)]
    with running(command, log, lambda: answers(address, READY, want=b"\x08\x01")):
        yield address
