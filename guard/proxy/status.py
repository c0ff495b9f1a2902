"""gRPC status codes: the one file that names them, and makes the replies that are Guard's own.

Every refusal looks the same to its caller, whatever stage or score is behind it. Details are google.rpc.ErrorInfo in
the domain `guard`: REFUSED, BUDGET, PROOF_OF_WORK_REQUIRED, INVALID, METHOD_DENIED, MODEL_UNKNOWN, UNAUTHENTICATED,
OVERLOADED, UPSTREAM.
"""

from collections.abc import Mapping
from enum import IntEnum
from functools import cache
from types import MappingProxyType

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from guard.proxy.seam import Metadata, Reply
from guard.puzzles import PARTS, Puzzle


class Code(IntEnum):
    """The canonical codes, as on the wire."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_NAMES: Mapping[int, str] = MappingProxyType({int(code): code.name for code in Code})
DETAILS_KEY = "grpc-status-details-bin"
DECISION_KEY = "guard-decision-id"
PROOF_KEY = "guard-proof"
PUZZLE_KEY = "guard-puzzle"
DOMAIN = "guard"
REFUSAL_TEXT = "the request was refused"


def name_of(code: int) -> str:
    """The code's name for metrics: `OK`, `NOT_FOUND`; `UNKNOWN` for a number that is none."""
    return _NAMES.get(code, "UNKNOWN")


def _details(code: Code, text: str, reason: str, retry_s: int | None, metadata: Mapping[str, str]) -> bytes:
    packed = [any_pb2.Any()]
    packed[0].Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    if retry_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = retry_s
        packed.append(any_pb2.Any())
        packed[1].Pack(retry)
    encoded: bytes = status_pb2.Status(code=code, message=text, details=packed).SerializeToString()
    return encoded


def _reply(
    code: Code, text: str, reason: str, retry_s: int | None = None, metadata: Mapping[str, str] = MappingProxyType({})
) -> Reply:
    return Reply(code=code, details=text, trailing=((DETAILS_KEY, _details(code, text, reason, retry_s, metadata)),))


_constant = cache(_reply)


def refused() -> Reply:
    """A query that policy or a failed stage ended."""
    return _constant(Code.PERMISSION_DENIED, REFUSAL_TEXT, "REFUSED")


def invalid(text: str) -> Reply:
    """Bad input; the text is an InvalidQuery's, or constant."""
    return _reply(Code.INVALID_ARGUMENT, text, "INVALID")


def method_denied() -> Reply:
    """A method that is not let through."""
    return _constant(Code.PERMISSION_DENIED, "the method is not allowed", "METHOD_DENIED")


def model_unknown() -> Reply:
    """A model that is not under `models`, where those are refused."""
    return _constant(Code.NOT_FOUND, "there is no such model", "MODEL_UNKNOWN")


def service_unknown() -> Reply:
    """A health check of a service that Guard does not know."""
    return _constant(Code.NOT_FOUND, "there is no such service", "SERVICE_UNKNOWN")


def model_unavailable() -> Reply:
    """A model whose profile does not match what is served, where that refuses calls."""
    return _constant(Code.UNAVAILABLE, "the model is not available", "MODEL_UNAVAILABLE")


def unauthenticated() -> Reply:
    """A caller without an identity, where one is required."""
    return _constant(Code.UNAUTHENTICATED, "the caller is not known", "UNAUTHENTICATED")


def spent(retry_s: int | None) -> Reply:
    """The caller has had what he may have for now; retry_s: when to come back, None where it is no use."""
    return _reply(Code.RESOURCE_EXHAUSTED, "the caller's budget is spent", "BUDGET", retry_s)


def unproved(puzzle: Puzzle) -> Reply:
    """The caller is to bring proof of work. FAILED_PRECONDITION: it is of no use to try again without.

    The puzzle is in the details, and, for clients that would rather not read these, in a trailer of its own.
    """
    said = {
        "puzzle": puzzle.text,
        "algorithm": "sha256",
        "parts": str(PARTS),
        "rows": str(puzzle.rows),
        "target": f"{puzzle.target:016x}",
        "hashes": f"{puzzle.hashes:.0f}",
        "ttl_s": str(puzzle.ttl_s),
    }
    text = "the call needs proof of work"
    reply = _reply(Code.FAILED_PRECONDITION, text, "PROOF_OF_WORK_REQUIRED", metadata=said)
    return with_trailer(reply, ((PUZZLE_KEY, puzzle.text),))


def overloaded() -> Reply:
    """Every place is taken, those to wait in, too."""
    return _constant(Code.RESOURCE_EXHAUSTED, "too many calls", "OVERLOADED", 1)


def late() -> Reply:
    """The deadline passed in Guard's hands."""
    return _constant(Code.DEADLINE_EXCEEDED, "the deadline has passed", "DEADLINE")


def upstream_away() -> Reply:
    """No connection to the upstream, or it broke."""
    return _constant(Code.UNAVAILABLE, "upstream unavailable", "UPSTREAM")


def upstream_late() -> Reply:
    """The upstream did not answer in time."""
    return _constant(Code.DEADLINE_EXCEEDED, "the upstream did not answer in time", "UPSTREAM")


def upstream_too_large() -> Reply:
    """The upstream's answer is larger than `max_response_bytes`."""
    return _constant(Code.RESOURCE_EXHAUSTED, "the upstream's answer is too large", "UPSTREAM")


def upstream_broken() -> Reply:
    """The upstream's answer is no message of the protocol."""
    return _constant(Code.INTERNAL, "the upstream's answer cannot be read", "UPSTREAM")


def upstream_unknown_form() -> Reply:
    """The upstream's answer must be protected, and cannot be read."""
    return _constant(Code.INTERNAL, "upstream answered in an unknown form", "UPSTREAM")


def internal() -> Reply:
    """Guard itself failed; the log has it."""
    return _constant(Code.INTERNAL, "internal error", "INTERNAL")


def incomplete() -> Reply:
    """A unary call without a message."""
    return _constant(Code.INVALID_ARGUMENT, "the call carries no message", "INVALID")


def with_trailer(reply: Reply, extra: Metadata) -> Reply:
    """The reply with more trailing metadata."""
    return Reply(reply.body, reply.code, reply.details, reply.initial, (*reply.trailing, *extra))
