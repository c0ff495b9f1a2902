"""Envoy's external processor on grpc.aio, with the same check as the others. `python -m bench.proxy.processor PORT`.

Of Envoy's messages only what it sends here is read: the whole request body; what it is answered is that it may go on.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bench.proxy.through import sound

METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
_GO_ON = b"\x1a\x00"  # ProcessingResponse.request_body, field 3, as it is by default: continue
_PREFIX = 5  # of a gRPC message
_OPTIONS = [(f"grpc.max_{way}_message_length", 64 * 1024 * 1024) for way in ("receive", "send")]


def _request() -> Any:
    """ProcessingRequest, as far as it is sent: request_body (4) with body (1)."""
    file = descriptor_pb2.FileDescriptorProto(name="ext_proc_part.proto", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    body = file.message_type.add(name="HttpBody")
    body.field.add(name="body", number=1, type=field.TYPE_BYTES, label=field.LABEL_OPTIONAL)
    whole = file.message_type.add(name="ProcessingRequest")
    whole.field.add(
        name="request_body", number=4, type=field.TYPE_MESSAGE, type_name=".HttpBody", label=field.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("ProcessingRequest"))


REQUEST = _request()


class Processor(grpc.GenericRpcHandler):
    """One stream a call."""

    def service(self, details: Any) -> Any:
        """A handler for the one method."""
        return grpc.stream_stream_rpc_method_handler(self._process) if details.method == METHOD else None

    async def _process(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for body in requests:
            if not sound(REQUEST.FromString(body).request_body.body[_PREFIX:]):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not finite")
            yield _GO_ON


async def serve(port: int) -> None:
    """Until it is killed."""
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((Processor(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
