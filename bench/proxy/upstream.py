"""An upstream that costs next to nothing: nghttpd hands out files, one a method, with gRPC's trailer."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.proxy import programs
from bench.proxy.shapes import Shape
from guard.wire import open_inference_pb2 as pb
from tests.servers.process import answers, free_port, running

SERVICE = "inference.GRPCInferenceService"
INFER = f"/{SERVICE}/ModelInfer"


@contextmanager
def start(directory: Path, shape: Shape) -> Iterator[int]:
    """The port that it listens on."""
    methods = {
        "ModelInfer": shape.response(),
        "ModelMetadata": shape.metadata(),
        "ModelReady": pb.ModelReadyResponse(ready=True).SerializeToString(),
        "ServerLive": pb.ServerLiveResponse(live=True).SerializeToString(),
        "ServerReady": pb.ServerReadyResponse(ready=True).SerializeToString(),
    }
    root = directory / "files" / SERVICE
    root.mkdir(parents=True)
    for name, message in methods.items():
        (root / name).write_bytes(struct.pack(">BI", 0, len(message)) + message)
    port = free_port()
    command = [
        *programs.pinned(1), programs.program("nghttpd"), "--no-tls", "--address=127.0.0.1", "-d", str(root.parent),
        "--trailer=grpc-status: 0", "-W", "20", "-w", "20", str(port),
    ]  # fmt: skip
    with running(command, directory / "nghttpd.log", lambda: answers(f"127.0.0.1:{port}", INFER)):
        yield port
