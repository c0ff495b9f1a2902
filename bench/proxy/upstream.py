"""An upstream that costs next to nothing, `bench.proxy.answering`: a fixed answer a method."""

import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.proxy import programs
from bench.proxy.shapes import Shape
from guard.proxy.fast import library
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
    if library.unusable is not None:
        raise programs.Missing(f"the upstream needs guard._nghttp2: {library.unusable}")
    command = [*programs.pinned(1), sys.executable, "-m", "bench.proxy.answering", str(port), str(root)]
    with running(command, directory / "upstream.log", lambda: answers(f"127.0.0.1:{port}", INFER)):
        yield port
