"""The compiled binding (`guard/_nghttp2.c`): its type, and why it cannot be used where that is so."""

from typing import Any, Protocol

Pairs = tuple[tuple[str | bytes, str | bytes], ...]
Event = tuple[int, int, Any, bool]
"""kind, stream, payload, whether it ends the stream.

HEADERS: pairs of str, or None where there are too many bytes. DATA: bytes. CLOSED: an error code; the stream is gone
before its time. DRAINED: all data have left, asked for with `notify`. GOAWAY: an error code; the stream is the last
that is answered. SETTINGS: none."""

try:
    from guard import _nghttp2 as found
except ImportError as error:
    found = None
    _missing = "No module named" in str(error) or "cannot import name" in str(error)
    unusable: str | None = "Guard was built without it (no C compiler)" if _missing else str(error)
else:
    unusable = None

binding: Any = found
HEADERS, DATA, CLOSED, DRAINED, GOAWAY, SETTINGS = range(6)


class Session(Protocol):
    """One end of a connection, see guard/_nghttp2.c."""

    alive: bool
    may_request: bool
    pending: bool
    want_write: bool
    in_block: bool
    noise: int
    queued: int
    waiting: int

    def receive(self, data: bytes | memoryview, /) -> list[Event]:
        """What came in means this."""
        ...

    def take(self) -> list[Event]:
        """Events that sending brought about."""
        ...

    def send(self, limit: int, /) -> bytes | bytearray:
        """What is to be written now, not much more than the limit."""
        ...

    def request(self, headers: Pairs, end: bool, /, *data: bytes) -> int:
        """Begin a stream; `end`: with these data."""
        ...

    def respond(self, stream: int, headers: Pairs, trailers: Pairs | bool | None, /, *data: bytes) -> int:
        """Answer a stream. trailers: pairs end it after the data, None: it goes on, False: the headers end it."""
        ...

    def write(self, stream: int, /, *data: bytes) -> int:
        """More data. Returns bytes that the windows hold back, as `respond` does; -1: the stream is gone."""
        ...

    def finish(self, stream: int, trailers: Pairs | None, /) -> int:
        """No more data."""
        ...

    def notify(self, stream: int, /) -> int:
        """Bytes that have not left; if any, a DRAINED event follows when all of them have."""
        ...

    def reset(self, stream: int, code: int, /) -> None:
        """End a stream with a code; no event follows."""
        ...

    def consume(self, stream: int, size: int, /) -> None:
        """Open the stream's window by so much."""
        ...

    def enlarge(self, stream: int, window: int, /) -> None:
        """Make the stream's window so large."""
        ...

    def goaway(self, code: int | None, /) -> None:
        """No new streams; None: a notice ahead of it."""
        ...

    def ping(self) -> None:
        """Ask for a sign of life."""
        ...


class _Never(Exception):
    """What is caught where there is no binding."""


ProtocolError: type[Exception] = _Never if binding is None else binding.ProtocolError


def session(
    *, server: bool, stream_window: int, connection_window: int, max_frame: int, max_streams: int, max_header_bytes: int
) -> Session:
    """A new one."""
    made: Session = binding.Session(
        server=server,
        stream_window=stream_window,
        connection_window=connection_window,
        max_frame=max_frame,
        max_streams=max_streams,
        max_header_bytes=max_header_bytes,
        max_continuations=8 + max_header_bytes // 16384,
        max_acks=1000,
        max_resets=1000,
    )
    return made
