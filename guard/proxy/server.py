"""The listener: grpc.aio calls become `seam.Call`, a `seam.Reply` becomes the end of the call. Nothing else is here.

Every path gets a handler, without serialisers: unary ones by the method table, everything else bidirectional streams,
which are byte-transparent to unary calls, too. grpcio 1.84 and 1.85 are refused by the package's requirements: one
request whose path is not UTF-8 ends their asyncio server.
"""

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Protocol, cast

import grpc
from grpc import aio

from guard.proxy import methods, status
from guard.proxy.seam import Call, Metadata, Peer, Reply, UpstreamStream
from guard.proxy.status import Code
from guard.proxy.tls import server_credentials
from guard.proxy.upstream import limit_options
from guard.settings import ConfigError, Limits, Listen

_log = logging.getLogger(__name__)
_LEVELS = {"none": 0, "gzip": 1, "deflate": 3}
"""Of the algorithms that a caller accepts: none, the first (gzip before deflate), the last."""
_STATUS = {code.value[0]: code for code in grpc.StatusCode}


class Gate(Protocol):
    """What answers calls."""

    async def unary(self, call: Call, body: bytes) -> Reply:
        """One unary call."""
        ...

    def stream(self, call: Call, bodies: AsyncIterator[bytes]) -> UpstreamStream:
        """One bidirectional stream."""
        ...


def _call(path: str, context: Any) -> Call:
    metadata: Metadata = tuple((key, value) for key, value in context.invocation_metadata())
    auth = {key: tuple(values) for key, values in context.auth_context().items()}
    return Call(path, metadata, context.time_remaining(), Peer(context.peer(), auth))


async def _end(context: Any, reply: Reply) -> None:
    """Finish a call that did not end well; raises what grpc.aio uses to leave the handler."""
    await context.abort(_STATUS.get(reply.code, grpc.StatusCode.UNKNOWN), reply.details, tuple(reply.trailing))


async def _bodies(context: Any) -> AsyncIterator[bytes]:
    while (message := await context.read()) is not aio.EOF:
        yield message


class _Handlers(grpc.GenericRpcHandler):
    """One handler a path."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def service(self, handler_call_details: Any) -> "grpc.RpcMethodHandler[bytes, bytes]":
        path = handler_call_details.method
        if path in methods.TABLE and path not in methods.STREAMING:

            async def unary(body: bytes, context: Any) -> bytes:
                return await self._unary(path, body, context)

            return grpc.unary_unary_rpc_method_handler(unary)

        async def stream(_: Any, context: Any) -> None:
            await self._stream(path, context)

        return grpc.stream_stream_rpc_method_handler(stream)

    async def _unary(self, path: str, body: bytes, context: Any) -> bytes:
        try:
            reply = await self._gate.unary(_call(path, context), body)
        except Exception:  # noqa: BLE001 - its text must not reach a caller
            _log.exception("a call of %s failed", path)
            reply = status.internal()
        if reply.initial:
            await context.send_initial_metadata(reply.initial)
        if reply.code != Code.OK:
            await _end(context, reply)
        context.set_trailing_metadata(reply.trailing)
        return reply.body

    async def _stream(self, path: str, context: Any) -> None:
        try:
            stream = self._gate.stream(_call(path, context), _bodies(context))
            initial = await stream.initial()
            if initial:
                await context.send_initial_metadata(initial)
            async with contextlib.aclosing(cast("AsyncGenerator[bytes]", stream.messages())) as answers:
                async for message in answers:
                    await context.write(message)
            reply = await stream.status()
        except aio.UsageError:  # the call is over
            return
        except Exception:  # noqa: BLE001 - its text must not reach a caller
            _log.exception("a stream of %s failed", path)
            reply = status.internal()
        if reply.code != Code.OK:
            await _end(context, reply)
        context.set_trailing_metadata(reply.trailing)


def make_server(gate: Gate, listen: Listen, limits: Limits) -> tuple[aio.Server, str]:
    """A bound server, not started, and where it listens. Raises ConfigError."""
    server = aio.server(
        options=(
            *limit_options(limits, receive=limits.max_request_bytes, send=-1),
            ("grpc.so_reuseport", 0),  # a second process on the same port is a mistake
            ("grpc.default_compression_level", _LEVELS[listen.compression]),
        ),
    )
    server.add_generic_rpc_handlers((_Handlers(gate),))
    try:
        if listen.tls is None:
            port = server.add_insecure_port(listen.address)
        else:
            port = server.add_secure_port(listen.address, server_credentials(listen.tls))
    except RuntimeError:
        raise ConfigError("listen.address", f"cannot listen on {listen.address}") from None
    if listen.address.startswith("unix:"):
        return server, listen.address
    return server, f"{listen.address.rpartition(':')[0]}:{port}"
