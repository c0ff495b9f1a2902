"""The listener of the fast plane: sockets are accepted, connections counted, swept and drained."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import stat
from pathlib import Path

from guard.proxy import tls
from guard.proxy.fast.callers import Caller
from guard.proxy.fast.deadlines import Deadlines
from guard.proxy.server import Gate, streams_of
from guard.settings import ConfigError, Limits, Listen

BACKLOG = 1024
ACCEPTED_AT_ONCE = 64
HANDSHAKE_S = 10.0
SWEEP_S = 5.0
NOTICE_S = 0.1
LAST_WORDS_S = 0.2
"""How long connections may take to send what is left, and to close, once no call has time any more."""
BREATH_S = 1.0
"""How long nothing is accepted where the system has no more descriptors."""
_log = logging.getLogger(__name__)


class Listener:
    """A bound server, not started. Used as grpc.aio's: `start`, `stop`."""

    notice_s = NOTICE_S

    def __init__(
        self, gate: Gate, listen: Listen, limits: Limits, sockets: list[socket.socket], path: Path | None
    ) -> None:
        self.gate, self.limits, self.compression = gate, limits, listen.compression
        self.max_streams = streams_of(limits)
        self.deadlines = Deadlines()
        self._contexts = None if listen.tls is None else tls.server_contexts(listen.tls)
        self._loop = asyncio.get_running_loop()
        self._sockets, self._path = sockets, path
        self._connections: set[Caller] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._gone = asyncio.Event()
        self._sweeping: asyncio.TimerHandle | None = None
        self._stopped = False

    async def start(self) -> None:
        """Take callers."""
        for sock in self._sockets:
            sock.listen(BACKLOG)
            self._loop.add_reader(sock, self._accept, sock)
        self._sweep()

    # --- connections

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                client, _ = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    self._breathe(sock)
                return
            if len(self._connections) >= self.limits.max_connections and not self._make_room():
                client.close()
                continue
            client.setblocking(False)
            caller = Caller(self)
            self._connections.add(caller)
            task = self._loop.create_task(self._open(client, caller))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _make_room(self) -> bool:
        """End one without a call: one that never had any before others, the oldest first. False: all have some."""
        idle = [one for one in self._connections if not one.calls and not one.closing and one.transport is not None]
        if not idle:
            return False
        min(idle, key=lambda one: (one.used > one.began, one.used)).abort()
        return True

    def _breathe(self, sock: socket.socket) -> None:
        _log.error("no more connections can be taken: the system's limit is reached")
        self._loop.remove_reader(sock)
        self._loop.call_later(BREATH_S, self._resume, sock)

    def _resume(self, sock: socket.socket) -> None:
        if not self._stopped:
            self._loop.add_reader(sock, self._accept, sock)

    async def _open(self, client: socket.socket, caller: Caller) -> None:
        context: ssl.SSLContext | None = None if self._contexts is None else self._contexts.value
        timeout = None if context is None else HANDSHAKE_S
        try:
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(lambda: caller, client, ssl=context, ssl_handshake_timeout=timeout)
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            _log.debug("a connection failed: %s", error)
            client.close()
            self.lost(caller)

    def lost(self, caller: Caller) -> None:
        """A connection is gone; it is kept while its calls end."""
        if not caller.calls:
            self._connections.discard(caller)
            self._gone.set()

    def _sweep(self) -> None:
        now = self._loop.time()
        for caller in tuple(self._connections):
            try:
                caller.sweep(now)
            except Exception:  # noqa: BLE001 - one connection must not keep the others from being looked at
                _log.exception("a connection could not be looked at")
                caller.abort()
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)

    # --- the end

    async def stop(self, grace: float | None) -> None:
        """Take no new calls; those in flight may take `grace` seconds more."""
        self._stopped = True
        while self._sockets:
            sock = self._sockets.pop()
            self._loop.remove_reader(sock)
            sock.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        for caller in self._connections:
            caller.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace or 0.0):
                await self._empty()
        for caller in tuple(self._connections):
            caller.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._empty()
        for caller in tuple(self._connections):
            caller.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.deadlines.close()

    async def _empty(self) -> None:
        while self._connections:
            self._gone.clear()
            await self._gone.wait()


def make_server(gate: Gate, listen: Listen, limits: Limits, *, shared: bool = False) -> tuple[Listener, str]:
    """A bound listener, not started, and where it listens; shared: workers share the address. Raises ConfigError."""
    sockets: list[socket.socket] = []
    try:
        path = Path(listen.address.removeprefix("unix:")) if listen.address.startswith("unix:") else None
        if path is not None:
            sockets.append(_bound_path(path))
            address = listen.address
        else:
            address = _bind(listen.address, sockets, shared=shared)
        return Listener(gate, listen, limits, sockets, path), address
    except (OSError, ValueError) as error:
        for sock in sockets:
            sock.close()
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("listen.address", f"cannot listen on {listen.address}") from None


def split(address: str) -> tuple[str, int]:
    """HOST:PORT or [HOST]:PORT. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon:
        raise ValueError(address)
    return host.removeprefix("[").removesuffix("]"), int(port)


def _bind(address: str, into: list[socket.socket], *, shared: bool) -> str:
    """Raises OSError, ValueError."""
    host, port = split(address)
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, where in dict.fromkeys(found):
        sock = socket.socket(family, kind, protocol)
        into.append(sock)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            only = host not in {"", "::"} or len({one[0] for one in found}) > 1
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only))
        sock.bind((where[0], port, *where[2:]))
        port = sock.getsockname()[1]
    return f"{address.rpartition(':')[0]}:{port}"


def _bound_path(path: Path) -> socket.socket:
    """A Unix socket; what an ended process left behind is taken away. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - Path.stat is the same
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
                    path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind(str(path))
    return sock
