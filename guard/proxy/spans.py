"""What the proxy tells a traced call's span: what was decided.

Names of stages, models and rules only, from closed lists: nothing that a caller chooses, nothing of who calls.
"""

from collections.abc import Iterator

from guard.events import Event
from guard.techniques import COHORT
from guard.tracing import Value
from guard.types import Action, Decision


def of_decision(label: str, decision: Decision) -> dict[str, Value]:
    """Before the answer. label: the model's name for metrics."""
    return _decided(label, decision.query.decision_id, decision.action, decision.would_be)


def of_pass(label: str, decision_id: str) -> dict[str, Value]:
    """Where nobody has anything to say."""
    return _decided(label, decision_id, Action.ALLOW, Action.ALLOW)


def _decided(label: str, decision_id: str, action: Action, would_be: Action) -> dict[str, Value]:
    return {
        "guard.model": label,
        "guard.decision.id": decision_id,
        "guard.action": action.value,
        "guard.would_be": would_be.value,
    }


def of_event(label: str, event: Event) -> dict[str, Value]:
    """Of a concluded decision."""
    fired = (finding.stage for finding in event.findings if finding.fired)
    failed = (finding.stage for finding in event.findings if finding.error is not None)
    return {
        **_decided(label, event.decision_id, event.action, event.would_be),
        "guard.enforced": event.enforced,
        "guard.rows": event.rows,
        "guard.level": event.level.name.lower(),
        "guard.fired": _named(fired),
        "guard.failed": _named(failed),
        "guard.techniques": event.techniques,
        **({} if event.reason is None else {"guard.reason": event.reason.value}),
    }


def _named(stages: Iterator[str]) -> tuple[str, ...]:
    """A cohort's name is what its clients call it."""
    return tuple(dict.fromkeys(COHORT.strip() if stage.startswith(COHORT) else stage for stage in stages))
