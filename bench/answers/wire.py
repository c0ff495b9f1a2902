"""Answers as bytes: how an upstream writes them, how a client reads them, and both with `guard serve` between.

The upstream is a gRPC server in this process, with one model for each combination of meaning, datatype and contents;
the proxies are `guard serve`, each a process of its own. What a client reads is read here by hand, not by Guard's code.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from adversary import serving
from adversary.attack import Array
from bench.answers.served import INPUT, OUTPUT, SECRET, Meaning, Subject, Way, profile, said, settings
from guard.profile import save_profile
from guard.wire import open_inference_pb2 as pb
from guard.wire.tensors import encode_array

INFER = "/inference.GRPCInferenceService/ModelInfer"
_UNBOUNDED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_READ = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BF16": "<u2"}
_TYPED = {"FP32": "fp32_contents", "FP64": "fp64_contents"}


@dataclass(frozen=True, slots=True)
class Form:
    """How an answer travels. The protocol has no typed contents for the halves."""

    datatype: str
    raw: bool

    def __str__(self) -> str:
        return f"{self.datatype} {'raw' if self.raw else 'typed'}"


FORMS = tuple(Form(datatype, raw) for datatype in _READ for raw in (True, False) if raw or datatype in _TYPED)
MEANINGS: tuple[Meaning, ...] = ("logits", "probabilities")


def write(y: Array, form: Form, model: str = "m") -> bytes:
    """(N, C) -> the upstream's ModelInferResponse."""
    response = pb.ModelInferResponse(model_name=model, model_version="1")
    output = response.outputs.add(name=OUTPUT, datatype=form.datatype, shape=y.shape)
    if form.raw:
        response.raw_output_contents.append(encode_array(y, form.datatype))
    else:
        getattr(output.contents, _TYPED[form.datatype]).extend(y.ravel().tolist())
    body: bytes = response.SerializeToString()
    return body


def read(body: bytes) -> Array:
    """A ModelInferResponse of one output -> (N, C) as a client reads it."""
    response = pb.ModelInferResponse.FromString(body)
    (output,) = response.outputs
    kept = np.dtype(_READ[output.datatype])
    if response.raw_output_contents:
        y = np.frombuffer(response.raw_output_contents[0], kept)
    else:
        y = np.array(getattr(output.contents, _TYPED[output.datatype]), kept)
    if output.datatype == "BF16":
        y = (y.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(y.reshape(tuple(output.shape)))


def ask(x: Array, model: str) -> bytes:
    """(N, ...) float32 -> the ModelInferRequest, raw."""
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name=INPUT, datatype="FP32", shape=x.shape)
    request.raw_input_contents.append(np.ascontiguousarray(x, "<f4").tobytes())
    body: bytes = request.SerializeToString()
    return body


@dataclass(frozen=True, slots=True)
class Cell:
    """One model of the slice: a protection, and what it protects."""

    way: Way
    meaning: Meaning
    form: Form

    def __str__(self) -> str:
        return f"{self.way}, {self.meaning}, {self.form}"


class _Upstream(grpc.GenericRpcHandler):
    """Serves a subject as each cell has it; the cell's place in the list names its model."""

    def __init__(self, on: Subject, cells: Sequence[Cell]) -> None:
        self._on, self._cells = on, cells

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Raw bytes in, raw bytes out."""
        methods: Mapping[str, Callable[[bytes, Any], bytes]] = {
            "ModelInfer": self._infer, "ModelMetadata": self._metadata, "ModelReady": self._ready,
            "ServerReady": self._ready,
        }  # fmt: skip
        method = methods.get(str(handler_call_details.method).rpartition("/")[2])
        return None if method is None else grpc.unary_unary_rpc_method_handler(method)

    def _ready(self, _body: bytes, _context: Any) -> bytes:
        body: bytes = pb.ModelReadyResponse(ready=True).SerializeToString()
        return body

    def _metadata(self, request: bytes, _context: Any) -> bytes:
        name = pb.ModelMetadataRequest.FromString(request).name
        told = pb.ModelMetadataResponse(name=name, versions=["1"], platform="bench")
        told.inputs.add(name=INPUT, datatype="FP32", shape=[-1, *self._on.x.shape[1:]])
        datatype = self._cells[int(name)].form.datatype
        told.outputs.add(name=OUTPUT, datatype=datatype, shape=[-1, self._on.classes])
        body: bytes = told.SerializeToString()
        return body

    def _infer(self, body: bytes, _context: Any) -> bytes:
        request = pb.ModelInferRequest.FromString(body)
        x = np.frombuffer(request.raw_input_contents[0], "<f4").reshape(tuple(request.inputs[0].shape))
        return self.answer(x, request.model_name)

    def answer(self, x: Array, name: str) -> bytes:
        """What this server says of some rows."""
        cell = self._cells[int(name)]
        return write(said(self._on.model.logits(x), cell.meaning, cell.form.datatype), cell.form, name)


@dataclass(frozen=True, slots=True, eq=False)
class Stand:
    """proxies: what a client calls, one for each replica: (body) -> body. plain: the upstream's own answer."""

    cells: Sequence[Cell]
    proxies: Sequence[Callable[[bytes], bytes]]
    plain: Callable[[Array, str], bytes]


@contextmanager
def stand(on: Subject, cells: Sequence[Cell], replicas: int = 2) -> Iterator[Stand]:
    """The upstream, and so many `guard serve` with one secret in front of it."""
    handler = _Upstream(on, cells)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        upstream = grpc.server(ThreadPoolExecutor(2), options=_UNBOUNDED)
        upstream.add_generic_rpc_handlers((handler,))
        address = f"127.0.0.1:{upstream.add_insecure_port('127.0.0.1:0')}"
        upstream.start()
        stack.callback(upstream.stop, None)
        tree = _settings(on, cells, address, directory)
        proxies: list[Callable[[bytes], bytes]] = []
        for i in range(replicas):
            served, _ = stack.enter_context(serving.served(tree, SECRET.decode(), directory / f"replica-{i}"))
            channel = stack.enter_context(grpc.insecure_channel(served, options=_UNBOUNDED))
            call: Any = channel.unary_unary(INFER)
            proxies.append(call)
        yield Stand(cells, proxies, handler.answer)


def _settings(on: Subject, cells: Sequence[Cell], address: str, directory: Path) -> dict[str, Any]:
    models = []
    for i, cell in enumerate(cells):
        place = directory / "profiles" / str(i)
        save_profile(profile(on, cell.way, cell.meaning, cell.form.datatype, name=str(i)), place)
        models.append({**settings(str(i), cell.way), "profile": str(place), "on_profile_mismatch": "deny"})
    return {
        "listen": {"address": "127.0.0.1:0"},
        "upstream": {"address": address},
        "admin": {"http": None, "grpc": None},
        "models": models,
        "limits": {"inspection_timeout_s": 60, "drain_s": 1.0},
    }
