"""One concluded decision, counted, written down and told to whoever watches: the same for every way that it came."""

from typing import Protocol

from guard.audit import Broadcast, Event
from guard.metrics import Metrics


class Log(Protocol):
    """Where events go; `guard.audit.Audit` is one."""

    def record(self, event: Event) -> None:
        """Keep the event. Never blocks."""
        ...


class Runtime(Protocol):
    """What a record touches."""

    @property
    def metrics(self) -> Metrics:
        """What is counted."""
        ...

    @property
    def audit(self) -> Log:
        """Where decisions are written down."""
        ...

    @property
    def watchers(self) -> Broadcast[Event]:
        """Who watches."""
        ...


def record(runtime: Runtime, label: str, event: Event) -> None:
    """label: the model's name for metrics, from a closed list."""
    metrics = runtime.metrics
    metrics.decisions.labels(label, event.action, event.would_be).inc()
    for finding in event.findings:
        if finding.fired:
            metrics.findings.labels(label, finding.kind, finding.stage, finding.mode).inc()
        if finding.error is not None:
            metrics.stage_errors.labels(label, finding.stage).inc()
    runtime.audit.record(event)
    runtime.watchers.publish(event)
