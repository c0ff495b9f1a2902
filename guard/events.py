"""What is recorded of a decision: bounded in size, safe to log, never a payload, never a credential.

Log injection: control and non-ASCII characters are escaped
by JSON, what callers name is cut to a bound, and an error is the type's name without its text.
"""

import datetime as dt
import hashlib
import heapq
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from guard.techniques import ATLAS_VERSION, techniques_of
from guard.traces import Cluster, Credit, Trace, clusters_of, credits_of, traces_of
from guard.types import Action, Conclusion, Decision, Finding, Flagged, Level, Mode, speaking

DECISION = "guard.decision"
FORGIVEN = "guard.forgiven"
EXEMPT = "guard.exempt"

MAX_NAME = 256
MAX_ROWS = 64
_UNSAFE = re.compile(r"[^A-Za-z0-9_. -]")


class Reason(StrEnum):
    """Where the suspicion came from."""

    INPUT = "input"
    CALLER = "caller"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Event:
    """One decision, as it is recorded and watched. Its size is bounded, however many rows the query had.

    findings:        of `kept_rows` only, where these are not all.
    rows, kept_rows: how many the query had, and the most suspicious of them; empty: all.
    enforced:        whether this caller and model enforce (canary, mode).
    reason:          where the suspicion came from; None for a plain allow.
    techniques:      MITRE ATLAS ids.
    payload_sha256:  of the message as it came in, hex; empty where there is none.
    level, former:   the caller's, and what it was before this query's evidence.
    caller_rows:     how many rows of the caller had been answered before.
    traces:          what came before each row, of many rows the nearest. clusters: those that the rows are near to.
    credits:         the p-values that became evidence.
    flagged:         the rows that were flagged, of `kept_rows` only where these are not all.
    trace_id, span_id: of the call's span, hex; empty where the call is not traced.
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
    rows: int = 0
    kept_rows: tuple[int, ...] = ()
    level: Level = Level.CLEAR
    former: Level = Level.CLEAR
    caller_rows: int = 0
    traces: tuple[Trace, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    credits: tuple[Credit, ...] = ()
    flagged: tuple[Flagged, ...] = ()
    trace_id: str = ""
    span_id: str = ""

    @property
    def rose(self) -> bool:
        """Whether this query raised the caller's level."""
        return self.level > self.former

    @property
    def plain(self) -> bool:
        """Whether nothing was done, and nothing would be but what is asked of everybody."""
        asked = self.would_be is Action.CHALLENGE and self.reason is None
        return self.action is Action.ALLOW and (asked or self.would_be is Action.ALLOW)


@dataclass(frozen=True, slots=True)
class Forgiven:
    """An operator let a caller begin anew: his evidence and his alert are gone."""

    time_unix: float
    caller: str
    model: str


@dataclass(frozen=True, slots=True)
class Exempted:
    """From a start or a reload on, nothing is enforced for a caller, until a time. Who answers for it is named."""

    time_unix: float
    caller: str
    model: str
    until_unix: float
    reason: str
    approved_by: tuple[str, ...]


Record = Event | Forgiven | Exempted


def event_of(
    conclusion: Conclusion,
    *,
    time_unix: float,
    model: str,
    version: str,
    payload_sha256: str,
    flagged: tuple[Flagged, ...] = (),
    span: tuple[str, str] = ("", ""),
) -> Event:
    """The event of one concluded decision. span: the call's ids, hex; where it is traced."""
    decision, findings = conclusion.decision, conclusion.findings
    query = decision.query
    rows = len(query.x)
    kept = _most_suspicious(findings, rows) if rows > MAX_ROWS else ()
    traces = traces_of(decision)
    return Event(
        time_unix=time_unix,
        decision_id=query.decision_id,
        caller=query.caller[:MAX_NAME],
        model=model[:MAX_NAME],
        version=version[:MAX_NAME],
        action=conclusion.action,
        would_be=conclusion.would_be,
        enforced=decision.enforced,
        findings=tuple(_cut(finding, rows, kept) for finding in findings) if kept else findings,
        reason=reason_of(findings),
        techniques=techniques_of(findings),
        payload_sha256=payload_sha256,
        rows=rows,
        kept_rows=kept,
        level=decision.level,
        former=former_level(decision),
        caller_rows=decision.past.rows,
        traces=traces,
        clusters=clusters_of(decision, traces),
        credits=credits_of(conclusion),
        flagged=tuple(one for one in flagged if one.row in kept) if kept else flagged,
        trace_id=span[0],
        span_id=span[1],
    )


def draw_of(decision_id: str) -> float:
    """A decision's draw in [0, 1): even over decisions, and the same for the same one everywhere."""
    return int.from_bytes(hashlib.blake2b(decision_id.encode(), digest_size=8).digest(), "big") / 2**64


def former_level(decision: Decision) -> Level:
    """The caller's level before this query, as his alert had it; the present one where that did not change."""
    alert, before = decision.update.alert, decision.past.alert
    return decision.level if alert is None or alert.level is before.level else before.level


def _most_suspicious(findings: Iterable[Finding], rows: int) -> tuple[int, ...]:
    """About MAX_ROWS rows with the smallest p-values, each finding's smallest among them."""
    scored = [finding.p_values for finding in findings if len(finding.p_values) == rows]
    least = [min(column) for column in zip(*scored, strict=True)] or [1.0] * rows
    kept = heapq.nsmallest(MAX_ROWS, range(rows), key=least.__getitem__)
    return tuple(sorted({*kept, *(p_values.index(min(p_values)) for p_values in scored)}))


def _cut(finding: Finding, rows: int, kept: tuple[int, ...]) -> Finding:
    def some(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(values[row] for row in kept) if len(values) == rows else values

    return replace(finding, scores=some(finding.scores), p_values=some(finding.p_values))


def reason_of(findings: Iterable[Finding]) -> Reason | None:
    """What speaks against the query: enforcing stages before shadow ones, the caller before this input."""
    heard = speaking(findings)
    for mode in (Mode.ENFORCE, Mode.SHADOW):
        fired = {finding.kind for finding in heard if finding.mode is mode and finding.fired}
        if "monitor" in fired:
            return Reason.CALLER
        if fired:
            return Reason.INPUT
    return Reason.ERROR if any(finding.error is not None for finding in heard) else None


def error_name(error: str | None) -> str | None:
    """What of an error's text may be recorded: up to the first colon, plain characters only."""
    return None if error is None else _UNSAFE.sub("", error.partition(":")[0])[:MAX_NAME] or "error"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "stage": finding.stage,
        "kind": finding.kind,
        "mode": finding.mode.value,
        "fired": finding.fired,
        "threshold": _number(finding.threshold),
        "scores": [_number(score) for score in finding.scores],
        "p_values": [_number(p) for p in finding.p_values],
        "error": error_name(finding.error),
    }


def _trace(trace: Trace) -> dict[str, Any]:
    """What is known of it: an unlinked row has no neighbour to tell of."""
    if trace.duplicate:
        return {"row": trace.row, "duplicate": True}
    if trace.neighbour < 0:
        return {"row": trace.row, "number": trace.number, "overlap": trace.overlap}
    return {
        "row": trace.row,
        "number": trace.number,
        "overlap": trace.overlap,
        "neighbour": trace.neighbour,
        "owner": trace.owner,
        "distance": _number(trace.distance),
        "unexplained": _number(trace.unexplained),
        "cluster": trace.cluster,
        "joined": trace.joined,
    }


def _credit(credit: Credit) -> dict[str, Any]:
    whose = {"monitor": credit.monitor} if credit.cluster < 0 else {"cluster": credit.cluster}
    return {**whose, "rows": credit.rows, "p_values": [_number(p) for p in credit.p_values], "after": credit.after}


def instant(time_unix: float) -> str:
    """In ISO 8601, UTC, to the microsecond."""
    moment = dt.datetime.fromtimestamp(time_unix, dt.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def document_of(event: Record) -> dict[str, Any]:
    """The event as plain data."""
    if isinstance(event, Forgiven):
        return {"time": instant(event.time_unix), "event": FORGIVEN, "caller": event.caller, "model": event.model}
    if isinstance(event, Exempted):
        return {
            "time": instant(event.time_unix),
            "event": EXEMPT,
            "caller": event.caller,
            "model": event.model,
            "until": instant(event.until_unix),
            "reason": event.reason,
            "approved_by": list(event.approved_by),
        }
    return {
        "time": instant(event.time_unix),
        "event": DECISION,
        "decision_id": event.decision_id,
        "caller": event.caller,
        "model": event.model,
        "version": event.version,
        "action": event.action.value,
        "would_be": event.would_be.value,
        "enforced": event.enforced,
        "reason": event.reason.value if event.reason else None,
        "atlas_techniques": list(event.techniques),
        "atlas_version": ATLAS_VERSION,
        "payload_sha256": event.payload_sha256,
        "rows": event.rows,
        "kept_rows": list(event.kept_rows),
        "findings": [_finding(finding) for finding in event.findings],
        "level": event.level.name.lower(),
        "former_level": event.former.name.lower(),
        "caller_rows": event.caller_rows,
        "links": [_trace(trace) for trace in event.traces],
        "clusters": [{"number": c.number, "rows": c.rows, "owners": c.owners} for c in event.clusters],
        "evidence": [_credit(credit) for credit in event.credits],
        "flagged_rows": [{"row": f.row, "sha256": f.sha256, "stages": list(f.stages)} for f in event.flagged],
        **({"trace_id": event.trace_id, "span_id": event.span_id} if event.trace_id else {}),
    }


def render(event: Record) -> str:
    """One line of ASCII JSON, without the line's end."""
    document = document_of(event)
    return json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
