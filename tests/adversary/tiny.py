"""A tiny server of the Open Inference Protocol whose every answer a test decides, in threads of this process."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np

from guard.wire import open_inference_pb2 as pb

SERVICE = "inference.GRPCInferenceService"
NUMPY = {"FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "UINT8": "<u1", "INT64": "<i8"}


@dataclass
class Tiny:
    """Answers with `answer(x)`, unless `refuse(x, nth call)` names a status."""

    answer: Callable[[np.ndarray], np.ndarray]
    refuse: Callable[[np.ndarray, int], grpc.StatusCode | None] = lambda x, n: None
    datatype: str = "FP32"
    shape: Sequence[int] = (-1, 4)
    outputs: Sequence[str] = ("scores",)
    output_datatype: str = "FP32"
    trailers: Sequence[tuple[str, str | bytes]] = ()
    address: str = ""
    requests: list[pb.ModelInferRequest] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    inputs: list[np.ndarray] = field(default_factory=list)
    stop: Callable[[], None] = lambda: None

    def describe(self, request: pb.ModelMetadataRequest, context: grpc.ServicerContext) -> pb.ModelMetadataResponse:
        if request.name != "tiny":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        response = pb.ModelMetadataResponse(name="tiny", versions=["1"])
        response.inputs.add(name="x", datatype=self.datatype, shape=self.shape)
        for name in self.outputs:
            response.outputs.add(name=name, datatype=self.output_datatype, shape=[-1, -1])
        return response

    def infer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        self.requests.append(request)
        self.metadata.append({str(k): str(v) for k, v in context.invocation_metadata()})
        tensor = request.inputs[0]
        raw = bool(request.raw_input_contents)
        dtype = NUMPY[tensor.datatype]
        if raw:
            x = np.frombuffer(request.raw_input_contents[0], dtype).reshape(tensor.shape)
        else:
            x = np.array(tensor.contents.fp32_contents or tensor.contents.uint_contents, dtype).reshape(tensor.shape)
        self.inputs.append(x)
        context.set_trailing_metadata((("guard-decision-id", f"decision-{len(self.requests)}"), *self.trailers))
        code = self.refuse(x, len(self.requests))
        if code is not None:
            context.abort(code, "the request was refused")
        y = np.asarray(self.answer(x)).astype(NUMPY[self.output_datatype])
        response = pb.ModelInferResponse(model_name="tiny")
        output = response.outputs.add(name=request.outputs[0].name, datatype=self.output_datatype, shape=y.shape)
        if raw:
            response.raw_output_contents.append(y.tobytes())
        else:
            field_name = "int64_contents" if self.output_datatype == "INT64" else "fp32_contents"
            getattr(output.contents, field_name).extend(y.ravel().tolist())
        return response


@contextmanager
def serving(tiny: Tiny) -> Iterator[Tiny]:
    """Serve on a free port of the loopback."""

    def handler(method: Callable[..., object], request: type) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            method, request_deserializer=request.FromString, response_serializer=lambda m: m.SerializeToString()
        )

    server = grpc.server(ThreadPoolExecutor(4))
    methods = {
        "ModelMetadata": handler(tiny.describe, pb.ModelMetadataRequest),
        "ModelInfer": handler(tiny.infer, pb.ModelInferRequest),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    tiny.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    tiny.stop = lambda: server.stop(None).wait()
    try:
        yield tiny
    finally:
        tiny.stop()
