"""The listener: grpc.aio calls become `seam.Call`, a `seam.Reply` becomes the end of the call. Nothing else is here.

Unary paths get a handler of streamed requests, all others one of bidirectional streams, without serialisers. So a
message is read only when the gate asks for it: what is denied or finds no place costs its head and a window of 64 KiB,
and what is longer waits a round trip for a wider one. A unary answer leaves together with its status, once the handler
has returned: in one step of gRPC instead of two.
Known bypass: gRPC gives no way to end a call whose caller does not read its answer; past UNREAD_S the call loses its
place, but its answer stays in memory until the caller leaves.
grpcio 1.84 and 1.85 are refused by the package's requirements: one request whose path is not UTF-8 ends their asyncio
server.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Protocol, cast

import grpc
from grpc import aio

from guard.proxy import methods, status
from guard.proxy.local_stream import LocalStream
from guard.proxy.seam import Call, Metadata, Peer, Reply
from guard.proxy.status import Code
from guard.proxy.tls import server_credentials
from guard.proxy.upstream import limit_options
from guard.settings import ConfigError, Limits, Listen

_log = logging.getLogger(__name__)
_LEVELS = {"none": 0, "gzip": 1, "deflate": 3}
"""Of the algorithms that a caller accepts: none, the first (gzip before deflate), the last."""
_STATUS = {code.value[0]: code for code in grpc.StatusCode}


UNREAD_S = 30.0


def _is_news(record: logging.LogRecord) -> bool:
    """grpc.aio logs a traceback where a caller leaves in the moment of its answer: nothing to act on."""
    return record.exc_info is None or not isinstance(record.exc_info[1], aio.InternalError)


logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)


class Exchange(Protocol):
    """One unary call's messages."""

    async def receive(self, within_s: float) -> bytes | None:
        """The request; None where the caller ended without one. Raises TimeoutError."""
        ...

    async def send(self, reply: Reply) -> None:
        """The answer, or how the call ends instead."""
        ...

    def then(self, leave: Callable[[], None]) -> None:
        """What to do, once, when the answer was read or the call is over, after UNREAD_S at the latest."""
        ...


class Gate(Protocol):
    """What answers calls."""

    async def unary(self, call: Call, exchange: Exchange) -> None:
        """One unary call, answered through its exchange."""
        ...

    def stream(self, call: Call, bodies: AsyncIterator[bytes]) -> LocalStream:
        """One bidirectional stream."""
        ...


def _call(path: str, context: Any, *, tls: bool) -> Call:
    metadata: Metadata = tuple((key, value) for key, value in context.invocation_metadata())
    auth = {key: tuple(values) for key, values in context.auth_context().items()} if tls else {}
    return Call(path, metadata, context.time_remaining(), Peer(context.peer(), auth))


def _end(context: Any, reply: Reply) -> None:
    """What the call ends with when its handler returns."""
    context.set_trailing_metadata(reply.trailing)
    if reply.code != Code.OK:
        context.set_code(_STATUS.get(reply.code, grpc.StatusCode.UNKNOWN))
        context.set_details(reply.details)


GRACE_S = 1.0
"""Reads end by themselves at a call's deadline. One that is cancelled before leaks the message, if it still comes."""


async def _read(context: Any) -> bytes | None:
    """The next message; None where there is none.

    grpc.aio answers a read of a cancelled call with an end, and a cancellation of the reading task gets lost in it.
    """
    message = await context.read()
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return None if message is aio.EOF else cast("bytes", message)


async def _bodies(context: Any) -> AsyncIterator[bytes]:
    while (message := await _read(context)) is not None:
        yield message


class _Exchange:
    """Implements `Exchange`."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.reply: Reply | None = None

    async def receive(self, within_s: float) -> bytes | None:
        async with asyncio.timeout(within_s + GRACE_S):
            return await _read(self._context)

    async def send(self, reply: Reply) -> None:
        if reply.initial:
            await self._context.send_initial_metadata(reply.initial)
        self.reply = reply

    def then(self, leave: Callable[[], None]) -> None:
        if self.reply is None or self.reply.code != Code.OK:
            leave()
            return
        left = False

        def once(*_: Any) -> None:
            nonlocal left
            if not left:
                left = True
                timer.cancel()
                leave()

        timer = asyncio.get_running_loop().call_later(UNREAD_S, once)
        self._context.add_done_callback(once)


class _Handlers(grpc.GenericRpcHandler):
    """One handler a path."""

    def __init__(self, gate: Gate, *, tls: bool) -> None:
        self._gate, self._tls = gate, tls

    def service(self, handler_call_details: Any) -> "grpc.RpcMethodHandler[bytes, bytes]":
        path = handler_call_details.method
        if path in methods.TABLE and path not in methods.STREAMING:
            return grpc.stream_unary_rpc_method_handler(partial(self._unary, path))

        async def handle(_: Any, context: Any) -> None:
            try:
                await self._stream(path, context)
            except (aio.UsageError, aio.InternalError):  # the call is over
                return
            except Exception:  # noqa: BLE001 - its text must not reach a caller
                _log.exception("a call of %r failed", path)
                _end(context, status.internal())

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _unary(self, path: str, _: Any, context: Any) -> bytes:
        exchange = _Exchange(context)
        try:
            await self._gate.unary(_call(path, context, tls=self._tls), exchange)
            reply = exchange.reply or status.internal()
        except (aio.UsageError, aio.InternalError):  # the call is over
            _end(context, status.internal())
            return b""
        except Exception:  # noqa: BLE001 - its text must not reach a caller
            _log.exception("a call of %r failed", path)
            reply = status.internal()
        if reply.code == Code.OK:
            context.set_trailing_metadata(reply.trailing)
            return reply.body
        await context.abort(_STATUS.get(reply.code, grpc.StatusCode.UNKNOWN), reply.details, reply.trailing)
        raise AssertionError  # abort has raised

    async def _stream(self, path: str, context: Any) -> None:
        stream = self._gate.stream(_call(path, context, tls=self._tls), _bodies(context))
        try:
            initial = await stream.initial()
            if initial:
                await context.send_initial_metadata(initial)
            async for message in stream.messages():
                await context.write(message)
            _end(context, await stream.status())
        finally:
            stream.cancel()


def streams_of(limits: Limits) -> int:
    """Calls of one connection; well above what is admitted, so that whoever is too many is told."""
    return max(1000, 2 * (limits.max_concurrent_calls + limits.max_queued_calls))


def make_server(gate: Gate, listen: Listen, limits: Limits, *, shared: bool = False) -> tuple[aio.Server, str]:
    """A bound server, not started, and where it listens. shared: with other workers. Raises ConfigError."""
    server = aio.server(
        options=(
            *limit_options(limits, receive=limits.max_request_bytes, send=-1),
            ("grpc.http2.bdp_probe", 0),  # it widens windows of what nobody reads yet, past every limit here
            ("grpc.so_reuseport", int(shared)),  # else a second process on the same port is a mistake
            ("grpc.max_concurrent_streams", streams_of(limits)),
            ("grpc.default_compression_level", _LEVELS[listen.compression]),
        ),
    )
    server.add_generic_rpc_handlers((_Handlers(gate, tls=listen.tls is not None),))
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
