"""Spans of calls, for OpenTelemetry: who is traced, what a span knows, and how it travels on (W3C Trace Context).

Source: https://www.w3.org/TR/trace-context/, OpenTelemetry's semantic conventions for RPC (`rpc.*`, `error.type`).
A span says what Guard did and how long it took: method, status, model, decision, stages. Never who called, nor what was
asked or answered. Where a call is not traced its `traceparent` travels on as it came; where it is, Guard's own span
stands in it, and `tracestate` travels on as it came.

No library is needed here: spans that have ended go to a `guard.delivering.Delivery` (`guard.otlp` writes them).
"""

import random
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Protocol

Value = str | bool | int | float | tuple[str, ...]
Metadata = tuple[tuple[str, str | bytes], ...]

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED, _RANDOM = 1, 2
_ERRORS_OF_SERVER = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
MAX_STATE = 512
"""Characters of a `tracestate` that spans carry."""


class Kind(IntEnum):
    """As OTLP numbers them."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


@dataclass(frozen=True, slots=True)
class Span:
    """One that has ended. Times: ns since 1970. error: what kind of error it was; empty: none."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    state: str
    flags: int
    name: str
    kind: Kind
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    error: str


class Spans(Protocol):
    """Where they go."""

    def put(self, span: Span, /) -> None:
        """Never blocks."""
        ...

    def close(self, timeout_s: float, /) -> None:
        """Send what is there, for so long."""
        ...


@dataclass(frozen=True, slots=True)
class Parent:
    """What a caller's `traceparent` and `tracestate` say."""

    trace_id: bytes
    span_id: bytes
    flags: int
    state: str

    @property
    def sampled(self) -> bool:
        """Whether the caller traces this call."""
        return bool(self.flags & _SAMPLED)


def parent_of(metadata: Metadata) -> Parent | None:
    """None where there is none, or none that counts."""
    found = [value for key, value in metadata if key == "traceparent"]
    match = _PARENT.fullmatch(found[0]) if len(found) == 1 and isinstance(found[0], str) else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    state = ",".join(value for key, value in metadata if key == "tracestate" and isinstance(value, str))
    return Parent(bytes.fromhex(trace_id), bytes.fromhex(span_id), int(flags, 16), state)


class Live:
    """A span under way. A `guard.timing.Listener`: each stage becomes a span below it."""

    __slots__ = ("_began", "_ended", "_kind", "_name", "_parent", "_spans", "_start_ns", "attributes", "span_id")

    def __init__(self, spans: Spans, name: str, kind: Kind, parent: Parent, attributes: dict[str, Value]) -> None:
        """parent: whose span_id is this one's parent; empty: none."""
        self._spans, self._name, self._kind, self._parent = spans, name, kind, parent
        self.attributes = attributes
        self.span_id = secrets.token_bytes(8)
        self._start_ns, self._began = time.time_ns(), time.perf_counter_ns()
        self._ended = False

    @property
    def trace_id(self) -> bytes:
        """Of all of the call's spans."""
        return self._parent.trace_id

    def child(self, name: str, kind: Kind = Kind.INTERNAL, **attributes: Value) -> "Live":
        """A span below this one, from now on. Attributes: with `__` for a dot."""
        above = Parent(self._parent.trace_id, self.span_id, self._parent.flags, self._parent.state)
        return Live(self._spans, name, kind, above, {key.replace("__", "."): v for key, v in attributes.items()})

    def end(self, error: str = "") -> None:
        """Now. Once: what ends again has ended."""
        if self._ended:
            return
        self._ended = True
        parent = self._parent
        self._spans.put(
            Span(
                trace_id=parent.trace_id,
                span_id=self.span_id,
                parent_id=parent.span_id,
                state=parent.state[:MAX_STATE],
                flags=parent.flags | _SAMPLED,
                name=self._name,
                kind=self._kind,
                start_ns=self._start_ns,
                end_ns=self._start_ns + time.perf_counter_ns() - self._began,
                attributes=dict(self.attributes),
                error=error,
            )
        )

    def end_rpc(self, code: str) -> None:
        """The end of a call, with the name of its status."""
        self.attributes["rpc.response.status_code"] = code
        is_error = code in _ERRORS_OF_SERVER if self._kind is Kind.SERVER else code != "OK"
        if is_error:
            self.attributes["error.type"] = code
        self.end(code if is_error else "")

    def call(self, method: str, server: str, purpose: str) -> "Live":
        """A call to an upstream. method: from a closed list, `_OTHER` elsewhere."""
        made = self.child(method, Kind.CLIENT, guard__purpose=purpose)
        made.attributes |= {**_rpc(method), **address_of(server)}
        return made

    @contextmanager
    def stage(self, kind: str, name: str) -> Iterator[None]:
        """A span for a stage's work."""
        span, error = self.child(f"{kind} {name}", guard__stage=name, guard__stage__kind=kind), ""
        try:
            yield
        except BaseException as failed:
            error = type(failed).__name__
            span.attributes["error.type"] = error
            raise
        finally:
            span.end(error)

    def onto(self, metadata: Metadata) -> Metadata:
        """What travels on, with this span as the parent."""
        flags = _SAMPLED | (self._parent.flags & _RANDOM)
        own = ("traceparent", f"00-{self._parent.trace_id.hex()}-{self.span_id.hex()}-{flags:02x}")
        dropped = {"traceparent"} if self._parent.state else {"traceparent", "tracestate"}  # of a parent that was none
        return (*(pair for pair in metadata if pair[0] not in dropped), own)


def _rpc(method: str) -> dict[str, Value]:
    return {"rpc.system.name": "grpc", "rpc.method": method}


def address_of(server: str) -> dict[str, Value]:
    """`server.address` and `server.port` of HOST:PORT or unix:/PATH; nothing of what is in this process."""
    if server.startswith("unix:"):
        return {"server.address": server.removeprefix("unix:")}
    host, _, port = server.rpartition(":")
    if not port.isdecimal():
        return {}
    return {"server.address": host.removeprefix("[").removesuffix("]"), "server.port": int(port)}


class Tracer:
    """Chooses the calls that are traced, and begins their spans. Called from one thread.

    max_per_s:  of calls and of streams' messages, in a second of the clock; what a caller asks for is bounded by it.
    on_limited: told of each that was one too many.
    """

    def __init__(
        self,
        spans: Spans,
        ratio: float,
        parents: Literal["follow", "join", "ignore"],
        *,
        max_per_s: int = 1000,
        on_limited: Callable[[], None] = lambda: None,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spans, self._ratio, self._parents, self._draw = spans, ratio, parents, draw
        self._max_per_s, self._on_limited, self._clock = max_per_s, on_limited, clock
        self._second, self._begun = 0, 0

    def begin(self, method: str, metadata: Metadata) -> Live | None:
        """The span of a call; None where it is not traced. method: from a closed list, `_OTHER` elsewhere."""
        parent = None if self._parents == "ignore" else parent_of(metadata)
        followed = parent if self._parents == "follow" else None
        if not (self._draw() < self._ratio if followed is None else followed.sampled) or not self._admits():
            return None
        if parent is None:
            parent = Parent(secrets.token_bytes(16), b"", _SAMPLED, "")
        return Live(self._spans, method, Kind.SERVER, parent, _rpc(method))

    def message(self, call: Live, number: int) -> Live | None:
        """The span of a message of a traced stream."""
        return call.child("message", guard__message=number) if self._admits() else None

    def _admits(self) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._begun = second, 0
        self._begun += 1
        if self._begun > self._max_per_s:
            self._on_limited()
            return False
        return True

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what has ended, for so long."""
        self._spans.close(timeout_s)
