"""A connection to Valkey or Redis that never keeps anybody waiting past its deadline.

redis-py is imported where a client is made, so that whoever keeps history in memory does not need it.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class StoreAway(OSError):
    """The store did not answer, or not in time, or refused."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the store is, and how to speak to it.

    addresses:     host:port; of a cluster any of its nodes, else one.
    password_file: or password_env, the name of an environment variable: where the password is. At most one of them.
    tls:           ca_file, and cert_file with key_file, are PEM; without ca_file the system's authorities count.
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

    def __init__(self, server: Server, timeout_s: float, max_connections: int = 64) -> None:
        import redis.asyncio as aio  # noqa: PLC0415 - an extra
        from redis.asyncio.cluster import ClusterNode, RedisCluster  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.exceptions import NoScriptError, RedisError  # noqa: PLC0415

        self._timeout_s, self._missing, self._errors = timeout_s, NoScriptError, (RedisError, OSError, TimeoutError)
        hosts = server.hosts()
        common: dict[str, Any] = {
            "username": server.username,
            "password": server.password(),
            "socket_connect_timeout": timeout_s,
            "socket_timeout": timeout_s,
            "max_connections": max_connections,
            "ssl": server.tls,
        }
        if server.tls:
            common |= {
                "ssl_ca_certs": server.ca_file and str(server.ca_file),
                "ssl_certfile": server.cert_file and str(server.cert_file),
                "ssl_keyfile": server.key_file and str(server.key_file),
            }
        no_retry = aio.retry.Retry(NoBackoff(), 0)  # what was sent may have counted: evidence must not count twice
        self._redis: Any
        if server.cluster:
            nodes = [ClusterNode(host, port) for host, port in hosts]
            self._redis = RedisCluster(startup_nodes=nodes, retry=no_retry, **common)
        else:
            self._redis = aio.Redis(host=hosts[0][0], port=hosts[0][1], retry=no_retry, **common)

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
        """Close the connections."""
        async with self._deadline():
            await self._redis.aclose()

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except self._errors as error:
            raise StoreAway(f"the store is away: {type(error).__name__}") from error


def _sha(script: bytes) -> str:
    return hashlib.sha1(script, usedforsecurity=False).hexdigest()
