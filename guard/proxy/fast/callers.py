"""One caller's connection: calls begin and end on it, and it is closed where it takes more than calls need.

Answers: rapid reset (CVE-2023-44487; also where a caller makes this side reset its streams), floods of frames that
carry nothing, CONTINUATION floods (CVE-2024-28182, counted in the binding), heads and answers that are sent or read
slowly on purpose, connections that are held and not used.
"""

from typing import TYPE_CHECKING

from guard.proxy import server
from guard.proxy.fast import heads, library
from guard.proxy.fast.connection import CHUNK_BYTES, ENHANCE_YOUR_CALM, NO_ERROR, Connection, extra
from guard.proxy.fast.exchange import LINGER_S, WINDOW_BYTES, Lingering, Served
from guard.proxy.fast.library import CLOSED, HEADERS, SETTINGS, Event
from guard.proxy.fast.peers import peer_of
from guard.proxy.seam import Peer, Reply
from guard.proxy.status import Code

if TYPE_CHECKING:
    import asyncio

    from guard.proxy.fast.listener import Listener

CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024
MAX_FRAME_BYTES = 256 * 1024
GREETING_S = 10.0
IDLE_S = 900.0
SILENT_S = 120.0
"""A caller that is silent for so long is pinged; one that does not answer within UNREAD_S is gone."""
RESETS, RESETS_PER_S = 1000, 100.0
NOISE, NOISE_S = 2000, 10.0
"""So many frames that carry nothing within that time are too many."""
BLOCK_SWEEPS = 3
SPARE_FRAMES = 2000
"""So many frames, and two for each stream that there may be, may wait to be read by the caller."""


class Caller(Connection):
    """A connection of the listener."""

    def __init__(self, listener: "Listener") -> None:
        limits = listener.limits
        super().__init__(
            library.session(
                server=True,
                stream_window=WINDOW_BYTES,
                connection_window=CONNECTION_WINDOW_BYTES,
                max_frame=MAX_FRAME_BYTES,
                max_streams=listener.max_streams,
                max_header_bytes=limits.max_metadata_bytes,
            )
        )
        self.listener = listener
        self.calls: dict[int, Served] = {}
        self.peer = Peer("")
        self.began = self.used = self.last_in
        self.greeted = self.draining = False
        self.drained_at = self.began
        self._last = 0
        self._resets, self._resets_at = 0.0, self.began
        self._noise, self._noise_at = 0, self.began
        self._blocks = 0

    # --- the connection

    def connection_made(self, transport: "asyncio.BaseTransport") -> None:
        """Say hello to callers that speak HTTP/2."""
        self.transport = None
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.closing = True
            transport.close()
            return
        super().connection_made(transport)
        self.peer = peer_of(extra(self, "socket"), tls)

    def on_lost(self) -> None:
        """Every call ends."""
        for call in tuple(self.calls.values()):
            call.gone()
        self.listener.lost(self)

    def buffer_updated(self, nbytes: int) -> None:
        """So much was read; whether it is too much of what carries nothing."""
        super().buffer_updated(nbytes)
        if self.session.waiting > SPARE_FRAMES + 2 * self.listener.max_streams:  # he does not read what he asks for
            self.abort()
            return
        if self.session.noise - self._noise > NOISE:
            if self.last_in - self._noise_at < NOISE_S:
                self.close(ENHANCE_YOUR_CALM)
            self._noise, self._noise_at = self.session.noise, self.last_in

    # --- calls

    def on_other(self, event: Event) -> None:
        """A call begins, or the caller has said hello; all else is of calls that have ended."""
        kind, number, payload, end = event
        if kind == HEADERS and number > self._last:
            self._last = number
            self._begin(number, payload, end)
        elif kind == CLOSED:
            self.count_reset()
        elif kind == SETTINGS:
            self.greeted = True

    def _begin(self, number: int, headers: tuple[tuple[str, str], ...] | None, end: bool) -> None:
        try:
            if headers is None:
                raise heads.refused(Code.RESOURCE_EXHAUSTED, "the metadata are too large")
            call = Served(self, number, heads.read(headers))
        except heads.Refused as refused:
            self.session.respond(number, refused.headers, False)
            if not end:
                self.listener.deadlines.add(LINGER_S, Lingering(self, number))
            return
        call.inbox.ended = end
        self.calls[number] = call

    def forget(self, number: int) -> None:
        """A call has ended."""
        self.calls.pop(number, None)
        self.used = self.last_in
        if not self.calls and self.transport is None:
            self.listener.lost(self)

    def count_reset(self) -> None:
        """A stream was reset, by its caller or by what he did."""
        now = self.last_in
        self._resets = max(0.0, self._resets - (now - self._resets_at) * RESETS_PER_S) + 1
        self._resets_at = now
        if self._resets > RESETS:
            self.close(ENHANCE_YOUR_CALM)

    # --- from time to time

    def sweep(self, now: float) -> None:
        """Look whether the caller keeps the connection for nothing."""
        self._blocks = self._blocks + 1 if self.session.in_block else 0
        slow = self._blocks >= BLOCK_SWEEPS or (not self.greeted and now - self.began > GREETING_S)
        unread = self.paused_at is not None and now - self.paused_at > server.UNREAD_S
        left = self.draining and not self.calls and now - self.drained_at > server.UNREAD_S  # he was told to leave
        if slow or unread or left or (self.closing and now - self.last_in > server.UNREAD_S):
            self.abort()
        elif self.calls:
            self._ask(now - self.last_in)
        elif now - max(self.used, self.began) > IDLE_S:
            self.drain()

    def _ask(self, silent_s: float) -> None:
        if silent_s > SILENT_S + server.UNREAD_S:
            self.abort()
        elif silent_s > SILENT_S:
            self.session.ping()
            self.touch()

    def drain(self) -> None:
        """No new calls; those that have begun go on."""
        if self.closing or self.draining:
            return
        self.draining, self.drained_at = True, self.loop.time()
        self.session.goaway(None)
        self.touch()
        self.loop.call_later(self.listener.notice_s, self._drained)

    def _drained(self) -> None:
        if not self.closing:
            self.session.goaway(NO_ERROR)
            self.flush()

    def cancel(self) -> None:
        """End every call, then the connection."""
        for call in tuple(self.calls.values()):
            call.end(Reply(code=Code.UNAVAILABLE, details="the server is stopping"))
        self.flush()
        if self.transport is not None and self.transport.get_write_buffer_size() > CHUNK_BYTES:
            self.abort()
        self.close(NO_ERROR)
