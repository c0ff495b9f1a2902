"""The headers of a call, as a server reads them: what must be there, what is gRPC's, what is the caller's metadata."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from guard.proxy.fast import codec
from guard.proxy.fast.framing import ACCEPTED, readable
from guard.proxy.fast.library import Pairs
from guard.proxy.seam import Metadata, Reply
from guard.proxy.status import Code
from guard.settings import Compression

CONTENT_TYPE = ("content-type", "application/grpc")
OPENING: Pairs = ((":status", "200"), CONTENT_TYPE, ("grpc-accept-encoding", ACCEPTED))
OPENINGS: dict[str | None, Pairs] = {
    None: OPENING,
    "gzip": (*OPENING, ("grpc-encoding", "gzip")),
    "deflate": (*OPENING, ("grpc-encoding", "deflate")),
}
WELL: Pairs = (("grpc-status", "0"),)
_OURS = frozenset(
    {
        *(":method", ":path", ":scheme", ":authority", "te", "content-type", "grpc-timeout", "grpc-encoding"),
        *("grpc-accept-encoding", "grpc-internal-encoding-request"),
    }
)


MAX_PAIRS = 1024
"""Of metadata, where fields of several binary values make more pairs than there are fields."""


class Refused(Exception):
    """A call that ends with its head. headers: the whole answer."""

    def __init__(self, headers: Pairs) -> None:
        super().__init__()
        self.headers = headers


def only_trailers(reply: Reply) -> Pairs:
    """An answer that is nothing but a status."""
    return (*OPENING, *closing(reply))


def closing(reply: Reply) -> Pairs:
    """How an answer ends."""
    if reply.code == Code.OK:
        return (*WELL, *codec.encoded(reply.trailing)) if reply.trailing else WELL
    said = (("grpc-message", codec.quoted(reply.details)),) if reply.details else ()
    return (("grpc-status", str(int(reply.code))), *said, *codec.encoded(reply.trailing))


def _http(number: int) -> Refused:
    return Refused(((":status", str(number)),))


def refused(code: Code, text: str) -> Refused:
    """With a status of gRPC's."""
    return Refused(only_trailers(Reply(code=code, details=text)))


@dataclass(frozen=True, slots=True)
class Head:
    """What a call says before its messages."""

    path: str
    metadata: Metadata
    timeout_s: float | None
    encoding: str
    accepts: str


def read(headers: Iterable[tuple[str, str]]) -> Head:
    """Raises Refused."""
    ours: dict[str, str] = {}
    theirs: list[tuple[str, str | bytes]] = []
    try:
        for pair in headers:
            key = pair[0]
            if key in _OURS:
                ours[key] = pair[1]
            elif key[-4:] == "-bin":
                theirs.extend((key, value) for value in codec.binary(pair[1]))
                _check_count(theirs)
            else:
                theirs.append(pair)
        said = ours.get("grpc-timeout")
        timeout_s = None if said is None else codec.timeout_s(said)
    except ValueError as error:
        raise refused(Code.INTERNAL, str(error)) from None
    _check(ours)
    encoding = ours.get("grpc-encoding", "identity")
    if not readable(encoding):
        raise refused(Code.UNIMPLEMENTED, "the message encoding is not supported")
    return Head(ours[":path"], tuple(theirs), timeout_s, encoding, ours.get("grpc-accept-encoding", ""))


def _check_count(metadata: list[tuple[str, str | bytes]]) -> None:
    if len(metadata) > MAX_PAIRS:
        raise ValueError("too much metadata")


def _check(ours: dict[str, str]) -> None:
    kind = ours.get("content-type", "")
    if not (kind == "application/grpc" or kind.startswith(("application/grpc+", "application/grpc;"))):
        raise _http(415)
    if ours.get(":method") != "POST":
        raise _http(405)
    if ours.get("te") != "trailers" or ":path" not in ours:
        raise _http(400)


def answers_in(wanted: Compression, accepts: str) -> Literal["gzip", "deflate"] | None:
    """How an answer is compressed for a caller that accepts these: as grpcio's levels choose; None: it is not."""
    if wanted == "none" or not accepts:
        return None
    known = {one.strip() for one in accepts.split(",")}
    both: tuple[Literal["gzip", "deflate"], ...] = ("gzip", "deflate")
    taken = [one for one in both if one in known]
    return None if not taken else taken[0] if wanted == "gzip" else taken[-1]
