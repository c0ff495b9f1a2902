"""One connection to a server: requests go out on it, and what comes back is told to their calls.

It is `ready` once the server's settings came, `leaving` is done when no new call may begin on it.
"""

import asyncio
from typing import Protocol

from guard.proxy.fast import library
from guard.proxy.fast.connection import Connection, Hearing
from guard.proxy.fast.library import GOAWAY, SETTINGS, Event, ProtocolError
from guard.proxy.fast.remote_calls import WINDOW_BYTES
from guard.settings import Limits

CONNECTION_WINDOW_BYTES = 64 * 1024 * 1024
MAX_FRAME_BYTES = 1024 * 1024
SILENT_S, ANSWER_S, AGAIN_S = 60.0, 20.0, 310.0
"""A silent server with calls in flight is pinged, and given up where it stays silent. Not again for AGAIN_S: gRPC's
servers take pings that are more frequent than five minutes for abuse."""


class Heard(Hearing, Protocol):
    """What a call is told."""

    def lost(self) -> None:
        """The connection is gone."""
        ...


class Link(Connection):
    """A connection of an upstream."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(
            library.session(
                server=False,
                stream_window=WINDOW_BYTES,
                connection_window=CONNECTION_WINDOW_BYTES,
                max_frame=MAX_FRAME_BYTES,
                max_streams=0,
                max_header_bytes=limits.max_metadata_bytes,
            )
        )
        self.calls: dict[int, Heard] = {}
        self.ready: asyncio.Future[bool] = self.loop.create_future()
        self.leaving: asyncio.Future[None] = self.loop.create_future()
        self._pinged: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Servers that do not speak HTTP/2 are none."""
        tls = transport.get_extra_info("ssl_object")
        super().connection_made(transport)
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.abort()

    def on_other(self, event: Event) -> None:
        """The server is there, or wants to go; all else is of calls that have ended."""
        kind = event[0]
        if kind == GOAWAY:
            self.leave()
        elif kind == SETTINGS and not self.ready.done():
            self.ready.set_result(True)

    def begin(self, call: Heard, headers: library.Pairs, end: bool, *data: bytes) -> int:
        """Make a request. Raises ProtocolError where the connection takes none."""
        try:
            number = self.session.request(headers, end, *data)
        except ProtocolError:
            self.leave()
            raise
        self.calls[number] = call
        self.touch()
        return number

    def leave(self) -> None:
        """No new calls; the last one that ends ends the connection."""
        if not self.leaving.done():
            self.leaving.set_result(None)
        if not self.ready.done():
            self.ready.set_result(False)

    def forget(self, number: int) -> None:
        """A call has ended."""
        self.calls.pop(number, None)
        if self.leaving.done() and not self.calls:
            self.flush()
            self.close(0)

    def on_lost(self) -> None:
        """Every call ends."""
        self.leave()
        for call in tuple(self.calls.values()):
            call.lost()

    def sweep(self, now: float) -> None:
        """Look whether the server is still there."""
        silent_s = now - self.last_in
        if self.closing and silent_s > ANSWER_S:
            self.abort()
        if self._pinged is not None and self.last_in > self._pinged:
            self._pinged = None if now - self._pinged > AGAIN_S else self._pinged
        if not self.calls or silent_s < SILENT_S:
            return
        if self._pinged is None:
            self._pinged = now
            self.session.ping()
            self.touch()
        elif self._pinged > self.last_in and now - self._pinged > ANSWER_S:
            self.abort()
