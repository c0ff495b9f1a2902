"""Which metadata travels on: all of it, but what belongs to one hop.

Not forwarded: HTTP/2 pseudo headers, te, content-type, user-agent, host, connection and grpc-* (each hop makes its
own), proofs of work, and, from the upstream, Guard's own trailers. `grpc-status-details-bin`, `grpc-trace-bin` and
`grpc-tags-bin` are the application's and travel. Values that gRPC could not send again (not printable ASCII) cannot
come from a client that keeps the protocol: such requests are refused, such answers lose them.
"""

from collections.abc import Iterable
from functools import lru_cache

from guard.proxy.seam import Metadata
from guard.proxy.status import DECISION_KEY, DETAILS_KEY, PROOF_KEY, PUZZLE_KEY
from guard.types import InvalidQuery

_HOP = frozenset(
    {"te", "content-type", "user-agent", "host", "connection", "keep-alive", "proxy-connection", "upgrade"}
)
_HOP |= {"transfer-encoding", "content-length", "trailer"}
_OWN = frozenset({DECISION_KEY, PUZZLE_KEY})
_KEPT = frozenset({DETAILS_KEY, "grpc-trace-bin", "grpc-tags-bin"})


@lru_cache(maxsize=512)
def _travels(key: str) -> bool:
    return key in _KEPT or not (key in _HOP or key.startswith((":", "grpc-")))


def _is_legal(key: str, value: str | bytes) -> bool:
    if key.endswith("-bin"):
        return True
    return isinstance(value, str) and value.isascii() and value.isprintable()


def to_upstream(metadata: Metadata) -> Metadata:
    """What of a caller's metadata goes to the upstream. Raises InvalidQuery."""
    kept = tuple([pair for pair in metadata if _travels(pair[0]) and pair[0] != PROOF_KEY])
    for key, value in kept:
        if not _is_legal(key, value):
            raise InvalidQuery("metadata values must be printable ASCII; others go under keys that end in -bin")
    return kept


def to_caller(metadata: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """What of the upstream's metadata goes to the caller."""
    return tuple((key, value) for key, value in metadata if _travels(key) and key not in _OWN and _is_legal(key, value))
