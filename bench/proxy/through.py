"""What people write first: a pass-through proxy on grpc.aio. `python -m bench.proxy.through PORT UPSTREAM [inspect]`.

inspect: the request is parsed, its tensor is read and checked for NaN; the original bytes are forwarded.
"""

import asyncio
import sys
from typing import Any

import grpc
import numpy as np

from guard.wire import open_inference_pb2 as pb

_OPTIONS = [(f"grpc.max_{way}_message_length", 64 * 1024 * 1024) for way in ("receive", "send")]


class Through(grpc.GenericRpcHandler):
    """Every method, bytes in and bytes out."""

    def __init__(self, channel: Any, *, inspect: bool) -> None:
        self._channel, self._inspect, self._calls = channel, inspect, dict[str, Any]()

    def service(self, details: Any) -> Any:
        """A handler for the path."""
        if details.method not in self._calls:
            call = self._channel.unary_unary(details.method)
            self._calls[details.method] = grpc.unary_unary_rpc_method_handler(self._handler(call))
        return self._calls[details.method]

    def _handler(self, call: Any) -> Any:
        async def handle(body: bytes, context: Any) -> bytes:
            if self._inspect and not sound(body):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not finite")
            return bytes(await call(body))

        return handle


def sound(body: bytes) -> bool:
    """Whether the tensor is finite: the check that every inspecting proxy here makes."""
    message = pb.ModelInferRequest.FromString(body)
    return all(np.isfinite(np.frombuffer(raw, "<f4")).all() for raw in message.raw_input_contents)


async def serve(port: int, upstream: str, *, inspect: bool) -> None:
    """Until it is killed."""
    async with grpc.aio.insecure_channel(upstream, options=_OPTIONS) as channel:
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((Through(channel, inspect=inspect),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], inspect="inspect" in sys.argv[3:]))
