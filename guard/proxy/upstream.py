"""A server over the network: one grpc.aio channel, behind the seam.

Bytes go through as they are (no serialisers). A status that the server sent is kept; one that this hop made itself
(no connection, no answer in time, an answer past the limit) is replaced by a constant reply, for gRPC's own texts name
addresses. gRPC does not say which is which: UNAVAILABLE counts as ours where the connection is gone, or the text is
one of gRPC's own.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc
from grpc import aio

from guard.proxy import methods, status, tls
from guard.proxy.headers import to_caller
from guard.proxy.seam import Metadata, Reply
from guard.proxy.status import Code
from guard.proxy.writing import write_all
from guard.reloading import Fingerprint
from guard.settings import ConfigError, Limits
from guard.settings import Upstream as Settings

COMPRESSION = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}
_OWN_TEXT = re.compile(
    "failed to connect|errors resolving|connections to all backends|empty address list|Socket closed|Stream removed"
    "|Connection reset|recvmsg|GOAWAY|goaway|Endpoint|Broken pipe|Cancelling all calls|Server shutdown|Channel closed"
    "|transport"
)
_log = logging.getLogger(__name__)


def limit_options(limits: Limits, *, receive: int, send: int) -> tuple[tuple[str, int], ...]:
    """Channel or server arguments for the size limits; gRPC's own defaults (4 MiB) hold on both."""
    return (
        ("grpc.max_receive_message_length", receive),
        ("grpc.max_send_message_length", send),
        ("grpc.max_metadata_size", limits.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.max_metadata_bytes),
    )


def _options(settings: Settings, limits: Limits) -> tuple[tuple[str, Any], ...]:
    return (
        *limit_options(limits, receive=limits.max_response_bytes, send=-1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5000),  # the longest an attempt to connect may take
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.primary_user_agent", "guard"),
        *(tls.channel_options(settings.tls) if settings.tls else ()),
    )


class RemoteUpstream:
    """Implements `seam.Upstream`. Raises ConfigError where the TLS files cannot be used."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self.name = settings.address
        self.settings = settings
        self._limits = limits
        self._compression = COMPRESSION[settings.compression]
        self._tasks: set[asyncio.Task[None]] = set()
        self._fingerprint, self._channel = self._open()
        self._methods: dict[str, Any] = {}
        self._connections = 0
        self._keep(self._watch(self._channel))

    def _open(self) -> tuple[Fingerprint, aio.Channel]:
        options = _options(self.settings, self._limits)
        if self.settings.tls is None:
            return (), aio.insecure_channel(self.settings.address, options, self._compression)
        try:
            seen = tls.fingerprint(self.settings.tls)
        except OSError as error:
            raise ConfigError(str(error.filename), f"cannot read: {error.strerror}") from None
        credentials = tls.credentials(self.settings.tls)
        return seen, aio.secure_channel(self.settings.address, credentials, options, self._compression)

    def refresh(self) -> None:
        """Open another channel where a TLS file was rotated; the old one closes when its calls have ended."""
        if self.settings.tls is None:
            return
        try:
            if tls.fingerprint(self.settings.tls) == self._fingerprint:
                return
            old = self._channel
            self._fingerprint, self._channel = self._open()
            self._methods.clear()
        except (OSError, ConfigError) as error:
            _log.error("upstream %s: kept the old certificates: %s", self.name, error)
            return
        _log.info("upstream %s: certificates read again", self.name)
        self._keep(old.close(self.settings.timeout_s))
        self._keep(self._watch(self._channel))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, channel: aio.Channel) -> None:
        """Count the connections of a channel; opens the first one."""
        state = channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.SHUTDOWN:
            if state is grpc.ChannelConnectivity.READY:
                self._connections += 1
            await channel.wait_for_state_change(state)
            state = channel.get_state(try_to_connect=True)

    @property
    def connection(self) -> int | None:
        """Which connection this is, counted from the first; None while there is none."""
        return self._connections if self._channel.get_state() is grpc.ChannelConnectivity.READY else None

    async def unary(self, path: str, body: bytes, metadata: Metadata, timeout_s: float) -> Reply:
        """One unary call."""
        if timeout_s <= 0:
            return status.late()
        method = self._methods.get(path)
        if method is None:
            method = self._channel.unary_unary(path, request_serializer=list.pop)
            if path in methods.TABLE:
                self._methods[path] = method
        held = [body]  # grpc.aio's calls that fail are cycles, which the collector finds late: they must not hold it
        try:
            call = method(held, timeout=timeout_s, metadata=aio.Metadata(*metadata), compression=self._compression)
            answer = await call
        except aio.AioRpcError as error:
            code, details = _number(error.code()), error.details() or ""
            return self._ended(code, details, error.initial_metadata(), error.trailing_metadata())
        except aio.UsageError:  # the channel was closed under the call
            return status.upstream_away()
        finally:
            held.clear()
        if answer is None:  # the server says that all is well, and nothing else
            return status.upstream_broken()
        return Reply(
            body=answer,
            initial=to_caller(await call.initial_metadata()),
            trailing=to_caller(await call.trailing_metadata()),
        )

    def _ended(self, code: int, details: str, initial: Any, trailing: Any) -> Reply:
        """How a call ended that did not end well."""
        initial, trailing = to_caller(initial or ()), to_caller(trailing or ())
        own = None if initial or trailing else self._own(code, details)
        if own is not None:
            _log.debug("upstream %s: %s %s", self.name, status.name_of(code), details)
        return own or Reply(code=code, details=details, initial=initial, trailing=trailing)

    def _own(self, code: int, details: str) -> Reply | None:
        """The constant reply for a status that this hop made; None for the server's."""
        if code == Code.UNAVAILABLE and (self.connection is None or _OWN_TEXT.search(details)):
            return status.upstream_away()
        if code == Code.DEADLINE_EXCEEDED and details in {"Deadline Exceeded", ""}:
            return status.upstream_late()
        if code == Code.RESOURCE_EXHAUSTED and "Received message larger than max" in details:
            return status.upstream_too_large()
        if code in {Code.INTERNAL, Code.UNKNOWN} and _OWN_TEXT.search(details):
            return status.upstream_broken()
        return None

    def stream(
        self, path: str, bodies: AsyncIterator[bytes], metadata: Metadata, timeout_s: float | None
    ) -> "RemoteStream":
        """One bidirectional stream."""
        method: Any = self._channel.stream_stream(path)
        call = method(timeout=timeout_s, metadata=aio.Metadata(*metadata), compression=self._compression)
        return RemoteStream(call, bodies, self._ended)

    async def close(self) -> None:
        """Close the channel; calls in flight end."""
        await self._channel.close()
        for task in tuple(self._tasks):
            task.cancel()


class RemoteStream:
    """Implements `seam.UpstreamStream`."""

    def __init__(self, call: Any, bodies: AsyncIterator[bytes], ended: Callable[[int, str, Any, Any], Reply]) -> None:
        self._call, self._ended = call, ended
        self._writing = asyncio.create_task(write_all(call, bodies))

    def _cancel(self) -> None:
        if self._call.cancel():
            self._writing.cancel()

    async def initial(self) -> Metadata:
        """The initial metadata, once there; empty where the stream ended without."""
        try:
            return to_caller(await self._call.initial_metadata() or ())
        except (aio.AioRpcError, aio.UsageError):
            return ()
        except asyncio.CancelledError:
            self._cancel()
            raise

    async def messages(self) -> AsyncIterator[bytes]:
        """The answers, until the stream ends."""
        try:
            async for message in self._call:
                yield message
        except (aio.AioRpcError, aio.UsageError):
            return
        finally:
            self._cancel()

    async def status(self) -> Reply:
        """How it ended."""
        code, details = _number(await self._call.code()), await self._call.details() or ""
        trailing = await self._call.trailing_metadata()
        if code == Code.OK:
            return Reply(trailing=to_caller(trailing or ()))
        return self._ended(code, details, (), trailing)


def _number(code: grpc.StatusCode) -> int:
    number: int = code.value[0]
    return number
