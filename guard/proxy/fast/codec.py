"""gRPC's forms in headers: timeouts, percent-encoded messages, binary metadata.

Source: grpc/doc/PROTOCOL-HTTP2.md. What does not keep to it raises ValueError.
"""

import base64
import binascii
import re
import urllib.parse
from collections.abc import Iterable
from functools import lru_cache

from guard.proxy.seam import Metadata

_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
MAX_VALUES = 64
"""In one field of binary metadata."""
_MOST = 10**8
_TIMEOUT = re.compile(r"[0-9]{1,8}[HMSmun]", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}", re.ASCII)
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def timeout_s(text: str) -> float:
    """Seconds of a grpc-timeout. Raises ValueError."""
    if _TIMEOUT.fullmatch(text) is None:
        raise ValueError("malformed grpc-timeout")
    return int(text[:-1]) * _UNITS_S[text[-1]]


def timeout(left_s: float) -> str:
    """The grpc-timeout for so many seconds; never more than that, and never less than a microsecond."""
    for unit in "umS":
        count = int(left_s / _UNITS_S[unit])
        if count < _MOST:
            return f"{max(count, 1)}{unit}"
    return f"{_MOST - 1}S"


@lru_cache(maxsize=256)
def quoted(message: str) -> str:
    """A grpc-message."""
    return urllib.parse.quote(message, safe=_PLAIN)


def unquoted(text: str) -> str:
    """The message of a grpc-message; what is no UTF-8 is replaced."""
    return urllib.parse.unquote(text, errors="replace") if "%" in text else text


def binary(text: str) -> list[bytes]:
    """The values of a header whose key ends in -bin, base64 with padding or without. Raises ValueError."""
    if text.count(",") >= MAX_VALUES:  # a byte of a header block may stand for thousands of them
        raise ValueError("too many values in binary metadata")
    values = []
    for one in text.split(","):
        plain = one.strip()
        if _BASE64.fullmatch(plain) is None:
            raise ValueError("malformed binary metadata")
        try:
            values.append(binascii.a2b_base64(plain.rstrip("=") + "=" * (-len(plain.rstrip("=")) % 4)))
        except binascii.Error:
            raise ValueError("malformed binary metadata") from None
    return values


def encoded(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[tuple[str, str | bytes], ...]:
    """Metadata as headers."""
    return tuple((key, _text(value) if key.endswith("-bin") else value) for key, value in metadata)


def _text(value: str | bytes) -> bytes:
    return base64.b64encode(value if isinstance(value, bytes) else value.encode()).rstrip(b"=")


def decoded(headers: Iterable[tuple[str, str]]) -> Metadata:
    """Headers as metadata. Raises ValueError."""
    metadata: list[tuple[str, str | bytes]] = []
    for pair in headers:
        if pair[0].endswith("-bin"):
            metadata.extend((pair[0], value) for value in binary(pair[1]))
        else:
            metadata.append(pair)
    return tuple(metadata)
