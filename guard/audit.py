"""Audit: one JSON line an event, and the same events to whoever watches. Never a payload, never a credential.

An event is recorded for each decision that is not a plain allow, in shadow mode too (`would_be`), and for a sampled
share of the others. `record` costs a queue's put; a thread writes. What does not fit in the queue is dropped, counted.

Technique ids are MITRE ATLAS's (https://atlas.mitre.org). Log injection: control and non-ASCII characters are escaped
by JSON, what callers name is cut to a bound, and an error is the type's name without its text.
"""

import contextlib
import datetime as dt
import hashlib
import json
import logging
import math
import queue
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from guard.broadcast import Broadcast, Subscription, TooManyReaders
from guard.metrics import Metrics
from guard.settings import Audit as AuditSettings
from guard.sinks import FileSink, Sink, StdoutSink
from guard.types import Action, Conclusion, Finding, Mode

ATLAS_VERSION = "2026.10"
EVADE_MODEL = "AML.T0015"
BLACK_BOX_OPTIMIZATION = "AML.T0043.001"

__all__ = ["Audit", "Broadcast", "Event", "Reason", "Subscription", "TooManyReaders", "event_of", "render", "sampled"]

MAX_NAME = 256
MAX_ROWS = 64
_BATCH = 256
_UNSAFE = re.compile(r"[^A-Za-z0-9_. -]")

_log = logging.getLogger(__name__)


class Reason(StrEnum):
    """Where the suspicion came from."""

    INPUT = "input"
    CALLER = "caller"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Event:
    """One decision, as it is recorded and watched.

    enforced:        whether this caller and model enforce (canary, mode).
    reason:          where the suspicion came from; None for a plain allow.
    techniques:      MITRE ATLAS ids.
    payload_sha256:  of the message as it came in, hex; empty where there is none.
    """

    time_unix: float
    decision_id: str
    caller: str
    model: str
    version: str
    action: Action
    would_be: Action
    enforced: bool
    findings: tuple[Finding, ...] = ()
    reason: Reason | None = None
    techniques: tuple[str, ...] = ()
    payload_sha256: str = ""

    @property
    def plain(self) -> bool:
        """Whether nothing was done, and nothing would be."""
        return self.action is Action.ALLOW and self.would_be is Action.ALLOW


def event_of(conclusion: Conclusion, *, time_unix: float, model: str, version: str, payload_sha256: str) -> Event:
    """The event of one concluded decision."""
    query = conclusion.decision.query
    return Event(
        time_unix=time_unix,
        decision_id=query.decision_id,
        caller=query.caller,
        model=model,
        version=version,
        action=conclusion.action,
        would_be=conclusion.would_be,
        enforced=conclusion.decision.enforced,
        findings=conclusion.findings,
        reason=reason_of(conclusion.findings),
        techniques=techniques_of(conclusion.findings),
        payload_sha256=payload_sha256,
    )


def reason_of(findings: Iterable[Finding]) -> Reason | None:
    """What speaks against the query: enforcing stages before shadow ones, the caller before this input."""
    findings = tuple(findings)
    for modes in ({Mode.ENFORCE}, {Mode.SHADOW}):
        fired = {finding.kind for finding in findings if finding.mode in modes and finding.fired}
        if "monitor" in fired:
            return Reason.CALLER
        if fired:
            return Reason.INPUT
    return Reason.ERROR if any(finding.error is not None for finding in findings) else None


def techniques_of(findings: Iterable[Finding]) -> tuple[str, ...]:
    """MITRE ATLAS ids: a fired detector saw an evasion, a fired monitor the queries that optimise one.

    Values out of bounds (the engine's own finding `validation`) are a client's mistake until something says otherwise.
    """
    fired = {finding.kind for finding in findings if finding.fired and finding.stage != "validation"}
    return tuple(
        technique
        for kind, technique in (("detector", EVADE_MODEL), ("monitor", BLACK_BOX_OPTIMIZATION))
        if kind in fired
    )


def error_name(error: str | None) -> str | None:
    """What of an error's text may be recorded: up to the first colon, plain characters only."""
    return None if error is None else _UNSAFE.sub("", error.partition(":")[0])[:MAX_NAME] or "error"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _finding(finding: Finding) -> dict[str, Any]:
    rows = max(len(finding.scores), len(finding.p_values))
    document: dict[str, Any] = {
        "stage": finding.stage,
        "kind": finding.kind,
        "mode": finding.mode.value,
        "fired": finding.fired,
        "threshold": _number(finding.threshold),
        "rows": rows,
    }
    kept = list(range(rows))
    if rows > MAX_ROWS:  # the most suspicious ones
        p_values = (*finding.p_values, *(1.0,) * (rows - len(finding.p_values)))
        document["kept_rows"] = kept = sorted(sorted(kept, key=lambda row: p_values[row])[:MAX_ROWS])
    document["scores"] = [_number(finding.scores[row]) for row in kept if row < len(finding.scores)]
    document["p_values"] = [_number(finding.p_values[row]) for row in kept if row < len(finding.p_values)]
    document["error"] = error_name(finding.error)
    return document


def render(event: Event) -> str:
    """One line of ASCII JSON, without the line's end."""
    moment = dt.datetime.fromtimestamp(event.time_unix, dt.UTC)
    document = {
        "time": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "event": "guard.decision",
        "decision_id": event.decision_id,
        "caller": event.caller[:MAX_NAME],
        "model": event.model[:MAX_NAME],
        "version": event.version[:MAX_NAME],
        "action": event.action.value,
        "would_be": event.would_be.value,
        "enforced": event.enforced,
        "reason": event.reason.value if event.reason else None,
        "atlas_techniques": list(event.techniques),
        "atlas_version": ATLAS_VERSION,
        "payload_sha256": event.payload_sha256,
        "findings": [_finding(finding) for finding in event.findings],
    }
    return json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def sampled(decision_id: str, share: float) -> bool:
    """The same answer for the same decision everywhere."""
    draw = int.from_bytes(hashlib.blake2b(decision_id.encode(), digest_size=8).digest(), "big")
    return draw < share * 2**64


class Audit:
    """Records events. Raises OSError where the file cannot be opened."""

    def __init__(self, settings: AuditSettings, metrics: Metrics) -> None:
        self._share = settings.sample_allowed
        self._metrics = metrics
        self._sink: Sink = StdoutSink() if settings.file is None else FileSink(settings.file)
        self._queue: queue.Queue[Event | None] = queue.Queue(settings.max_queued)
        self._failing = False
        self._closed = False
        self._thread = threading.Thread(target=self._write_all, name="guard-audit", daemon=True)
        self._thread.start()

    def record(self, event: Event) -> None:
        """Queue the event unless it is a plain allow outside the sample. Never blocks, never raises."""
        if event.plain and not sampled(event.decision_id, self._share):
            return
        if self._closed:
            self._count("dropped", 1)
            return
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._count("dropped", 1)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued, then stop; what a stuck sink does not take in time is dropped and counted."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(queue.Full):  # the thread is stuck: the join gives up at once
            self._queue.put(None, timeout=timeout_s)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._count("dropped", sum(event is not None for event in tuple(self._queue.queue)))
        else:
            self._sink.close()

    def _count(self, outcome: str, events: int) -> None:
        if events:
            self._metrics.audit_events.labels(outcome).inc(events)

    def _write_all(self) -> None:
        open_for_more = True
        while open_for_more:
            batch = [self._queue.get()]
            while len(batch) < _BATCH and batch[-1] is not None:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            open_for_more = batch[-1] is not None
            self._write([event for event in batch if event is not None])

    def _write(self, events: list[Event]) -> None:
        if not events:
            return
        try:
            self._sink.write("".join(render(event) + "\n" for event in events).encode("ascii"))
        except (OSError, ValueError) as error:  # ValueError: standard output was closed
            self._count("failed", len(events))
            if not self._failing:
                _log.error("audit events cannot be written: %s", type(error).__name__)
            self._failing = True
        else:
            self._count("written", len(events))
            self._failing = False
