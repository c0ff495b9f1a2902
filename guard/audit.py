"""Audit: one JSON line an event, to standard output or a file.

An event is recorded for each decision that is not a plain allow, in shadow mode too (`would_be`), or that raises a
caller's level; for a sampled share of the others; and where an operator forgives a caller. `record` costs a queue's
put; a thread writes. What does not fit in the queue is dropped, counted.
"""

import contextlib
import logging
import queue
import threading
import time
from pathlib import Path

from guard.broadcast import Broadcast, Subscription, TooManyReaders
from guard.events import Event, Forgiven, Reason, Record, draw_of, event_of, render
from guard.metrics import Metrics
from guard.settings import Audit as AuditSettings
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

_BATCH = 256
_log = logging.getLogger(__name__)


def sampled(decision_id: str, share: float) -> bool:
    """Whether a decision is in the sample: its draw lies below the share."""
    return share >= 1.0 or (share > 0.0 and draw_of(decision_id) < share)


class Audit:
    """Records events. turn: a file that processes share who write to the same place. Raises OSError."""

    def __init__(self, settings: AuditSettings, metrics: Metrics, turn: Path | None = None) -> None:
        self._share = settings.sample_allowed
        self._metrics = metrics
        sink: Sink = StdoutSink() if settings.file is None else FileSink(settings.file)
        self._sink = sink if turn is None else TurnSink(sink, turn)
        self._queue: queue.Queue[Record | None] = queue.Queue(settings.max_queued)
        self._failing = False
        self._closed = False
        self._thread = threading.Thread(target=self._write_all, name="guard-audit", daemon=True)
        self._thread.start()

    def record(self, event: Record) -> None:
        """Queue the event unless it is a plain allow outside the sample. Never blocks, never raises."""
        if isinstance(event, Event) and not self._wanted(event):
            return
        if self._closed:
            self._count("dropped", 1)
            return
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._count("dropped", 1)

    def _wanted(self, event: Event) -> bool:
        return not event.plain or event.rose or sampled(event.decision_id, self._share)

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

    def _write(self, events: list[Record]) -> None:
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
