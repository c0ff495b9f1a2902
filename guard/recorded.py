"""A recorded audit log, read back: lines of JSON to the events that they were made of.

A log is data from elsewhere: whatever a line holds, it becomes an event of the right types, or a ValueError.
"""

import datetime as dt
import json
import math
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from guard.events import DECISION, EXEMPT, FORGIVEN, Event, Exempted, Forgiven, Reason, Record, draw_of
from guard.traces import Cluster, Credit, Trace
from guard.types import KINDS, Action, Finding, Flagged, Kind, Level, Mode

MAX_LINE_BYTES = 4 * 1024 * 1024
_ENOUGH = 20
_NEARLY_ALL = 0.95


@dataclass(slots=True)
class Tally:
    """What came of a log's lines. others: events of another kind than Guard's, or of a later Guard's."""

    events: int = 0
    unreadable: int = 0
    others: int = 0


@dataclass(slots=True)
class Completeness:
    """Which share of allowed queries a log has: ids are drawn evenly, so the largest draw shows it."""

    allowed: int = 0
    draw: float = 0.0

    def take(self, event: Event) -> None:
        """One decision."""
        if event.plain and not event.rose:
            self.allowed += 1
            self.draw = max(self.draw, draw_of(event.decision_id))

    def document(self) -> dict[str, Any]:
        """share, complete: None where there are too few to tell."""
        share = self.draw * (self.allowed + 1) / self.allowed if self.allowed else 0.0
        known = self.allowed >= _ENOUGH
        return {
            "allowed": self.allowed,
            "share": min(1.0, share) if known else None,
            "complete": share >= _NEARLY_ALL if known else None,
        }


def parse(line: str | bytes) -> Record | None:
    """The event of one line; None where it is JSON, and no event of this kind. Raises ValueError."""
    try:
        document = json.loads(line)
        if not isinstance(document, dict):
            return None
        if document.get("event") == FORGIVEN:
            return Forgiven(_time(document["time"]), str(document["caller"]), str(document["model"]))
        if document.get("event") == EXEMPT:
            return Exempted(
                _time(document["time"]),
                str(document["caller"]),
                str(document["model"]),
                _time(document["until"]),
                str(document["reason"]),
                tuple(map(str, document["approved_by"])),
            )
        return _event(document) if document.get("event") == DECISION else None
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"not an audit event: {type(error).__name__}") from None


def read(path: Path, tally: Tally) -> Iterator[Record]:
    """The events of a file (`-`: standard input) in its order; what cannot be read is counted. Raises OSError."""
    opened: AbstractContextManager[IO[bytes]] = nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb")
    with opened as file:
        while line := file.readline(MAX_LINE_BYTES):
            if not line.strip():
                continue
            try:
                event = parse(line)
            except ValueError:
                tally.unreadable += 1
                continue
            if event is None:
                tally.others += 1
            else:
                tally.events += 1
                yield event


def _event(document: dict[str, Any]) -> Event:
    reason = document.get("reason")
    return Event(
        time_unix=_time(document["time"]),
        decision_id=str(document["decision_id"]),
        caller=str(document["caller"]),
        model=str(document["model"]),
        version=str(document["version"]),
        action=Action(document["action"]),
        would_be=Action(document["would_be"]),
        enforced=bool(document["enforced"]),
        findings=tuple(map(_finding, document["findings"])),
        reason=None if reason is None else Reason(reason),
        techniques=tuple(map(str, document["atlas_techniques"])),
        payload_sha256=str(document["payload_sha256"]),
        rows=int(document["rows"]),
        kept_rows=tuple(map(int, document["kept_rows"])),
        level=_level(document.get("level", "clear")),
        former=_level(document.get("former_level", "clear")),
        caller_rows=int(document.get("caller_rows", 0)),
        traces=tuple(map(_trace, document.get("links", ()))),
        clusters=tuple(
            Cluster(int(c["number"]), int(c["rows"]), int(c["owners"])) for c in document.get("clusters", ())
        ),
        credits=tuple(map(_credit, document.get("evidence", ()))),
        flagged=tuple(map(_flagged, document.get("flagged_rows", ()))),
        trace_id=str(document.get("trace_id", "")),
        span_id=str(document.get("span_id", "")),
    )


def _flagged(document: dict[str, Any]) -> Flagged:
    return Flagged(int(document["row"]), str(document["sha256"]), tuple(map(str, document["stages"])))


def _time(text: str) -> float:
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment.timestamp()


def _level(name: str) -> Level:
    return Level[name.upper()]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _p_values(values: list[Any]) -> tuple[float, ...]:
    found = tuple(map(_number, values))
    if any(not 0.0 <= p <= 1.0 for p in found if not math.isnan(p)):
        raise ValueError("a p-value outside 0 to 1")
    return found


def _finding(document: dict[str, Any]) -> Finding:
    error = document["error"]
    return Finding(
        stage=str(document["stage"]),
        kind=_kind(document["kind"]),
        mode=Mode(document["mode"]),
        scores=tuple(map(_number, document["scores"])),
        p_values=_p_values(document["p_values"]),
        threshold=_number(document["threshold"]),
        error=None if error is None else str(error),
    )


def _kind(name: str) -> Kind:
    for kind in KINDS:
        if kind == name:
            return kind
    raise ValueError("no kind of stage")


def _trace(document: dict[str, Any]) -> Trace:
    row = int(document["row"])
    if document.get("duplicate", False):
        return Trace(row, duplicate=True)
    trace = Trace(row, int(document["number"]), overlap=int(document["overlap"]))
    if "neighbour" not in document:
        return trace
    return Trace(
        row=row,
        number=trace.number,
        neighbour=int(document["neighbour"]),
        owner=str(document["owner"]),
        overlap=trace.overlap,
        distance=_number(document["distance"]),
        unexplained=_number(document["unexplained"]),
        cluster=int(document["cluster"]),
        joined=bool(document["joined"]),
    )


def _cluster(document: dict[str, Any]) -> Cluster:
    return Cluster(int(document["number"]), int(document["rows"]), int(document["owners"]))


def _credit(document: dict[str, Any]) -> Credit:
    p_values = _p_values(document["p_values"])
    if any(map(math.isnan, p_values)) or len(p_values) > int(document["rows"]):
        raise ValueError("p-values that are none")
    return Credit(
        monitor=str(document.get("monitor", "")),
        p_values=p_values,
        rows=int(document["rows"]),
        cluster=int(document.get("cluster", -1)),
        after=bool(document["after"]),
    )
