"""Why a decision was taken, or a caller is alarming: which queries link, which monitor saw it, and when it crossed.

Made of recorded decisions: this process's latest (`guard.journal`), or a log on disk (`guard.recorded`).
"""

import datetime as dt
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from guard.events import Event
from guard.journal import relevant
from guard.recorded import Tally, read
from guard.techniques import leader_of, technique_of
from guard.traces import Cluster, Trace
from guard.types import Action, Finding, Level

Origin = Callable[[str, int], tuple[str, int] | None]
"""(model, the store's number of a row) -> the decision that it came in, and its place there."""


class Kept(Protocol):
    """Decisions at hand; `guard.journal.Journal` is one process's."""

    @property
    def events(self) -> Iterator[Event]:
        """Oldest first."""
        ...

    def find(self, decision_id: str) -> Event | None:
        """One decision."""
        ...

    def origin(self, model: str, number: int) -> tuple[str, int] | None:
        """The decision that a row came in, and its place there."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """Evidence of one monitor against a caller: the logarithm of the e-process, and how many p-values are in it."""

    monitor: str
    log_value: float
    count: int


@dataclass(frozen=True, slots=True)
class Caller:
    """What the store knows of a caller now. until: the level holds at least so long; None: as long as the evidence.

    rows: fresh rows that were answered since then. seen: None where the store does not know.
    """

    model: str
    caller: str
    level: Level
    evidence: tuple[Known, ...]
    rows: int
    since: dt.datetime
    until: dt.datetime | None = None
    seen: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Linked:
    """A row beside what came before it. decision_id: of the neighbour's query, and its row; empty: not recorded."""

    trace: Trace
    decision_id: str = ""
    decision_row: int = 0


@dataclass(frozen=True, slots=True)
class Explained:
    """One decision. monitor: whose evidence had come furthest; empty: nobody's had moved."""

    time: dt.datetime
    decision_id: str
    model: str
    caller: str
    action: Action
    would_be: Action
    level: Level
    former: Level
    caller_rows: int
    monitor: str
    techniques: tuple[str, ...]
    findings: tuple[Finding, ...]
    links: tuple[Linked, ...]
    clusters: tuple[Cluster, ...]


@dataclass(frozen=True, slots=True)
class Crossing:
    """The caller's level rose: in which decision, after how many of his rows, by whose evidence."""

    time: dt.datetime
    decision_id: str
    model: str
    level: Level
    caller_rows: int
    monitor: str
    technique: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """decisions: oldest first, the latest of those that were kept; left_out: how many more there are.

    state: what the store knows of the caller now, one a model; empty where it was not asked, or knows nothing.
    """

    caller: str
    decisions: tuple[Explained, ...]
    crossings: tuple[Crossing, ...]
    left_out: int = 0
    state: tuple[Caller, ...] = ()


def from_journal(journal: Kept, *, decision_id: str = "", caller: str = "", model: str = "", limit: int = 20) -> (
    Explanation | None
):  # fmt: skip
    """Of a decision, if one is named, else of a caller; None where the journal has neither. model: empty: any."""
    chosen: list[Event] = []
    if decision_id:
        found = journal.find(decision_id)
        if found is None or model not in {"", found.model}:
            return None
        caller, chosen, model = found.caller, [found], found.model
    own = [event for event in journal.events if event.caller == caller and model in {"", event.model}]
    chosen = chosen or own
    if not chosen:
        return None
    latest = chosen[-limit:] if limit else chosen
    return Explanation(
        caller,
        tuple(explained(event, journal.origin) for event in latest),
        tuple(crossings(own)),
        len(chosen) - len(latest),
    )


def from_log(
    path: Path, tally: Tally, *, decision_id: str = "", caller: str = "", model: str = "", limit: int = 20
) -> Explanation | None:
    """The same from a log's file, which is read up to three times. Raises OSError."""
    if decision_id:
        found = next((event for event in _decisions(path, Tally()) if event.decision_id == decision_id), None)
        if found is None or model not in {"", found.model}:
            return None
        caller, model = found.caller, found.model
    latest: deque[Event] = deque(maxlen=limit or None)
    crossed, kept, levels = list[Crossing](), 0, dict[str, Level]()
    for event in _decisions(path, tally):
        if event.caller != caller or model not in {"", event.model}:
            continue
        crossed += crossings([event], levels)
        wanted = event.decision_id == decision_id if decision_id else _remarkable(event)
        if wanted:
            latest.append(event)
            kept += 1
    if not latest:
        return None
    origins = _origins(path, latest)
    made = tuple(explained(event, lambda model, number: origins.get((model, number))) for event in latest)
    return Explanation(caller, made, tuple(crossed), kept - len(latest))


def _decisions(path: Path, tally: Tally) -> Iterator[Event]:
    return (event for event in read(path, tally) if isinstance(event, Event))


def _remarkable(event: Event) -> bool:
    return relevant(event) or event.rose or not event.plain


def _origins(path: Path, events: Iterable[Event]) -> dict[tuple[str, int], tuple[str, int]]:
    wanted = {(event.model, trace.neighbour) for event in events for trace in event.traces if trace.neighbour >= 0}
    return {
        (event.model, trace.number): (event.decision_id, trace.row)
        for event in _decisions(path, Tally())
        for trace in event.traces
        if trace.number >= 0 and (event.model, trace.number) in wanted
    }


def crossings(events: Iterable[Event], levels: dict[str, Level] | None = None) -> Iterator[Crossing]:
    """Where the level of one caller rose, by model; `levels`: what it was before, changed on the way."""
    levels = {} if levels is None else levels
    for event in events:
        if event.level > max(levels.get(event.model, Level.CLEAR), event.former if event.rose else Level.CLEAR):
            monitor = _leading(event)
            technique = (monitor and technique_of(monitor)) or ""
            moment = _moment(event.time_unix)
            yield Crossing(
                moment, event.decision_id, event.model, event.level, event.caller_rows, monitor, technique
            )  # fmt: skip
        levels[event.model] = event.level


def explained(event: Event, origin: Origin) -> Explained:
    """One decision, with the queries that its rows are linked to."""
    return Explained(
        time=_moment(event.time_unix),
        decision_id=event.decision_id,
        model=event.model,
        caller=event.caller,
        action=event.action,
        would_be=event.would_be,
        level=event.level,
        former=event.former,
        caller_rows=event.caller_rows,
        monitor=_leading(event),
        techniques=event.techniques,
        findings=event.findings,
        links=tuple(_linked(event.model, trace, origin) for trace in event.traces),
        clusters=event.clusters,
    )


def _linked(model: str, trace: Trace, origin: Origin) -> Linked:
    found = origin(model, trace.neighbour) if trace.neighbour >= 0 else None
    return Linked(trace) if found is None else Linked(trace, *found)


def _leading(event: Event) -> str:
    leading = leader_of(event.findings)
    return "" if leading is None else leading.stage


def _moment(time_unix: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(time_unix, dt.UTC)
