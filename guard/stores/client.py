"""A connection to Valkey or Redis that never keeps anybody waiting past its deadline.

redis-py is imported where a client is made, so that whoever keeps history in memory does not need it. Whoever finds all
connections in use waits for one, within his own deadline: redis-py itself would fail at once, and a burst of queries
would look like a server that is away.
"""

import asyncio
import hashlib
import inspect
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PATIENCE = 0.9  # of the deadline: redis-py must see for itself that a node is silent, or it never asks for another
_REASONS = {
    "AuthenticationError": "wrong user or password",
    "AuthenticationWrongNumberOfArgsError": "wrong user or password",
    "AuthorizationError": "wrong user or password",
    "BusyLoadingError": "it is starting",
    "ClusterDownError": "its cluster is down",
    "MasterDownError": "its master is down",
    "NoPermissionError": "its user may not do all that is needed",
    "OutOfMemoryError": "it is full",
    "ReadOnlyError": "it is a replica",
    "SSLCertVerificationError": "its certificate is not good",
    "TimeoutError": "no answer in time",
}
_WORDS = {  # of errors without a name of their own
    "Authentication required": _REASONS["AuthenticationError"],
    "has no permissions": _REASONS["NoPermissionError"],
    "user executing the script can't": _REASONS["NoPermissionError"],
}


class StoreAway(OSError):
    """The store did not answer, or not in time, or refused."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the store is, and how to speak to it.

    addresses:     host:port; of a cluster any of its nodes, else one.
    password_file: or password_env, the name of an environment variable: where the password is. At most one of them.
                   The file is read again for each connection, so a rotated one is picked up.
    tls:           the certificate must be the host's. ca_file, and cert_file with key_file, are PEM; without ca_file
                   the system's authorities count.
    """

    addresses: tuple[str, ...] = ("127.0.0.1:6379",)
    cluster: bool = False
    username: str | None = None
    password_file: Path | None = None
    password_env: str | None = None
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def password(self) -> str | None:
        """What the file or the variable says. Raises ValueError where there is none."""
        if self.password_file and self.password_env:
            raise ValueError("a password comes from password_file or from password_env, not from both")
        if self.password_env:
            if self.password_env not in os.environ:
                raise ValueError(f"the environment has no {self.password_env}")
            return os.environ[self.password_env]
        if self.password_file:
            try:
                return self.password_file.read_text().strip()
            except OSError as error:
                raise ValueError(f"password_file cannot be read: {error.strerror}") from error
        return None

    def hosts(self) -> list[tuple[str, int]]:
        """(host, port) of each address. Raises ValueError."""
        found = []
        for address in self.addresses:
            host, _, port = address.rpartition(":")
            if not host or not port.isdigit():
                raise ValueError(f"{address!r} is not host:port")
            found.append((host.strip("[]"), int(port)))
        if not found or (len(found) > 1 and not self.cluster):
            raise ValueError("one address is wanted; several are those of a cluster")
        return found


class Client:
    """Runs scripts, each call within `timeout_s`. Raises ValueError for a server that cannot be, StoreAway later."""

    def __init__(self, server: Server, timeout_s: float, max_connections: int = 16) -> None:
        import redis.asyncio as aio  # noqa: PLC0415 - an extra
        from redis.asyncio.cluster import ClusterNode, RedisCluster  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.exceptions import NoScriptError, RedisClusterException, RedisError  # noqa: PLC0415

        self._timeout_s, self._missing = timeout_s, NoScriptError
        self._errors = (RedisError, RedisClusterException, OSError)  # the second is none of the first
        self._room = asyncio.Semaphore(max_connections)
        self._joining: asyncio.Task[Any] | None = None
        hosts = server.hosts()
        server.password()  # so that a wrong setting shows at the start
        common: dict[str, Any] = {
            "credential_provider": _credentials(server),
            "socket_connect_timeout": _PATIENCE * timeout_s,
            "socket_timeout": _PATIENCE * timeout_s,
            "max_connections": max_connections,
            "ssl": server.tls,
            **_unnamed(aio.Redis),
        }
        no_retry = aio.retry.Retry(NoBackoff(), 0)  # what was sent may have counted: evidence must not count twice
        connection = _connection(server)
        self._cluster = server.cluster
        self._redis: Any
        if server.cluster:
            nodes = [ClusterNode(host, port) for host, port in hosts]
            self._redis = RedisCluster(startup_nodes=nodes, retry=no_retry, **common)
            self._redis.get_connection_kwargs()["connection_class"] = connection  # there is no option for it
            for node in self._redis.nodes_manager.startup_nodes.values():
                node.connection_class = connection
        else:
            self._redis = aio.Redis(host=hosts[0][0], port=hosts[0][1], retry=no_retry, **common)
            self._redis.connection_pool.connection_class = connection

    async def run(self, script: bytes, key: bytes, *arguments: bytes | str | float) -> Any:
        """The script's answer: one round trip, or two where the server has not met it yet."""
        async with self._deadline():
            try:
                return await self._redis.evalsha(_sha(script), 1, key, *arguments)
            except self._missing:
                return await self._redis.eval(script, 1, key, *arguments)

    async def command(self, *words: Any) -> Any:
        """One command on one key."""
        async with self._deadline():
            return await self._redis.execute_command(*words)

    async def close(self) -> None:
        """Close the connections, as far as that can be done in time."""
        if self._joining is not None:
            self._joining.cancel()
        with suppress(TimeoutError, *self._errors):
            async with asyncio.timeout(self._timeout_s):
                await self._redis.aclose()

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s), self._room:
                if self._cluster:
                    await self._join()
                yield
        except self._errors as error:
            raise StoreAway(f"the store is away: {_why(error)}") from error

    async def _join(self) -> None:
        """Learn a cluster's topology. Where that takes longer than a query may wait, the next one finds it learnt."""
        if self._joining is None:
            self._joining = asyncio.create_task(self._redis.initialize())
            self._joining.add_done_callback(self._joined)
        await asyncio.shield(self._joining)

    def _joined(self, task: "asyncio.Task[Any]") -> None:
        self._joining = None
        if not task.cancelled():
            task.exception()  # whoever waited has it, too


def _credentials(server: Server) -> Any:
    """What redis-py asks for each connection; None where there is nothing to tell."""
    from redis.credentials import CredentialProvider  # noqa: PLC0415

    class Credentials(CredentialProvider):
        def get_credentials(self) -> tuple[str] | tuple[str, str]:
            try:
                password = server.password() or ""
            except ValueError as error:
                raise OSError(str(error)) from error
            return (password,) if server.username is None else (server.username, password)

        async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
            return self.get_credentials()

    known = server.username is not None or server.password_file is not None or server.password_env is not None
    return Credentials() if known else None


def _unnamed(client: type) -> dict[str, None]:
    """Options by which it does not tell the server its name: another round trip, for which it needs a permission."""
    if "driver_info" in inspect.signature(client).parameters:
        return {"driver_info": None}
    return {"lib_name": None, "lib_version": None}  # redis-py before 7.2


class _Context:
    """One TLS context for all connections, made anew where a file has changed: loading authorities takes 20 ms."""

    def __init__(self, server: Server) -> None:
        self._server, self._made = server, ssl.create_default_context()
        self._stamps: tuple[tuple[int, int, int], ...] = ()

    def get(self) -> ssl.SSLContext:
        """The context. Raises OSError where a file cannot be read."""
        server = self._server
        stats = [file.stat() for file in (server.ca_file, server.cert_file, server.key_file) if file is not None]
        stamps = tuple((one.st_mtime_ns, one.st_ino, one.st_size) for one in stats)
        if self._stamps != stamps:
            made = ssl.create_default_context(cafile=server.ca_file)  # with one, the system's do not count
            if server.cert_file is not None:
                made.load_cert_chain(server.cert_file, server.key_file)
            self._made, self._stamps = made, stamps
        return self._made


def _connection(server: Server) -> Any:
    """The class of connections to it. Raises ValueError where a file cannot be read."""
    from redis.asyncio.connection import Connection, SSLConnection  # noqa: PLC0415

    class Plain(Connection):
        async def connect(self) -> None:
            if self._reader is not None and self._reader.at_eof():  # the server ended it: it has restarted, or it idled
                await self.disconnect(nowait=True)
            await super().connect()  # type: ignore[no-untyped-call]

    if not server.tls:
        return Plain
    context = _Context(server)
    try:
        context.get()
    except OSError as error:
        raise ValueError(f"ca_file, cert_file or key_file cannot be used: {error.strerror}") from error

    class Tls(Plain, SSLConnection):
        def __init__(self, **words: Any) -> None:
            super().__init__(**words)
            self.ssl_context: Any = context  # its own would trust the system's authorities beside the given ones

    return Tls


def _why(error: BaseException) -> str:
    """The kind of error, and what it means. Never the server's own words: they can repeat what was sent to it."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    reason = next((_REASONS[name] for one in chain if (name := type(one).__name__) in _REASONS), None)
    reason = reason or next((named for words, named in _WORDS.items() if words in str(error)), None)
    return type(error).__name__ + (f", {reason}" if reason else "")


def _sha(script: bytes) -> str:
    return hashlib.sha1(script, usedforsecurity=False).hexdigest()
