"""Operators' HTTP: GET /metrics, /healthz and /readyz for everyone, all else behind the token. Keep it on loopback.

A few fixed pages need no framework: a head of bounded size within a bounded time, one answer, and the connection ends.
No body is read, nothing that the client sent comes back, and the answer does not name the software.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Protocol

from guard import config
from guard.metrics import Metrics
from guard.proxy.door import ELSEWHERE, RETRY_S, Door, Knock, has_token, visitor
from guard.settings import ConfigError, Settings

__all__ = ["AdminHttp", "BadRequest", "Pages", "Request", "Response", "encode", "has_token", "parse_head", "start"]

MAX_HEAD_BYTES = 16 * 1024
MAX_CONNECTIONS = 64
TIMEOUT_S = 10.0
_TEXT = "text/plain; charset=utf-8"


class Runtime(Protocol):
    """What this listener shows."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        ...

    @property
    def metrics(self) -> Metrics:
        """What is counted."""
        ...

    @property
    def ready(self) -> bool:
        """Whether Guard takes calls, and all that is behind it."""
        ...

    @property
    def serving(self) -> bool:
        """Whether it takes calls, and some of what is behind it."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request: target without query, headers in lower case, None where one came twice.

    visitor: whose tries it takes (`guard.proxy.door`).
    """

    method: str
    path: str
    headers: Mapping[str, str | None] = field(default_factory=dict)
    visitor: str = ELSEWHERE


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = _TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


class BadRequest(ValueError):
    """Not an HTTP/1 request."""


def parse_head(head: bytes) -> Request:
    """Everything up to the empty line -> the request. Raises BadRequest."""
    try:
        first, *lines = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
        method, target, version = first.split(" ")
    except ValueError:
        raise BadRequest from None
    if version not in {"HTTP/1.0", "HTTP/1.1"} or not target.startswith("/"):
        raise BadRequest
    headers: dict[str, str | None] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest
        headers[name.lower()] = None if name.lower() in headers else value.strip()
    return Request(method, target.partition("?")[0], headers)


class Site(Protocol):
    """Further pages (`guard.proxy.admin_page`)."""

    async def answer(self, request: Request) -> Response | None:
        """None: not one of them."""
        ...

    async def run(self) -> None:
        """What goes on while the listener is open."""
        ...


@dataclass(frozen=True, slots=True)
class Pages:
    """What is answered."""

    runtime: Callable[[], Runtime]
    door: Door
    site: Site | None = None

    async def answer(self, request: Request) -> Response:
        """The page asked for."""
        pages: dict[str, Callable[[Request], Response]] = {
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": lambda _: _readiness(self.runtime().ready),
            "/readyz/any": lambda _: _readiness(self.runtime().serving),
            "/config": self._config,
        }
        page = pages.get(request.path)
        if page is None:
            further = None if self.site is None else await self.site.answer(request)
            return further or text(HTTPStatus.NOT_FOUND, "not found")
        if request.method not in {"GET", "HEAD"}:
            return text(HTTPStatus.METHOD_NOT_ALLOWED, "method not allowed", {"Allow": "GET, HEAD"})
        return page(request)

    def _metrics(self, _: Request) -> Response:
        body, content_type = self.runtime().metrics.exposition()
        return Response(HTTPStatus.OK, body, content_type)

    def _healthz(self, _: Request) -> Response:
        return text(HTTPStatus.OK, "ok")

    def _config(self, request: Request) -> Response:
        knock = self.door.knock(request.headers.get("authorization"), request.visitor)
        if knock is not Knock.OPEN:
            return refused(knock)
        settings = self.runtime().settings
        document = {"digest": config.digest(settings), "settings": config.public(settings)}
        return Response(HTTPStatus.OK, json.dumps(document, indent=2).encode() + b"\n", "application/json")


def _readiness(ready: bool) -> Response:
    return text(HTTPStatus.OK, "ready") if ready else text(HTTPStatus.SERVICE_UNAVAILABLE, "not ready")


def text(status: HTTPStatus, words: str, headers: Mapping[str, str] | None = None) -> Response:
    """A line."""
    return Response(status, words.encode() + b"\n", headers=headers or {})


def refused(knock: Knock) -> Response:
    """To who may not look."""
    if knock is Knock.SHUT:
        return text(HTTPStatus.FORBIDDEN, "no admin token is set: GUARD_ADMIN_TOKEN or admin.token_file")
    if knock is Knock.WAIT:
        later = {"Retry-After": str(int(RETRY_S))}
        return text(HTTPStatus.TOO_MANY_REQUESTS, "too many wrong tokens were tried: wait", later)
    return text(HTTPStatus.UNAUTHORIZED, "the admin token is needed", {"WWW-Authenticate": "Bearer"})


def encode(response: Response, *, body: bool = True) -> bytes:
    """The bytes of an answer; HEAD leaves the body out."""
    headers = {
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Connection": "close",
        **response.headers,
    }
    lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (response.body if body else b"")


class AdminHttp:
    """The listener, once started. `address`: HOST:PORT it is bound to."""

    def __init__(self, server: asyncio.Server, connections: "_Connections", site: Site | None) -> None:
        self._server, self._connections = server, connections
        self._running = None if site is None else asyncio.create_task(site.run())
        host, port = server.sockets[0].getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def close(self) -> None:
        """Stop listening and end open connections."""
        self._server.close()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._connections.close()
        await self._server.wait_closed()


async def start(
    runtime: Callable[[], Runtime],
    address: str,
    door: Door,
    site: Site | None = None,
) -> AdminHttp:
    """Listen. Raises ConfigError where the address cannot be taken."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise ConfigError("admin.http", f"{address!r} is not HOST:PORT")
    connections = _Connections(Pages(runtime, door, site))
    try:
        server = await asyncio.start_server(connections, host.strip("[]") or None, int(port), limit=MAX_HEAD_BYTES)
    except (OSError, OverflowError) as error:
        raise ConfigError("admin.http", f"cannot listen on {address}: {error}") from None
    return AdminHttp(server, connections, site)


class _Connections:
    """Handles connections, a bounded number at once, each for a bounded time.

    One too many takes the place of who has waited longest without asking, or without reading what he was answered:
    probes get through a crowd that does neither.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._idle: dict[asyncio.Task[None], None] = {}
        self._closing = False

    async def close(self) -> None:
        """End every connection."""
        self._closing = True
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:  # pragma: no cover - asyncio runs every connection as a task
            return
        if len(self._open) >= MAX_CONNECTIONS and self._idle:
            longest = next(iter(self._idle))
            del self._idle[longest]
            self._open.pop(longest).transport.abort()
        try:
            if len(self._open) < MAX_CONNECTIONS:
                self._open[task], self._idle[task] = writer, None
                async with asyncio.timeout(TIMEOUT_S):
                    await self._serve(reader, writer, task)
                    writer.close()
                    await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # the client left, was too slow, or gave way
        except asyncio.CancelledError:
            if not self._closing:  # else nobody else waits for it, and asyncio would log it
                raise
        finally:
            writer.transport.abort()
            self._idle.pop(task, None)
            self._open.pop(task, None)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: "asyncio.Task[None]"
    ) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self._idle.pop(task, None)
            peer = visitor(str((writer.get_extra_info("peername") or ("",))[0]))
            request = replace(parse_head(head), visitor=peer)
        except asyncio.LimitOverrunError:
            writer.write(encode(text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head is too large")))
        except BadRequest:
            writer.write(encode(text(HTTPStatus.BAD_REQUEST, "not a request")))
        else:
            writer.write(encode(await self._pages.answer(request), body=request.method != "HEAD"))
        if task in self._open:  # else it has given way
            self._idle[task] = None
        await writer.drain()
