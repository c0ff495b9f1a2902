"""HTTP/2 frames by hand (RFC 9113), and one end of a connection that speaks them as it is told to."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.planes import hpack

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_HEADERS = range(1, 7)
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL = 0, 1, 2, 7, 8
ENHANCE_YOUR_CALM = 11
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    """One frame; `length` may lie."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs))


def window(stream: int, by: int) -> bytes:
    return frame(WINDOW, 0, stream, by.to_bytes(4, "big"))


def rst(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST, 0, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: int = NO_ERROR, text: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + text)


def message(body: bytes, flag: int = 0) -> bytes:
    """gRPC's frame around a message."""
    return bytes([flag]) + len(body).to_bytes(4, "big") + body


def head(path: bytes, /, *extra: tuple[bytes, bytes], **changed: bytes | None) -> hpack.Pairs:
    """A gRPC call's header fields. changed: of those below, by name (`_` for `-`); None leaves one out."""
    known = {":method": b"POST", ":scheme": b"http", ":path": path, ":authority": b"test"}
    known |= {"te": b"trailers", "content-type": b"application/grpc"}
    for name, value in changed.items():
        key = name.replace("_", "-")
        known[":" + key if ":" + key in known else key] = value  # type: ignore[assignment]
    return [(name.encode(), value) for name, value in known.items() if value is not None] + list(extra)


def headers(stream: int, pairs: hpack.Pairs, *, end: bool = False) -> bytes:
    """A header block in one HEADERS frame and as many CONTINUATIONs as it takes."""
    encoded = hpack.block(pairs)
    parts = [encoded[at : at + 16384] for at in range(0, len(encoded), 16384)] or [b""]
    flags = [END_STREAM if end else 0, *[0] * (len(parts) - 1)]
    flags[-1] |= END_HEADERS
    kinds = [HEADERS, *[CONTINUATION] * (len(parts) - 1)]
    return b"".join(frame(k, f, stream, p) for k, f, p in zip(kinds, flags, parts, strict=True))


def data(stream: int, payload: bytes, *, end: bool = False) -> bytes:
    """DATA in frames of at most 16 KiB."""
    parts = [payload[at : at + 16384] for at in range(0, len(payload), 16384)] or [b""]
    flags = [*[0] * (len(parts) - 1), END_STREAM if end else 0]
    return b"".join(frame(DATA, f, stream, p) for f, p in zip(flags, parts, strict=True))


def call(stream: int, path: bytes, body: bytes | None, *extra: tuple[bytes, bytes]) -> bytes:
    """One whole unary call; body None: it carries no message."""
    if body is None:
        return headers(stream, head(path, *extra), end=True)
    return headers(stream, head(path, *extra)) + data(stream, message(body), end=True)


@dataclass
class Stream:
    """What came on one stream. blocks: header blocks, the last one the trailers; code: of its RST_STREAM."""

    blocks: list[hpack.Pairs] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    code: int | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def http(self) -> int:
        return int(dict(self.blocks[0])[b":status"]) if self.blocks else 0

    @property
    def trailers(self) -> dict[bytes, bytes]:
        return dict(self.blocks[-1]) if self.blocks else {}

    @property
    def grpc(self) -> int | None:
        """grpc-status; None where there is none."""
        value = self.trailers.get(b"grpc-status")
        return None if value is None else int(value)


class Wire:
    """One end of a connection. Reads for ever; keeps the rules only where it is `polite`.

    polite: acknowledges SETTINGS and PINGs; generous: gives window back for what came; answer: what a server does when
    a caller has ended a stream.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        polite: bool = True,
        generous: bool = True,
        is_server: bool = False,
        answer: "Callable[[Wire, int], None] | None" = None,
    ) -> None:
        self.reader, self.writer, self._answer = reader, writer, answer
        self.polite, self.generous, self.is_server = polite, generous, is_server
        self.streams: dict[int, Stream] = {}
        self.frames: list[tuple[int, int, int, int]] = []
        self.settings: dict[int, int] = {}
        self.gone: int | None = None
        self.text = b""
        self.received = 0
        self.windows: dict[int, int] = {}
        self.arrived = asyncio.Event()
        self.closed = asyncio.Event()
        self._hpack, self._block = hpack.Reader(), b""
        self._task = asyncio.create_task(self._run())

    def send(self, *raw: bytes) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self.writer.write(b"".join(raw))

    async def drained(self, *raw: bytes) -> bool:
        """Send, and wait until it has left, or the other side is gone: False."""
        self.send(*raw)
        try:
            await self.writer.drain()
        except OSError:
            return False
        return not self.closed.is_set()

    async def send_data(self, number: int, payload: bytes, *, end: bool = True, timeout_s: float = 10.0) -> None:
        """DATA as far as the windows let it; stops where the stream or the connection has ended."""
        sent = 0
        async with asyncio.timeout(timeout_s):
            while sent < len(payload) and not self.closed.is_set() and not self.stream(number).done.is_set():
                first = self.settings.get(INITIAL_WINDOW, 65_535)
                room = min(65_535 + self.windows.get(0, 0), first + self.windows.get(number, 0)) - sent
                part = payload[sent : sent + min(room, 16_384)] if room > 0 else b""
                sent += len(part)
                if part:
                    await self.drained(frame(DATA, END_STREAM if end and sent == len(payload) else 0, number, part))
                else:
                    self.arrived.clear()
                    await self.arrived.wait()

    def stream(self, number: int) -> Stream:
        return self.streams.setdefault(number, Stream())

    async def ended(self, number: int, timeout_s: float = 10.0) -> Stream:
        """The stream once it has ended, or the connection has."""
        stream = self.stream(number)
        async with asyncio.timeout(timeout_s):
            waits = [asyncio.create_task(event.wait()) for event in (stream.done, self.closed)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        return stream

    async def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Until the condition holds; looked at whenever something comes."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.arrived.clear()
                await self.arrived.wait()

    async def close(self) -> None:
        self._task.cancel()
        self.writer.transport.abort()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            if self.is_server:
                assert await self.reader.readexactly(len(PREFACE)) == PREFACE
            while True:
                start = await self.reader.readexactly(9)
                length, kind, flags = int.from_bytes(start[:3], "big"), start[3], start[4]
                payload = await self.reader.readexactly(length)
                self.received += 9 + length
                self._take(kind, flags, int.from_bytes(start[5:], "big") & 0x7FFFFFFF, payload)
                self.arrived.set()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed.set()
            self.arrived.set()

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        self.frames.append((kind, flags, number, len(payload)))
        if kind == DATA:
            self._data(flags, number, payload)
        elif kind == HEADERS:
            self._head(flags, payload)
            self._more(flags, number)
        elif kind == CONTINUATION:
            self._block += payload
            self._more(flags, number)
        elif kind == RST:
            self.stream(number).code = int.from_bytes(payload, "big")
            self.stream(number).done.set()
        elif kind == WINDOW:
            self.windows[number] = self.windows.get(number, 0) + int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            self.gone, self.text = int.from_bytes(payload[4:8], "big"), payload[8:]
        elif not flags & ACK:
            self._told(kind, payload)

    def _told(self, kind: int, payload: bytes) -> None:
        """SETTINGS and PINGs."""
        if kind == SETTINGS:
            pairs = (payload[at : at + 6] for at in range(0, len(payload), 6))
            self.settings |= {int.from_bytes(p[:2], "big"): int.from_bytes(p[2:], "big") for p in pairs}
        if self.polite and kind in {SETTINGS, PING}:
            self.send(frame(kind, ACK, 0, payload if kind == PING else b""))

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        stream = self.stream(number)
        stream.body += payload[1 : len(payload) - payload[0]] if flags & PADDED else payload
        if payload and self.generous:
            self.send(window(0, len(payload)), window(number, len(payload)))
        if flags & END_STREAM:
            self._end(number)

    def _end(self, number: int) -> None:
        self.stream(number).ended = True
        self.stream(number).done.set()
        if self._answer is not None:
            self._answer(self, number)

    def _head(self, flags: int, payload: bytes) -> None:
        if flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if flags & PRIORITISED:
            payload = payload[5:]
        self._block = payload
        self._ends = bool(flags & END_STREAM)

    def _more(self, flags: int, number: int) -> None:
        if flags & END_HEADERS:
            stream = self.stream(number)
            stream.blocks.append(self._hpack.read(self._block))
            if self._ends:
                self._end(number)


async def connected(address: str, tls: ssl.SSLContext | None = None, *, buffer: int = 2**16) -> tuple:
    """A reader and a writer. buffer: what the reader takes before TCP is told to wait. With TLS it is `localhost`."""
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"), limit=buffer)
    host, _, port = address.rpartition(":")
    name = "localhost" if tls else None
    return await asyncio.open_connection(host.strip("[]"), int(port), ssl=tls, server_hostname=name, limit=buffer)


@contextlib.asynccontextmanager
async def wire(
    address: str,
    *pairs: tuple[int, int],
    tls: ssl.SSLContext | None = None,
    polite: bool = True,
    generous: bool = True,
    first: Iterable[bytes] | None = None,
):
    """A client's connection, begun with the preface and these settings, or with the `first` bytes instead."""
    made = Wire(*await connected(address, tls), polite=polite, generous=generous)
    made.send(*((PREFACE, settings(*pairs)) if first is None else first))
    try:
        yield made
    finally:
        await made.close()
