"""Header blocks by hand, independent of any library: literals are written, everything is read.

Source: RFC 7541. Written: literals without indexing, never Huffman. Read: indexed, literal and Huffman-coded fields and
the dynamic table; of Huffman's code only what text is made of.
"""

from collections.abc import Iterable

Pairs = list[tuple[bytes, bytes]]

_STATIC = """:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate"""
STATIC: Pairs = [(n.encode(), v.encode()) for n, _, v in (line.partition(" ") for line in _STATIC.split("\n"))]

_BY_LENGTH = {
    5: "012aceiost",
    6: " %-./3456789=A_bdfghlmnpru",
    7: ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: "&*,;XZ",
    10: '!"()?',
    11: "'+|",
    12: "#>",
    13: "\0$@[]~",
    14: "^}",
    15: "<`{",
    19: "\\\xc3\xd0",
}
"""Huffman's code is canonical: lengths, and order within a length, say all."""


def _codes() -> dict[tuple[int, int], int]:
    codes, code, before = {}, 0, 0
    for length, letters in _BY_LENGTH.items():
        code <<= length - before
        before = length
        for letter in letters:
            codes[length, code] = ord(letter)
            code += 1
    return codes


_CODES = _codes()


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """A number behind `bits` bits of prefix."""
    top = (1 << bits) - 1
    if value < top:
        return bytes([first | value])
    out, value = bytearray([first | top]), value - top
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    out.append(value)
    return bytes(out)


def string(value: bytes) -> bytes:
    return integer(len(value), 7) + value


def literal(name: bytes, value: bytes) -> bytes:
    """One field, without indexing."""
    return b"\0" + string(name) + string(value)


def stored(name: bytes, value: bytes) -> bytes:
    """One field that the other side is to keep in its table."""
    return b"\x40" + string(name) + string(value)


def indexed(index: int) -> bytes:
    return integer(index, 7, 0x80)


def block(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(literal(name, value) for name, value in pairs)


def _unpacked(data: bytes) -> bytes:
    out, code, length = bytearray(), 0, 0
    for byte in data:
        for shift in range(7, -1, -1):
            code, length = code << 1 | (byte >> shift & 1), length + 1
            if (length, code) in _CODES:
                out.append(_CODES[length, code])
                code = length = 0
    assert length < 8, "a letter that this table does not have"
    assert code == (1 << length) - 1, "the padding is all ones"
    return bytes(out)


class Reader:
    """Reads the header blocks of one connection, in order. size: of the table that it lets the writer use."""

    def __init__(self, size: int = 4096) -> None:
        self._table: Pairs = []
        self._size = size

    def read(self, data: bytes) -> Pairs:
        self._data, self._at, pairs = data, 0, []
        while self._at < len(data):
            first = data[self._at]
            if first & 0x80:
                pairs.append(self._entry(self._integer(7)))
            elif first & 0xE0 == 0x20:
                size = self._integer(5)
                assert size <= 4096
                self._keep(size)
            else:
                keeps = bool(first & 0x40)
                index = self._integer(6 if keeps else 4)
                name = self._entry(index)[0] if index else self._string()
                pairs.append((name, self._string()))
                if keeps:
                    self._table.insert(0, pairs[-1])
                    self._keep(self._size)
        return pairs

    def _keep(self, size: int) -> None:
        self._size = size
        while sum(len(name) + len(value) + 32 for name, value in self._table) > size:
            self._table.pop()

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        return STATIC[index - 1] if index <= len(STATIC) else self._table[index - len(STATIC) - 1]

    def _integer(self, bits: int) -> int:
        top = (1 << bits) - 1
        value, shift = self._data[self._at] & top, 0
        self._at += 1
        if value < top:
            return value
        while True:
            byte = self._data[self._at]
            self._at += 1
            value += (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def _string(self) -> bytes:
        packed = bool(self._data[self._at] & 0x80)
        length = self._integer(7)
        self._at += length
        value = self._data[self._at - length : self._at]
        return _unpacked(value) if packed else value
