"""What a server's headers say of how a call went, as gRPC reads them; what this hop must say itself is constant."""

from guard.proxy import status
from guard.proxy.fast import codec
from guard.proxy.fast.connection import CANCEL, ENHANCE_YOUR_CALM, REFUSED_STREAM, Headers
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
_MOST_CODE = 16
_STOPPING = frozenset({"Cancelling all calls", "Server shutdown"})
_LATE = frozenset({"Deadline Exceeded", ""})
"""What gRPC's servers say where nobody has answered: taken for this hop's, as from grpcio."""


def metadata(headers: Headers) -> Metadata:
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
    return (
        None
        if said.get("content-type", "application/grpc").startswith("application/grpc")
        else status.upstream_broken()
    )


def ended(headers: Headers, initial: Metadata, body: bytes | None) -> Reply:
    """What trailers say. body: the one message of a unary call, None where there is none."""
    code, details = -1, ""
    for key, value in headers:
        if key == "grpc-status":
            code = int(value) if value.isascii() and value.isdigit() and len(value) < 4 else Code.UNKNOWN  # noqa: PLR2004
        elif key == "grpc-message":
            details = codec.unquoted(value)
    try:
        trailing = metadata(headers)
    except ValueError:
        return status.upstream_broken()
    if code < 0 or (code == Code.OK and body is None):
        return status.upstream_broken()
    if code == Code.OK and body is not None:
        return Reply(body, initial=initial, trailing=trailing)
    if not (initial or trailing):
        if code == Code.UNAVAILABLE and details in _STOPPING:
            return status.upstream_away()
        if code == Code.DEADLINE_EXCEEDED and details in _LATE:
            return status.upstream_late()
    return Reply(code=min(code, _MOST_CODE + 1), details=details, initial=initial, trailing=trailing)


def was_reset(code: int) -> Reply:
    """How a call ends whose stream the server reset."""
    if code == REFUSED_STREAM:
        return status.upstream_away()
    known = _RESET.get(code)
    if known is None:
        return status.upstream_broken()
    return Reply(code=known, details=f"Received RST_STREAM with error code {code}")
