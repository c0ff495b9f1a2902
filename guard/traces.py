"""What a decision adds to the monitors' story, in a bounded form that can be written down: no input, no sketch.

A row is told by the store's own number for it. Later rows that resemble it name that number, so that whoever reads
decisions in order can say which query followed which (`guard.explaining`), and p-values that were credited can be
added up again under other settings (`guard.backtest`).
"""

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from guard.types import Conclusion, Decision, Seen, Update

MAX_TRACES = 64


@dataclass(frozen=True, slots=True)
class Trace:
    """One row beside what came before it.

    row:         its place in the query. number: the store's own; -1 for an exact repeat.
    neighbour:   the number of the nearest earlier row; -1: none is near. owner: who sent that, a digest in hex.
    overlap:     how many hashes the row shares with the one that shares most.
    distance:    to the neighbour, relative to the row's length; NaN: none.
    unexplained: the share of the difference that no small motion explains; NaN: none.
    cluster:     the number of the cluster that the neighbour belongs to; joined: the row now does, too.
    """

    row: int
    number: int = -1
    duplicate: bool = False
    neighbour: int = -1
    owner: str = ""
    overlap: int = 0
    distance: float = math.nan
    unexplained: float = math.nan
    cluster: int = -1
    joined: bool = False


@dataclass(frozen=True, slots=True)
class Credit:
    """P-values that became evidence.

    monitor:  whose; empty where they speak against a cluster.
    p_values: of the fresh rows, in order; of more than MAX_TRACES the smallest. rows: how many there were.
    cluster:  its number; -1 where they speak against the caller.
    after:    whether the model's answer was needed, so that they count from the next query on.
    """

    monitor: str
    p_values: tuple[float, ...]
    rows: int
    cluster: int = -1
    after: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of similar rows as it was before the query: how many rows, of how many callers (counted up to 64)."""

    number: int
    rows: int
    owners: int


def traces_of(decision: Decision) -> tuple[Trace, ...]:
    """Of each row, of many rows those with the nearest neighbours."""
    traces = [_trace(row, seen, decision.update) for row, seen in enumerate(decision.seen)]
    if len(traces) <= MAX_TRACES:
        return tuple(traces)
    return tuple(sorted(heapq.nsmallest(MAX_TRACES, traces, key=_farness), key=lambda trace: trace.row))


def clusters_of(decision: Decision, traces: Iterable[Trace]) -> tuple[Cluster, ...]:
    """Those that the traced rows are near to, or join."""
    numbers = dict.fromkeys(trace.cluster for trace in traces)
    known = [(number, decision.components[number]) for number in numbers if number in decision.components]
    return tuple(Cluster(number, component.rows, component.owners) for number, component in known)


def _farness(trace: Trace) -> tuple[bool, float]:
    return trace.neighbour < 0, trace.distance


def _trace(row: int, seen: Seen, update: Update) -> Trace:
    match, link = seen.match, seen.link
    if match.duplicate or link is None:
        return Trace(row, match.number, match.duplicate, overlap=match.overlap)
    return Trace(
        row=row,
        number=match.number,
        neighbour=link.neighbour.number,
        owner=link.neighbour.owner.hex(),
        overlap=match.overlap,
        distance=float(link.distance),
        unexplained=float(link.unexplained),
        cluster=update.joins.get(match.number, link.neighbour.component),
        joined=match.number in update.joins,
    )


def credits_of(conclusion: Conclusion) -> tuple[Credit, ...]:
    """What was credited before the answer, and after it."""
    before, after = conclusion.decision.update, conclusion.update
    windows = {monitor: (p,) for monitor, (_, p) in before.judged.items()}
    return (
        *_credits(before.evidence, after=False),
        *_credits(windows, after=False),
        *(_credit("", p_values, cluster=number) for number, p_values in _some(before.components.items())),
        *_credits(after.evidence, after=True),
        *_credits({monitor: (p,) for monitor, (_, p) in after.judged.items()}, after=True),
    )


def _some(items: Iterable[tuple[int, tuple[float, ...]]]) -> list[tuple[int, tuple[float, ...]]]:
    """Of many clusters those with the smallest p-values."""
    return heapq.nsmallest(MAX_TRACES, items, key=lambda item: min(item[1], default=1.0))


def _credits(evidence: Mapping[str, tuple[float, ...]], *, after: bool) -> list[Credit]:
    return [_credit(monitor, p_values, after=after) for monitor, p_values in evidence.items() if p_values]


def _credit(monitor: str, p_values: tuple[float, ...], *, cluster: int = -1, after: bool = False) -> Credit:
    rows, kept = len(p_values), tuple(map(float, p_values))
    if rows > MAX_TRACES:
        places = sorted(heapq.nsmallest(MAX_TRACES, range(rows), key=kept.__getitem__))
        kept = tuple(kept[place] for place in places)
    return Credit(monitor, kept, rows, cluster, after)
