"""gRPC's frames around messages: five bytes (compressed or not, length) and the message, in whatever pieces it comes.

Nothing is put together that is larger than the limit, and nothing is inflated beyond it.
"""

import asyncio
import struct
import zlib
from collections import deque
from typing import Literal

PREFIX_BYTES = 5
INLINE_BYTES = 64 * 1024
"""What is inflated or deflated on the event loop; more goes to a thread."""
_WINDOW = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
_SMALL = 1024
ACCEPTED = "identity,deflate,gzip"
pack = struct.Struct(">BI").pack


class TooLarge(Exception):
    """A message, or what it would inflate to, is past the limit."""


class Malformed(Exception):
    """What came is no message."""


class UnknownEncoding(Exception):
    """A grpc-encoding that is not spoken here."""


class Inbox:
    """The messages of one direction of a call.

    need: how many bytes must be there before `take` can say more than before. compressed: the last message's flag.
    """

    __slots__ = ("_begun", "_offset", "_pieces", "compressed", "ended", "most", "need", "size")

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = self._offset = 0
        self.need = PREFIX_BYTES
        self.ended = self.compressed = self._begun = False
        self._pieces: deque[bytes | bytearray] = deque()

    def add(self, data: bytes, end: bool) -> bool:
        """What came; whether that is worth another look."""
        if data:
            self._keep(data)
            self.size += len(data)
        if end:
            self.ended = True
        return self.size >= self.need or self.ended

    def _keep(self, data: bytes) -> None:
        """Small pieces go together: one of a byte would take fifty."""
        pieces = self._pieces
        last = pieces[-1] if pieces and len(data) < _SMALL else None
        if isinstance(last, bytearray) and len(last) < INLINE_BYTES:
            last += data
        elif last is not None and len(last) < _SMALL:
            pieces[-1] = bytearray(last) + data
        else:
            pieces.append(data)

    def take(self) -> bytes | None:
        """The next message; None: not there yet, or, where `ended`, no more. Raises TooLarge, Malformed."""
        if self.size < self.need:
            self._check_end()
            return None
        if not self._begun:
            head = self._peek()
            if head[0] > 1:
                raise Malformed
            length = int.from_bytes(head[1:PREFIX_BYTES], "big")
            if length > self.most:
                raise TooLarge(length)
            self.compressed, self._begun = head[0] == 1, True
            self.need = PREFIX_BYTES + length
            if self.size < self.need:
                self._check_end()
                return None
        total, self.need, self._begun = self.need, PREFIX_BYTES, False
        return self._cut(total)

    def _check_end(self) -> None:
        if self.ended and self.size:
            raise Malformed

    def _peek(self) -> bytes | bytearray:
        """The first bytes, in one piece."""
        pieces = self._pieces
        while len(pieces[0]) - self._offset < PREFIX_BYTES:
            first = pieces.popleft()[self._offset :]
            self._offset = 0
            pieces[0] = first + pieces[0]
        return pieces[0][self._offset : self._offset + PREFIX_BYTES] if self._offset else pieces[0]

    def _cut(self, total: int) -> bytes:
        pieces = self._pieces
        self.size -= total
        first, start = pieces[0], self._offset
        end = start + total
        if len(first) >= end:
            if len(first) == end:
                pieces.popleft()
                self._offset = 0
            else:
                self._offset = end
            return bytes(first[start + PREFIX_BYTES : end])
        return self._join(total - PREFIX_BYTES)

    def _join(self, length: int) -> bytes:
        pieces = self._pieces
        parts = [memoryview(pieces.popleft())[self._offset + PREFIX_BYTES :]]
        left = length - len(parts[0])
        while len(pieces[0]) < left:
            parts.append(memoryview(pieces.popleft()))
            left -= len(parts[-1])
        if len(pieces[0]) == left:
            parts.append(memoryview(pieces.popleft()))
            self._offset = 0
        else:
            parts.append(memoryview(pieces[0])[:left])
            self._offset = left
        return b"".join(parts)


def _rest(inflater: "zlib._Decompress", begun: bytes, most: int) -> bytes:
    whole = begun + inflater.decompress(inflater.unconsumed_tail, most + 1 - len(begun))
    if len(whole) > most:
        raise TooLarge(len(whole))
    if not inflater.eof or inflater.unused_data:
        raise Malformed
    return whole


def _whole(inflater: "zlib._Decompress", message: bytes, most: int) -> bytes:
    return _rest(inflater, inflater.decompress(message, min(most + 1, INLINE_BYTES)), most)


async def inflated(message: bytes, encoding: str, most: int) -> bytes:
    """A compressed message as it was. Raises TooLarge, Malformed."""
    if encoding not in _WINDOW:
        raise Malformed  # the flag of a compressed message without an encoding
    inflater = zlib.decompressobj(_WINDOW[encoding])
    try:
        if len(message) > INLINE_BYTES:  # it may take long and come to nothing
            return await asyncio.to_thread(_whole, inflater, message, most)
        begun = inflater.decompress(message, min(most + 1, INLINE_BYTES))
        if inflater.eof or len(begun) > most:
            return _rest(inflater, begun, most)
        return await asyncio.to_thread(_rest, inflater, begun, most)
    except zlib.error:
        raise Malformed from None


def _deflate(message: bytes, encoding: str) -> bytes:
    deflater = zlib.compressobj(wbits=_WINDOW[encoding])
    return deflater.compress(message) + deflater.flush()


async def framed(message: bytes, encoding: Literal["gzip", "deflate"]) -> tuple[bytes, bytes]:
    """Prefix and message, compressed where that makes it smaller."""
    if len(message) <= INLINE_BYTES:
        small = _deflate(message, encoding)
    else:
        small = await asyncio.to_thread(_deflate, message, encoding)
    return (pack(1, len(small)), small) if len(small) < len(message) else (pack(0, len(message)), message)


def readable(encoding: str) -> bool:
    """Whether messages in this grpc-encoding can be read."""
    return encoding == "identity" or encoding in _WINDOW
