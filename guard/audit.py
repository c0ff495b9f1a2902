"""Audit: each event to one or several places, each with a queue and a thread of its own (`guard.delivering`).

An event is recorded for each decision that is not a plain allow, in shadow mode too (`would_be`), or that raises a
caller's level; for a sampled share of the others; and where an operator forgives a caller. `record` costs a queue's
put a place. What does not fit in a queue is dropped there, and counted.
"""

import contextlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from guard.broadcast import Broadcast, Subscription, TooManyReaders
from guard.chain import BEGIN, END, Chain, key_of
from guard.cloudevents import CloudEventsCarrier
from guard.delivering import BATCH, Carrier, Delivery
from guard.events import Event, Forgiven, Reason, Record, draw_of, event_of, render
from guard.metrics import Metrics
from guard.ocsf import ocsf_of
from guard.settings import Audit as AuditSettings
from guard.settings import AuditSink, ConfigError, Form, ToCloudEvents, ToFile, ToStdout
from guard.sinks import FileSink, Sink, StdoutSink, TurnSink

__all__ = [
    "Audit",
    "Broadcast",
    "Event",
    "Forgiven",
    "Reason",
    "Subscription",
    "TooManyReaders",
    "event_of",
    "render",
    "sampled",
]


def sampled(decision_id: str, share: float) -> bool:
    """Whether a decision is in the sample: its draw lies below the share."""
    return share >= 1.0 or (share > 0.0 and draw_of(decision_id) < share)


class LineCarrier:
    """Events as lines, to a sink; with a chain each has its place in it."""

    def __init__(self, sink: Sink, form: Form = "guard", chain: Chain | None = None) -> None:
        self._sink, self._form, self._chain = sink, _FORMS[form], chain
        self._begun = False

    def carry(self, items: list[Record]) -> int:
        """Raises OSError, or ValueError where standard output was closed."""
        lines = [self._form(event) for event in items]
        if self._chain is not None:
            begin = [] if self._begun else [self._chain.mark(BEGIN)]
            lines = [*begin, *map(self._chain.link, lines)]
            self._begun = True
        self._write(lines)
        return 0

    def _write(self, lines: list[str]) -> None:
        self._sink.write("".join(f"{line}\n" for line in lines).encode("ascii"))

    def hurry(self) -> None:
        """Nothing is tried twice."""

    def close(self) -> None:
        """Say that the chain ends, and release what is held."""
        if self._chain is not None and self._begun:
            with contextlib.suppress(OSError, ValueError):
                self._write([self._chain.mark(END)])
        self._sink.close()


_FORMS: dict[Form, Callable[[Record], str]] = {
    "guard": render,
    "ocsf": lambda event: json.dumps(ocsf_of(event), ensure_ascii=True, allow_nan=False, separators=(",", ":")),
}


class Audit:
    """Records events. turn: a file that processes share who write to the same place. Raises OSError, ConfigError."""

    def __init__(
        self, settings: AuditSettings, metrics: Metrics, turn: Path | None = None, service_name: str = "guard"
    ) -> None:
        self._share = settings.sample_allowed
        self._metrics = metrics
        self._closed = False
        carriers = _carriers(settings, turn, service_name)
        self._deliveries = [
            Delivery(
                f"audit events for {name}" if settings.sinks else "audit events",
                carrier,
                partial(self._count, name),
                thread=f"guard-audit-{name}" if settings.sinks else "guard-audit",
                max_queued=settings.max_queued,
                batch=batch,
            )
            for name, carrier, batch in carriers
        ]

    def record(self, event: Record) -> None:
        """Queue the event unless it is a plain allow outside the sample. Never blocks, never raises."""
        if isinstance(event, Event) and not self._wanted(event):
            return
        for delivery in self._deliveries:
            delivery.put(event)

    def _wanted(self, event: Event) -> bool:
        return not event.plain or event.rose or sampled(event.decision_id, self._share)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued, then stop; what a stuck sink does not take in time is dropped and counted."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout_s
        for delivery in self._deliveries:
            delivery.hurry()
        for delivery in self._deliveries:
            delivery.close(max(0.0, deadline - time.monotonic()))

    def _count(self, sink: str, outcome: str, events: int) -> None:
        if events:
            self._metrics.audit_events.labels(outcome).inc(events)
            self._metrics.audit_deliveries.labels(sink, outcome).inc(events)


def _carriers(settings: AuditSettings, turn: Path | None, service_name: str) -> list[tuple[str, Carrier[Record], int]]:
    """Every sink's name, carrier and most events at once. Raises OSError, ConfigError."""
    key = None if settings.chain_key_file is None else key_of(settings.chain_key_file, "audit.chain_key_file")
    if not settings.sinks:
        sink: Sink = StdoutSink() if settings.file is None else FileSink(settings.file)
        name = "stdout" if settings.file is None else "file"
        return [(name, _lines(sink, turn, key=key), BATCH)]
    made: list[tuple[str, Carrier[Record], int]] = []
    try:
        for place, one in enumerate(settings.sinks):
            own = None if turn is None else turn.with_name(f"{turn.name}-{one.name}")
            carrier = _named(place, one, own, service_name, key)
            made.append((one.name, carrier, getattr(one, "max_batch", BATCH)))
    except BaseException:
        for _, carrier, _ in made:
            carrier.close()
        raise
    return made


def _named(place: int, settings: AuditSink, turn: Path | None, service_name: str, key: bytes | None) -> Carrier[Record]:
    """Raises ConfigError with the sink's path."""
    try:
        return _carrier(settings, turn, service_name, key)
    except ConfigError as error:
        raise error.below(f"audit.sinks.{place}.to") from None
    except OSError as error:
        raise ConfigError(f"audit.sinks.{place}", f"cannot open {error.filename}: {error.strerror}") from None


def _carrier(settings: AuditSink, turn: Path | None, service_name: str, key: bytes | None) -> Carrier[Record]:
    if isinstance(settings, ToStdout):
        return _lines(StdoutSink(), turn, settings.form, key)
    if isinstance(settings, ToFile):
        return _lines(FileSink(settings.path, settings.max_bytes, settings.keep), turn, settings.form, key)
    if isinstance(settings, ToCloudEvents):
        return CloudEventsCarrier(settings)
    from guard.otlp import LogCarrier  # noqa: PLC0415 - an extra

    return LogCarrier(settings.to, service_name, settings.form)


def _lines(sink: Sink, turn: Path | None, form: Form = "guard", key: bytes | None = None) -> LineCarrier:
    """Raises OSError; the sink is closed then."""
    try:
        shared = sink if turn is None else TurnSink(sink, turn)
    except OSError:
        sink.close()
        raise
    return LineCarrier(shared, form, None if key is None else Chain(key))
