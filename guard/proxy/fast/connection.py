"""One connection: what a socket gives goes through a session, and what it makes of it to whoever holds the other end.

What is to be sent is sent once per turn of the event loop, in one piece. While the other side does not take it, the
session holds it back, and so does whoever waits for `drained`.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol, cast

from guard.proxy.fast.library import DATA, DRAINED, GOAWAY, HEADERS, Event, ProtocolError, Session

CHUNK_BYTES = 256 * 1024
MANY_EVENTS = 64
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0, 1, 2, 7, 8, 11
_BUFFER = memoryview(bytearray(CHUNK_BYTES))
_log = logging.getLogger(__name__)
Headers = tuple[tuple[str, str], ...]


class Hearing(Protocol):
    """What a call is told. headers: None where they are too large."""

    def on_headers(self, headers: Headers | None, end: bool) -> None:
        """A block of headers that is not its first word."""
        ...

    def on_data(self, data: bytes, end: bool) -> None:
        """A part of a message."""
        ...

    def on_closed(self, code: int) -> None:
        """The stream was reset."""
        ...

    def on_drained(self) -> None:
        """Everything has left."""
        ...


class Connection(asyncio.BufferedProtocol):
    """Implements asyncio's BufferedProtocol. Subclasses keep `calls`, and say what events mean that are none of theirs.

    last_in: when something last came in, on the loop's clock. paused_at: since when the socket takes nothing; None: it
    does.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.closing = False
        self.paused_at: float | None = None
        self.last_in = self.loop.time()
        self._flushing = False

    calls: Mapping[int, Hearing]

    # --- what subclasses say

    def on_other(self, event: Event) -> None:
        """What concerns the connection, or a call that is not known."""
        raise NotImplementedError

    def on_lost(self) -> None:
        """The connection is gone."""
        raise NotImplementedError

    def on_events(self, events: list[Event]) -> None:
        """What came in."""
        calls = self.calls
        for event in events:
            kind, number, payload, end = event
            call = calls.get(number)
            if call is None or kind >= GOAWAY:
                self.on_other(event)
            elif kind == DATA:
                call.on_data(payload, end)
            elif kind == HEADERS:
                call.on_headers(payload, end)
            elif kind == DRAINED:
                call.on_drained()
            else:
                call.on_closed(payload)

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=CHUNK_BYTES)
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Where to read to: all connections share one place, for what was read is used up at once."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """So much was read."""
        self.last_in = self.loop.time()
        try:
            events = self.session.receive(_BUFFER[:nbytes])
        except ProtocolError as error:
            _log.debug("%s", error)
            self.close(PROTOCOL_ERROR)
            return
        if events:
            self.on_events(events)
        if len(events) > MANY_EVENTS:  # what is reset at once must not begin
            self.flush()
        else:
            self.touch()

    def eof_received(self) -> None:
        """The other side sends no more: HTTP/2 has no half-open connections."""

    def pause_writing(self) -> None:
        """The socket takes nothing."""
        self.paused_at = self.loop.time()

    def resume_writing(self) -> None:
        """It does again."""
        self.paused_at = None
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The socket is gone."""
        self.closing = True
        self.transport = None
        self.on_lost()

    # --- towards the socket

    def touch(self) -> None:
        """There may be something to send."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what can be sent."""
        self._flushing = False
        session, transport = self.session, self.transport
        if transport is None or self.closing:
            return
        try:
            while self.paused_at is None:
                data = session.send(CHUNK_BYTES)
                if data:
                    transport.write(data)
                if len(data) < CHUNK_BYTES:
                    break
            if session.pending:
                self.on_events(session.take())
        except ProtocolError as error:
            _log.debug("%s", error)
            self.abort()
            return
        if not session.alive:
            self.close()

    def close(self, code: int | None = None) -> None:
        """Say why, if with a code, and end the connection; what was written before is still sent."""
        if self.closing or self.transport is None:
            return
        self.closing = True
        try:
            if code is not None:
                self.session.goaway(code)
            if self.paused_at is None:
                self.transport.write(self.session.send(CHUNK_BYTES))
        except ProtocolError:
            pass
        self.transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self.closing = True
        if self.transport is not None:
            self.transport.abort()


def extra(connection: Connection, name: str) -> Any:
    """What the transport knows by this name."""
    return None if connection.transport is None else connection.transport.get_extra_info(name)
