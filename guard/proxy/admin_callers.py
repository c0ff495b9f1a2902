"""Callers as Guard's own API tells of them: who is alarming, and why."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import replace

from guard import explaining
from guard.events import error_name
from guard.evidence import Evidence
from guard.explaining import Crossing, Explained, Explanation, Linked
from guard.journal import Journal
from guard.proxy.admin_messages import ACTIONS, finding_of
from guard.types import Level, Past, Store
from guard.wire.guard.v1 import guard_pb2 as pb

LIMIT = 100
DECISIONS = 20
LEVELS = {
    Level.CLEAR: pb.LEVEL_CLEAR,
    Level.WATCH: pb.LEVEL_WATCH,
    Level.SUSPECT: pb.LEVEL_SUSPECT,
    Level.HOSTILE: pb.LEVEL_HOSTILE,
}


async def listed(store: Store, models: Sequence[str], request: pb.ListCallersRequest) -> pb.ListCallersResponse:
    """The most alarming first. Raises OSError where the store is away."""
    least = next((level for level, named in LEVELS.items() if named == request.min_level), Level.CLEAR)
    known = [
        (model, caller, past)
        for model in models
        for caller, past in await store.callers(model)
        if past.alert.level >= least
    ]
    chosen = heapq.nlargest(request.limit or LIMIT, known, key=lambda one: _alarm(one[2]))
    return pb.ListCallersResponse(callers=[caller_of(*one) for one in chosen], left_out=len(known) - len(chosen))


def _alarm(past: Past) -> tuple[Level, float]:
    return past.alert.level, max((known.log_value for known in past.evidence.values()), default=0.0)


def caller_of(model: str, caller: str, past: Past) -> pb.Caller:
    """What the store knows of one."""
    message = pb.Caller(
        model=model,
        caller=caller,
        level=LEVELS[past.alert.level],
        evidence=[_evidence(monitor, past.evidence[monitor]) for monitor in sorted(past.evidence)],
        rows=past.rows,
    )
    message.since.FromMicroseconds(round(past.since * 1e6))
    if past.alert.level is not Level.CLEAR and past.alert.until > 0.0:
        message.until.FromMicroseconds(round(past.alert.until * 1e6))
    return message


def _evidence(monitor: str, evidence: Evidence) -> pb.Evidence:
    return pb.Evidence(monitor=monitor, log_value=evidence.log_value, count=evidence.count)


async def explained(
    journal: Journal, store: Store, models: Sequence[str], request: pb.ExplainRequest
) -> pb.ExplainResponse | None:
    """None where nothing is known of it. Raises OSError where the store is away."""
    found = explaining.from_journal(
        journal,
        decision_id=request.decision_id,
        caller=request.caller,
        model=request.model,
        limit=request.limit or DECISIONS,
    )
    caller = request.caller if found is None else found.caller
    pasts = [(model, await store.past(model, caller)) for model in models] if caller else []
    state = [caller_of(model, caller, past) for model, past in pasts if past is not None]
    if found is None and not state:
        return None
    return explanation(found or Explanation(caller, (), ()), state)


def explanation(found: Explanation, state: Iterable[pb.Caller]) -> pb.ExplainResponse:
    """The same words, and what the store knows of the caller, one a model."""
    return pb.ExplainResponse(
        caller=found.caller,
        decisions=[_decision(decision) for decision in found.decisions],
        crossings=[_crossing(crossing) for crossing in found.crossings],
        left_out=found.left_out,
        callers=state,
    )


def _decision(decision: Explained) -> pb.ExplainedDecision:
    message = pb.ExplainedDecision(
        decision_id=decision.decision_id,
        model=decision.model,
        caller=decision.caller,
        action=ACTIONS[decision.action],
        would_be=ACTIONS[decision.would_be],
        level=LEVELS[decision.level],
        former_level=LEVELS[decision.former],
        caller_rows=decision.caller_rows,
        monitor=decision.monitor,
        atlas_techniques=decision.techniques,
        findings=[finding_of(replace(f, error=error_name(f.error))) for f in decision.findings],
        links=[_link(link) for link in decision.links],
        clusters=[pb.Cluster(number=c.number, rows=c.rows, owners=c.owners) for c in decision.clusters],
    )
    message.time.FromDatetime(decision.time)
    return message


def _link(link: Linked) -> pb.Link:
    trace = link.trace
    message = pb.Link(row=trace.row, number=trace.number, duplicate=trace.duplicate, overlap=trace.overlap)
    if trace.neighbour >= 0:
        message.neighbour, message.owner = trace.neighbour, trace.owner
        message.distance, message.unexplained = trace.distance, trace.unexplained
        message.cluster, message.joined = trace.cluster, trace.joined
        message.decision_id, message.decision_row = link.decision_id, link.decision_row
    return message


def _crossing(crossing: Crossing) -> pb.Crossing:
    message = pb.Crossing(
        decision_id=crossing.decision_id,
        model=crossing.model,
        level=LEVELS[crossing.level],
        caller_rows=crossing.caller_rows,
        monitor=crossing.monitor,
        atlas_technique=crossing.technique,
    )
    message.time.FromDatetime(crossing.time)
    return message
