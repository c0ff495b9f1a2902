"""A server over the network, through libnghttp2: one connection at a time, behind the seam.

A connection that breaks or is told to end is replaced at once, one that cannot be made is tried again after 0.1 to 1 s.
Calls wait for a connection that is being made for the first time since the last one worked, and fail at once after
an attempt has failed. A call that the server says it has not looked at is made once more.
Statuses of the server are kept; those of this hop are constant.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from urllib.parse import unquote

from guard.proxy import status, tls
from guard.proxy.fast import codec, framing
from guard.proxy.fast.deadlines import Deadlines
from guard.proxy.fast.library import Pairs, ProtocolError
from guard.proxy.fast.link import Link
from guard.proxy.fast.remote_calls import Framing, RemoteStream, StreamCall, UnaryCall, plain
from guard.proxy.seam import Metadata, Reply
from guard.reloading import Fingerprint
from guard.settings import ConfigError, Limits
from guard.settings import Upstream as Settings

CONNECT_S = 5.0
FIRST_WAIT_S, LONGEST_WAIT_S, GROWTH = 0.1, 1.0, 1.6
SWEEP_S = 5.0
_TRIES = 2
_log = logging.getLogger(__name__)


class FastUpstream:
    """Implements `seam.Upstream`. Raises ConfigError where the TLS files or the address cannot be used."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self.name = settings.address
        self.settings = settings
        self._limits = limits
        self._where = target(settings.address)
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines()
        self._fingerprint, self._context = self._credentials()
        self._framing: Framing = plain
        if settings.compression != "none":
            self._framing = partial(framing.framed, encoding=settings.compression)
        self._opening = self._headers()
        self._paths: dict[str, Pairs] = {}
        self._link: Link | None = None
        self._links: set[Link] = set()
        self._connecting: asyncio.Future[Link | None] | None = self._loop.create_future()
        self._connections = 0
        self._closed = False
        self._task = asyncio.create_task(self._stay())
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)

    def _credentials(self) -> tuple[Fingerprint, ssl.SSLContext | None]:
        if self.settings.tls is None:
            return (), None
        try:
            seen = tls.fingerprint(self.settings.tls)
        except OSError as error:
            raise ConfigError(str(error.filename), f"cannot read: {error.strerror}") from None
        return seen, tls.client_context(self.settings.tls)

    def _headers(self) -> Pairs:
        secure = self.settings.tls
        authority = secure.server_name if secure is not None and secure.server_name else self._where.authority
        encoding = self.settings.compression
        return (
            (":scheme", "http" if secure is None else "https"),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "guard"),
            ("grpc-accept-encoding", framing.ACCEPTED),
            *((("grpc-encoding", encoding),) if encoding != "none" else ()),
        )

    def refresh(self) -> None:
        """Open another connection where a TLS file was rotated; the old one closes when its calls have ended."""
        if self.settings.tls is None:
            return
        try:
            if tls.fingerprint(self.settings.tls) == self._fingerprint:
                return
            self._fingerprint, self._context = self._credentials()
        except (OSError, ConfigError) as error:
            _log.error("upstream %s: kept the old certificates: %s", self.name, error)
            return
        _log.info("upstream %s: certificates read again", self.name)
        if self._link is not None:
            self._link.leave()

    # --- connections

    @property
    def connection(self) -> int | None:
        """Which connection this is, counted from the first; None while there is none."""
        return self._connections if self._link is not None and not self._link.leaving.done() else None

    async def _stay(self) -> None:
        """Stay connected until cancelled."""
        wait_s = FIRST_WAIT_S
        while True:
            begun = self._loop.time()
            if self._connecting is None and wait_s == FIRST_WAIT_S:
                self._connecting = self._loop.create_future()
            link = await self._connect()
            if link is not None:
                self._connections += 1
            self._link = link
            waiting, self._connecting = self._connecting, None
            if waiting is not None and not waiting.done():
                waiting.set_result(link)
            if link is not None:
                await link.leaving
                self._link = None
                if self._connecting is None:
                    self._connecting = self._loop.create_future()
                if not link.calls:
                    link.close(0)
                if self._loop.time() - begun > LONGEST_WAIT_S:
                    wait_s = FIRST_WAIT_S
                    continue
            await asyncio.sleep(wait_s)
            wait_s = min(LONGEST_WAIT_S, wait_s * GROWTH)

    async def _connect(self) -> Link | None:
        """A connection that is ready; None where there is none to be had."""
        link = Link(self._limits)
        self._links.add(link)
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._where.connect(self._loop, link, self._context, self.settings)
                if await link.ready and not link.leaving.done():
                    return link
        except (OSError, TimeoutError) as error:
            _log.debug("upstream %s: %s", self.name, error)
        except BaseException:
            link.abort()
            raise
        link.abort()
        return None

    def _sweep(self) -> None:
        now = self._loop.time()
        for link in tuple(self._links):
            link.sweep(now)
            if link.closing and link.transport is None and not link.calls:
                self._links.discard(link)
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)

    async def _usable(self, timeout_s: float) -> Link | Reply:
        link = self._link
        if link is None or link.leaving.done() or link.closing:
            waiting = self._connecting
            if waiting is None and link is not None and not self._closed:  # about to be replaced
                waiting = self._connecting = self._loop.create_future()
            if waiting is None:
                return status.upstream_away()
            try:
                async with asyncio.timeout(timeout_s):
                    link = await asyncio.shield(waiting)
            except TimeoutError:
                return status.upstream_late()
        return link or status.upstream_away()

    # --- calls

    def _request(self, path: str, timeout_s: float | None, metadata: Metadata) -> Pairs:
        opening = self._paths.get(path)
        if opening is None:
            if len(self._paths) > 100:  # noqa: PLR2004 - callers cannot make up paths; a change of settings can
                self._paths.clear()
            opening = self._paths[path] = ((":method", "POST"), (":path", path), *self._opening)
        if timeout_s is not None:
            opening = (*opening, ("grpc-timeout", codec.timeout(timeout_s)))
        return (*opening, *codec.encoded(metadata)) if metadata else opening

    async def unary(self, path: str, body: bytes, metadata: Metadata, timeout_s: float) -> Reply:
        """One unary call."""
        if timeout_s <= 0:
            return status.late()
        end = self._loop.time() + timeout_s
        if self._framing is plain:
            prefix = framing.pack(0, len(body))
        else:
            prefix, body = await self._framing(body)
        reply: Reply | None = None
        for _ in range(_TRIES):
            left_s = end - self._loop.time()
            link = self._link
            if link is None or link.leaving.done() or link.closing:
                usable = await self._usable(left_s)
                if isinstance(usable, Reply):
                    return usable
                link, left_s = usable, end - self._loop.time()
            call = UnaryCall(link, self._limits.max_response_bytes)
            try:
                call.number = link.begin(call, self._request(path, left_s, metadata), True, prefix, body)
            except ProtocolError:
                continue
            reply = await self._answer(call, left_s)
            if not call.refused:
                return await call.inflate(reply) if call.inbox.compressed else reply
        return reply or status.upstream_away()

    async def _answer(self, call: UnaryCall, left_s: float) -> Reply:
        slot = self._deadlines.add(left_s, call)
        link = call.link
        try:
            return await call.reply
        finally:
            self._deadlines.drop(slot, call)
            if not link.closing:
                link.session.reset(call.number, 8)  # nothing where the stream has ended
                link.touch()
            link.forget(call.number)

    def stream(
        self, path: str, bodies: AsyncIterator[bytes], metadata: Metadata, timeout_s: float | None
    ) -> RemoteStream:
        """One bidirectional stream."""
        end = None if timeout_s is None else self._loop.time() + timeout_s
        slots: dict[StreamCall, int] = {}

        async def begin() -> StreamCall | Reply:
            for _ in range(_TRIES):
                left_s = None if end is None else end - self._loop.time()
                if left_s is not None and left_s <= 0:
                    return status.late()
                link = await self._usable(CONNECT_S if left_s is None else left_s)
                if isinstance(link, Reply):
                    return link
                call = StreamCall(link, self._limits.max_response_bytes)
                try:
                    call.number = link.begin(call, self._request(path, left_s, metadata), False)
                except ProtocolError:
                    continue
                if left_s is not None:
                    slots[call] = self._deadlines.add(left_s, call)
                return call
            return status.upstream_away()

        def ended(call: StreamCall) -> None:
            slot = slots.pop(call, None)
            if slot is not None:
                self._deadlines.drop(slot, call)
            call.link.forget(call.number)

        return RemoteStream(begin, ended, bodies, self._framing)

    async def close(self) -> None:
        """Close the connections; calls in flight end."""
        self._closed = True
        self._task.cancel()
        self._sweeping.cancel()
        if self._connecting is not None and not self._connecting.done():
            self._connecting.set_result(None)
        self._connecting = None
        for link in tuple(self._links):
            for call in tuple(link.calls.values()):
                call.lost()
            link.leave()
            link.close(0)
        self._links.clear()
        self._deadlines.close()
        await asyncio.sleep(0)


# --- addresses


class Target:
    """Where a server is. authority: what calls name it."""

    def __init__(self, host: str, port: int, path: str | None, authority: str) -> None:
        self.host, self.port, self.path, self.authority = host, port, path, authority

    async def connect(
        self, loop: asyncio.AbstractEventLoop, link: Link, context: ssl.SSLContext | None, settings: Settings
    ) -> None:
        """Raises OSError."""
        named: dict[str, Any] = {}
        if context is not None:
            name = settings.tls.server_name if settings.tls is not None else None
            named = {"ssl": context, "server_hostname": name or self.host, "ssl_handshake_timeout": CONNECT_S}
        if self.path is not None:
            await loop.create_unix_connection(lambda: link, self.path, **named)
        else:
            await loop.create_connection(lambda: link, self.host, self.port, **named)


def target(address: str) -> Target:
    """HOST:PORT, dns:HOST:PORT, ipv4:..., ipv6:..., unix:/PATH, as gRPC names servers. Raises ConfigError."""
    scheme, _, rest = address.partition(":")
    if scheme in {"unix", "unix-abstract"}:
        path = "/" + rest.lstrip("/") if rest.startswith("//") else rest
        return Target("localhost", 0, path if scheme == "unix" else f"\0{rest}", "localhost")
    if scheme in {"dns", "ipv4", "ipv6"}:
        rest = unquote(rest.rpartition("/")[2] if scheme == "dns" else rest.split(",")[0])
    else:
        rest = address
    host, port = _split(rest)
    if not host or not 0 < port <= 65535:  # noqa: PLR2004
        raise ConfigError("upstream.address", f"not an address: {address}")
    return Target(host, port, None, rest)


def _split(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or host.endswith(":") or (":" in host and not host.startswith("[")):
        return text.strip("[]"), 443  # gRPC's own default
    return host.removeprefix("[").removesuffix("]"), int(port) if port.isascii() and port.isdigit() else 0
