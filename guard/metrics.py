"""Prometheus metrics: the conventional grpc_server_* and Guard's own guard_*, in base units, never a caller as a label.

Label values come from the settings or from closed lists: whoever counts maps what a client can choose (an unlisted
model, an unknown method) to `unknown` first, so that no client can grow the number of series.

One process: a registry of its own. Several: each calls `join` first (or PROMETHEUS_MULTIPROC_DIR names an empty
directory before the start); every process writes there and `exposition()` adds them up. Custom collectors do not work
in that mode, so there are none.
(prometheus_client leaves some functions untyped: hence the few `type: ignore`.)
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    exposition,
    multiprocess,
    values,
)
from prometheus_client.metrics import MetricWrapperBase

_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_CALL = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SHARE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_RPC = ("grpc_type", "grpc_service", "grpc_method")


class _Known(MetricWrapperBase):
    """Finds the child of labels that were seen before in one look: the library makes strings of them, under a lock."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._known: dict[tuple[object, ...], Any] = {}

    def labels(self, *values: object, **named: object) -> Any:
        """The series with these labels."""
        if named:
            return super().labels(*values, **named)
        found = self._known.get(values)
        if found is None:
            found = self._known[values] = super().labels(*values)
        return found

    def remove(self, *values: object) -> None:
        """Take a series out. Raises KeyError where there is none."""
        self._known.pop(values, None)
        super().remove(*values)


class _Counter(_Known, Counter):
    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Add a number that is not negative; the library asks on each call what was settled when it was made."""
        del exemplar
        self._value.inc(amount)


class _Gauge(_Known, Gauge):
    pass


class _Histogram(_Known, Histogram):
    pass


def _multiprocess() -> bool:
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


def join(directory: Path, name: str) -> None:
    """Count together with the processes that join the same directory; before any `Metrics` is made.

    A process that takes the name of one that ended goes on with its counts. name: letters and digits.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    values.ValueClass = values.MultiProcessValue(lambda: name)  # type: ignore[no-untyped-call]


def bury(directory: Path, name: str) -> None:
    """Take the gauges of a process that ended out of the sum. Its counters stay."""
    multiprocess.mark_process_dead(name, str(directory))  # type: ignore[no-untyped-call]


class Metrics:
    """Every metric as an attribute. Make one a process; tests may make several, each has its own registry."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        self._info: tuple[str, str] | None = None
        if not _multiprocess():
            ProcessCollector(registry=registry)
            PlatformCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return _Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return _Histogram(name, text, labels, registry=registry, buckets=buckets)

        self.started = counter("grpc_server_started_total", "Calls begun.", *_RPC)
        self.handled = counter("grpc_server_handled_total", "Calls completed, whatever the status.", *_RPC, "grpc_code")
        self.handling_seconds = histogram(
            "grpc_server_handling_seconds", "How long calls took, the upstream included.", _CALL, *_RPC
        )
        self.decisions = counter(
            "guard_decisions_total",
            "Decisions on inspected queries; would_be: had every stage enforced for everyone.",
            "model",
            "action",
            "would_be",
        )
        self.findings = counter("guard_findings_total", "Findings that fired.", "model", "kind", "stage", "mode")
        self.stage_errors = counter("guard_stage_errors_total", "Stages that failed on a query.", "model", "stage")
        self.inspection_seconds = histogram(
            "guard_inspection_seconds", "What inspecting a query took, upstream calls not counted.", _FAST, "model"
        )
        self.added_seconds = histogram(
            "guard_added_seconds",
            "What Guard added to unary inference calls that it forwarded, once read: without the upstream's own call "
            "and without what the policy holds back.",
            _FAST,
            "model",
        )
        self.phase_seconds = histogram(
            "guard_phase_seconds",
            "How long inspected queries took in each phase of the way: sketch, store, decide, conclude.",
            _FAST,
            "model",
            "phase",
        )
        self.internal_errors = counter(
            "guard_internal_errors_total", "Calls that ended with INTERNAL because Guard itself failed."
        )
        self.alarmed = counter(
            "guard_alarmed_queries_total",
            "Queries of callers above level clear, by the level, in any mode.",
            "model",
            "level",
        )
        self.caller_levels = counter(
            "guard_caller_level_changes_total", "Changes of callers' levels, by what it became.", "model", "level"
        )
        self.extraction_estimate = histogram(
            "guard_extraction_estimate_ratio",
            "How often a copy that its caller could make by now would agree with the model, by query.",
            _SHARE,
            "model",
        )
        self.invalid = counter("guard_invalid_queries_total", "Queries refused as malformed.", "model")
        self.uninspected = counter("guard_uninspected_total", "Queries forwarded uninspected.", "model", "reason")
        self.denied_methods = counter("guard_denied_methods_total", "Calls of methods that are denied.", "grpc_method")
        self.upstream_calls = counter(
            "guard_upstream_calls_total",
            "Calls to upstreams, streams once each, by the status with which the upstream ended them: UNAVAILABLE "
            "where it is away, CANCELLED where somebody else ended them.",
            "model",
            "purpose",
            "grpc_code",
        )
        self.upstream_seconds = histogram(
            "guard_upstream_seconds", "How long unary calls to upstreams took.", _CALL, "model", "purpose"
        )
        self.network_rows = histogram(
            "guard_network_batch_rows", "Rows that a batching network ran at once.", _ROWS, "network"
        )
        self.network_wait_seconds = histogram(
            "guard_network_wait_seconds", "How long calls waited until their batch ran.", _FAST, "network"
        )
        self.network_alone = counter(
            "guard_network_unbatched_total",
            "Calls that a batching network ran by themselves, by why; mixes_rows: networks that never batch.",
            "network",
            "reason",
        )
        self.rows = counter("guard_rows_total", "Rows of inspected queries that the model was asked about.", "model")
        self.extra_rows = counter(
            "guard_extra_rows_total",
            "Rows that Guard asked the model about beyond the callers' own: behind them in one call, or beside.",
            "model",
            "how",
        )
        self.config_reloads = counter("guard_config_reloads_total", "Reloads of the settings.", "result")
        self.rejected = counter(
            "guard_rejected_calls_total",
            "Calls turned away unread: unauthenticated, metadata, overloaded, queued_too_long; and queries, each "
            "message of a stream by itself, turned away once read: unlisted_model, profile_mismatch, "
            "inspection_timeout, inspection_error (these two with the answer at hand, too, where it is held). Not what "
            "the policy, budgets or the method table refuse.",
            "reason",
        )
        self.stream_messages = counter(
            "guard_stream_messages_total", "Messages of callers' streams that came to be inspected."
        )
        self.rationed = counter(
            "guard_rationed_calls_total",
            "Calls that ran out of what their caller may have, and answers that were not held back for want of room.",
            "model",
            "what",
            "outcome",
        )
        self.unrationed = counter(
            "guard_unrationed_calls_total", "Calls whose caller's budget or proof could not be looked up.", "model"
        )
        self.challenges = counter(
            "guard_challenges_total",
            "Calls that were to bring proof of work: solved, or why not.",
            "model",
            "outcome",
        )
        self.identities = counter(
            "guard_identities_total", "Callers by the source that knew them, and credentials that failed.", "source"
        )
        self.audit_events = counter("guard_audit_events_total", "Audit events by what became of them.", "outcome")
        self.audit_deliveries = counter(
            "guard_audit_deliveries_total", "The same by the sink that they went to.", "sink", "outcome"
        )
        self.untraced = counter(
            "guard_untraced_calls_total", "Calls, and messages of streams, that were one too many to be traced."
        )
        self.spans = counter("guard_spans_total", "Spans of traced calls by what became of them.", "outcome")
        self.quarantined = counter(
            "guard_quarantined_rows_total",
            "Flagged rows by what became of their digests, and of themselves.",
            "what",
            "outcome",
        )
        self.quarantine_failures = counter(
            "guard_quarantine_failures_total", "Writes to the quarantine that failed, tried again or not."
        )
        self.store_evicted = counter("guard_store_evicted_total", "What the store forgot to stay in bounds.", "what")
        self.worker_restarts = counter(
            "guard_worker_restarts_total", "Worker processes that ended by themselves and were started anew.", "worker"
        )
        self.watch_lost = counter("guard_watch_lost_total", "Decisions that slow readers of Watch have lost.")
        self.admin_refused = counter(
            "guard_admin_refused_total", "Requests to operators' listeners without the right token, by why.", "reason"
        )
        self._gauges(registry)
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A series that begins with its first loss has no increase."""
        for lost in ("dropped", "failed"):
            self.audit_events.labels(lost)
        for result in ("done", "refused"):
            self.config_reloads.labels(result)

    def _gauges(self, registry: CollectorRegistry) -> None:
        self.profile_mismatch = _Gauge(
            "guard_profile_mismatch",
            "1 where a profile was not made for what is served, so that the model is not defended.",
            ("model",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.drift_distance = _Gauge(
            "guard_drift_distance",
            "The most by which presumably clean inputs have smaller p-values than those of the fit; 0 to 1.",
            ("model", "stage"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.drift_alarm = _Gauge(
            "guard_drift_alarm",
            "1 where inputs have become more suspicious to a detector than those of the fit, beyond chance.",
            ("model", "stage"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.model_ready = _Gauge(
            "guard_model_ready",
            "1 where a model takes calls.",
            ("model",),
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.workers = _Gauge(
            "guard_workers",
            "Worker processes that run, and that take calls; where there are several.",
            ("state",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.in_flight = _Gauge(
            "guard_calls_in_flight", "Calls being handled.", registry=registry, multiprocess_mode="livesum"
        )
        self.queued = _Gauge(
            "guard_calls_queued", "Calls waiting for their turn.", registry=registry, multiprocess_mode="livesum"
        )
        self.store_entries = _Gauge(
            "guard_store_entries", "Rows that the store remembers.", registry=registry, multiprocess_mode="livesum"
        )
        self.store_away = _Gauge(
            "guard_store_away",
            "1 while the shared store does not answer.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.info = _Gauge(
            "guard_info",
            "1 for the version and the settings in force.",
            ("version", "config_digest"),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.plane = _Gauge(
            "guard_plane",
            "1 for what speaks HTTP/2: grpcio or fast.",
            ("plane",),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.provider = _Gauge(
            "guard_provider",
            "1 for the onnxruntime provider that really runs an embedded model.",
            ("model", "provider"),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )

    def show_info(self, version: str, config_digest: str) -> None:
        """Set `info` to the settings now in force; the former ones go (several processes: to 0)."""
        if self._info is not None and _multiprocess():
            self.info.labels(*self._info).set(0)
        elif self._info is not None:
            self.info.remove(*self._info)
        self._info = (version, config_digest)
        self.info.labels(*self._info).set(1)

    def forget_model(self, name: str, stages: Iterable[str]) -> None:
        """Take its gauges out of the exposition (several processes: they stay, and alarm nobody)."""
        gone: list[tuple[Any, float, tuple[str, ...]]] = [
            (self.model_ready, 1, (name,)),
            (self.profile_mismatch, 0, (name,)),
        ]
        gone += [(gauge, 0, (name, stage)) for stage in stages for gauge in (self.drift_alarm, self.drift_distance)]
        for gauge, calm, labels in gone:
            if _multiprocess():
                gauge.labels(*labels).set(calm)
            else:
                with contextlib.suppress(KeyError):
                    gauge.remove(*labels)

    def exposition(self) -> tuple[bytes, str]:
        """The text that Prometheus scrapes, and its content type; over all processes in multiprocess mode."""
        return exposition.generate_latest(self._whole()), exposition.CONTENT_TYPE_PLAIN_0_0_4

    def families(self) -> Iterable[Metric]:
        """The same as objects."""
        return self._whole().collect()

    def _whole(self) -> CollectorRegistry:
        if not _multiprocess():
            return self._registry
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry

    def close(self) -> None:
        """In multiprocess mode: take this process's gauges out of the sum. Counters stay."""
        if _multiprocess():
            multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]
