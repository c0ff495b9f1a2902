"""What a server's headers say of how a call went, as gRPC reads them; what this hop must say itself is constant."""

from functools import lru_cache

from guard.proxy import status
from guard.proxy.fast import codec
from guard.proxy.fast.connection import CANCEL, ENHANCE_YOUR_CALM, REFUSED_STREAM, Headers
from guard.proxy.fast.framing import readable
from guard.proxy.headers import to_caller
from guard.proxy.seam import Metadata, Reply
from guard.proxy.status import Code

_HTTP = {
    "400": Code.INTERNAL,
    "401": Code.UNAUTHENTICATED,
    "403": Code.PERMISSION_DENIED,
    "404": Code.UNIMPLEMENTED,
    "429": Code.UNAVAILABLE,
    "502": Code.UNAVAILABLE,
    "503": Code.UNAVAILABLE,
    "504": Code.UNAVAILABLE,
}
_RESET = {CANCEL: Code.CANCELLED, ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED, 12: Code.PERMISSION_DENIED}
_MOST_DIGITS = 3
_STOPPING = frozenset({"Cancelling all calls", "Server shutdown"})
_LATE = frozenset({"Deadline Exceeded", ""})
"""What gRPC's servers say where nobody has answered: taken for this hop's, as from grpcio."""


def _metadata(headers: Headers) -> Metadata:
    """What of a server's headers goes to the caller. Raises ValueError."""
    return to_caller(codec.decoded(pair for pair in headers if pair[0][0] != ":"))


def is_informational(headers: Headers) -> bool:
    """A response ahead of the response."""
    return headers[0][1].startswith("1") and headers[0][0] == ":status"


def not_grpc(headers: Headers) -> Reply | None:
    """How a call ends whose response is none of gRPC's; None where it is."""
    said = dict(headers)
    number = said.get(":status", "")
    if "grpc-status" in said:
        return None
    if number != "200":
        code = _HTTP.get(number, Code.UNKNOWN)
        if code == Code.UNAVAILABLE:
            return status.upstream_away()
        return Reply(code=code, details=f"Received http2 header with status: {number}")
    kind = said.get("content-type", "application/grpc")
    return None if kind.startswith("application/grpc") else status.upstream_broken()


@lru_cache(maxsize=256)
def opening(headers: Headers) -> tuple[Reply | None, Metadata, str]:
    """What a response's headers say: how the call ends where that is clear by now; metadata, encoding of messages."""
    reply = not_grpc(headers)
    if reply is not None:
        return reply, (), ""
    encoding = dict(headers).get("grpc-encoding", "identity")
    try:
        return (None if readable(encoding) else status.upstream_broken()), _metadata(headers), encoding
    except ValueError:
        return status.upstream_broken(), (), ""


@lru_cache(maxsize=256)
def _closing(headers: Headers) -> tuple[int, str, Metadata]:
    """Code, -1: none; details; metadata. Raises ValueError."""
    said = dict(headers)
    number = said.get("grpc-status", "-1")
    if number != "-1":
        number = number if number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS else "2"
    return int(number), codec.unquoted(said.get("grpc-message", "")), _metadata(headers)


def ended(headers: Headers, initial: Metadata, body: bytes | None) -> Reply:
    """What trailers say. body: the one message of a unary call, None where there is none."""
    try:
        code, details, trailing = _closing(headers)
    except ValueError:
        return status.upstream_broken()
    if code < 0 or (code == 0 and body is None):
        return status.upstream_broken()
    if code == 0 and body is not None:
        return Reply(body, initial=initial, trailing=trailing)
    if not (initial or trailing):
        if code == Code.UNAVAILABLE and details in _STOPPING:
            return status.upstream_away()
        if code == Code.DEADLINE_EXCEEDED and details in _LATE:
            return status.upstream_late()
    return Reply(code=code, details=details, initial=initial, trailing=trailing)


def was_reset(code: int) -> Reply:
    """How a call ends whose stream the server reset."""
    if code == REFUSED_STREAM:
        return status.upstream_away()
    known = _RESET.get(code)
    if known is None:
        return status.upstream_broken()
    return Reply(code=known, details=f"Received RST_STREAM with error code {code}")
