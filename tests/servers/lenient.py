"""An OIP server that believes what it is told: of both encodings in one request it uses `contents`, as MLServer does.

It keeps every request, so that a test can assert that none arrived.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb

from tests.servers.calls import SERVICE


@dataclass
class Lenient:
    address: str = ""
    requests: list[pb.ModelInferRequest] = field(default_factory=list)

    def infer(self, request: pb.ModelInferRequest, _: grpc.ServicerContext) -> pb.ModelInferResponse:
        """The sums of the rows that it believes to have seen."""
        self.requests.append(request)
        tensor = request.inputs[0]
        typed = np.array(tensor.contents.fp32_contents, np.float32)
        x = typed if typed.size else np.frombuffer(request.raw_input_contents[0], np.float32)
        sums = x.reshape(tensor.shape[0], -1).sum(axis=1).astype(np.float32)
        response = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
        response.outputs.add(name="sums", datatype="FP32", shape=sums.shape)
        response.raw_output_contents.append(sums.tobytes())
        return response

    def metadata(self, request: pb.ModelMetadataRequest, _: grpc.ServicerContext) -> pb.ModelMetadataResponse:
        response = pb.ModelMetadataResponse(name=request.name, versions=["1"], platform="lenient")
        response.inputs.add(name="image", datatype="FP32", shape=[-1, 1, 28, 28])
        response.outputs.add(name="sums", datatype="FP32", shape=[-1])
        return response

    def ready(self, _: pb.ServerReadyRequest, __: grpc.ServicerContext) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=True)

    def model_ready(self, _: pb.ModelReadyRequest, __: grpc.ServicerContext) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=True)


@contextmanager
def start() -> Iterator[Lenient]:
    lenient = Lenient()
    methods = {
        "ModelInfer": (lenient.infer, pb.ModelInferRequest, pb.ModelInferResponse),
        "ModelMetadata": (lenient.metadata, pb.ModelMetadataRequest, pb.ModelMetadataResponse),
        "ServerReady": (lenient.ready, pb.ServerReadyRequest, pb.ServerReadyResponse),
        "ModelReady": (lenient.model_ready, pb.ModelReadyRequest, pb.ModelReadyResponse),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(do, asked.FromString, answer.SerializeToString)
        for name, (do, asked, answer) in methods.items()
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.strip("/"), handlers),))
    lenient.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield lenient
    finally:
        server.stop(None).wait()
