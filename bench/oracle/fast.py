"""`python -m bench.oracle.fast`: servers that read nothing and answer with prepared bytes, one a kind of input.

What they answer has the right shape, and is the same for every input: as fast as grpc.aio in Python can be. Prints
their addresses, a line of JSON by the kind's name, and serves until it is killed.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np

from bench.oracle.kinds import CLASSES, KINDS, MODEL, Kind
from guard.wire import open_inference_pb2 as pb

_UNBOUNDED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Prepared(grpc.GenericRpcHandler):
    """Answers of one kind. How many rows were sent is told by the length of the message."""

    def __init__(self, kind: Kind) -> None:
        self._row_bytes = kind.row_bytes
        self._answers: dict[int, bytes] = {}
        metadata = pb.ModelMetadataResponse(name=MODEL, versions=["1"])
        metadata.inputs.add(name="x", datatype="FP32", shape=[-1, *kind.shape])
        metadata.outputs.add(name="probabilities", datatype="FP32", shape=[-1, CLASSES])
        self._metadata: bytes = metadata.SerializeToString()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Raw bytes in, raw bytes out."""
        infer = str(handler_call_details.method).endswith("/ModelInfer")
        method: Callable[[bytes, Any], Awaitable[bytes]] = self._infer if infer else self._describe
        return grpc.unary_unary_rpc_method_handler(method)

    async def _describe(self, _body: bytes, _context: Any) -> bytes:
        return self._metadata

    async def _infer(self, body: bytes, _context: Any) -> bytes:
        rows = len(body) // self._row_bytes
        if rows not in self._answers:
            self._answers[rows] = prepared(rows)
        return self._answers[rows]


def prepared(rows: int) -> bytes:
    """(rows, CLASSES) probabilities, class 0 the likeliest."""
    y = np.full((rows, CLASSES), 0.4 / (CLASSES - 1), np.float32)
    y[:, 0] = 0.6
    response = pb.ModelInferResponse(model_name=MODEL)
    response.outputs.add(name="probabilities", datatype="FP32", shape=y.shape)
    response.raw_output_contents.append(y.tobytes())
    body: bytes = response.SerializeToString()
    return body


async def serve() -> None:
    """All kinds, for good."""
    addresses = {}
    servers = []
    for kind in KINDS:
        server = grpc.aio.server(options=_UNBOUNDED)
        server.add_generic_rpc_handlers((Prepared(kind),))
        addresses[kind.name] = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        servers.append(server)
    print(json.dumps(addresses), flush=True)
    await asyncio.gather(*(server.wait_for_termination() for server in servers))


if __name__ == "__main__":
    asyncio.run(serve())
