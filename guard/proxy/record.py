"""One concluded decision, counted, written down and told to whoever watches: the same for every way that it came."""

from typing import Protocol

from guard.audit import Broadcast, Event, sampled
from guard.events import Record, former_level, reason_of
from guard.journal import Journal
from guard.lately import Lately
from guard.metrics import Metrics
from guard.settings import Audit
from guard.techniques import COHORT
from guard.types import NO_UPDATE, Action, Conclusion, Decision, Level

EXTRACTION_BUDGET = "extraction_budget"


class Log(Protocol):
    """Where events go; `guard.audit.Audit` is one."""

    def record(self, event: Record) -> None:
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

    @property
    def journal(self) -> Journal:
        """What can be explained."""
        ...

    @property
    def lately(self) -> Lately:
        """What operators who look on are shown."""
        ...


def record(runtime: Runtime, label: str, event: Event) -> None:
    """label: the model's name for metrics, from a closed list."""
    metrics = runtime.metrics
    metrics.decisions.labels(label, event.action, event.would_be).inc()
    for finding in event.findings:
        if finding.fired:
            stage = COHORT.strip() if finding.stage.startswith(COHORT) else finding.stage  # whose it is, clients choose
            metrics.findings.labels(label, finding.kind, stage, finding.mode).inc()
        if finding.error is not None:
            metrics.stage_errors.labels(label, finding.stage).inc()
        if finding.stage == EXTRACTION_BUDGET and finding.scores:
            metrics.extraction_estimate.labels(label).observe(max(finding.scores))
    if event.level > Level.CLEAR:
        metrics.alarmed.labels(label, event.level.name.lower()).inc()
    if event.level != event.former:
        metrics.caller_levels.labels(label, event.level.name.lower()).inc()
    runtime.audit.record(event)
    runtime.journal.record(event)
    runtime.lately.record(event)
    runtime.watchers.publish(event)


def is_recorded(settings: Audit, decision: Decision) -> bool:
    """Whether an event may be written of the decision, as far as can be said before the answer."""
    plain = {decision.would_be, decision.action} <= {Action.ALLOW, Action.CHALLENGE}  # of all, where nothing is found
    plain = plain and reason_of(decision.findings) is None and decision.level <= former_level(decision)
    return not plain or bool(decision.views) or sampled(decision.query.decision_id, settings.sample_allowed)


def as_decided(decision: Decision) -> Conclusion:
    """The conclusion where the answer adds nothing."""
    return Conclusion(decision, decision.action, decision.would_be, decision.findings, update=NO_UPDATE)
