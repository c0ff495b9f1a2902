"""What one process noticed lately, for operators who look on: decisions that were no plain allow, callers' evidence.

Kept in memory, and bounded: the latest DECISIONS, and of CALLERS how far the evidence of their monitors had come on
the way to an alarm (1 is one), in POINTS a caller; where there are more, every other one goes. A caller is followed
from a tenth of the way on. Where there are too many callers, one of the lowest level goes first, of these the one
unheard of for longest, and is counted. The audit log has everything.

Cost: some look-ups a decision; nothing is written, sent or computed from inputs.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from guard.events import Event, error_name
from guard.flagging import Flags
from guard.profile import Space
from guard.types import Finding, Level

DECISIONS = 200
CALLERS = 256
POINTS = 80
FROM = 0.1
STALE_S = 3600.0
SHORTEST_S = 0.25
_DRAWN = frozenset({"nchw", "nhwc", "nhw", "flat", "encoded"})

Point = tuple[float, float]
"""Seconds since 1970, and how far the evidence had come."""
Key = tuple[str, str]


@dataclass(slots=True)
class Followed:
    """One caller of one model: his level at his latest query, and whose evidence had come how far."""

    level: Level = Level.CLEAR
    heard: float = 0.0
    rows: int = 0
    monitors: dict[str, float] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    shortest_s: float = SHORTEST_S

    def add(self, event: Event, ways: dict[str, float]) -> None:
        """What a query added; of several within a short while the latest stays."""
        self.level, self.heard = event.level, event.time_unix
        self.rows = event.caller_rows + event.rows
        self.monitors.update(ways)
        point = (event.time_unix, max(self.monitors.values(), default=0.0))
        if len(self.points) > 1 and event.time_unix - self.points[-2][0] < self.shortest_s:
            self.points[-1] = point
        else:
            self.points.append(point)
        if len(self.points) > POINTS:
            self.points = [*self.points[:-1:2], self.points[-1]]
            self.shortest_s = max(2 * self.shortest_s, 2 * (point[0] - self.points[0][0]) / POINTS)


class Lately:
    """Not safe for threads: one event loop writes and reads it."""

    def __init__(self) -> None:
        self._decisions: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._callers: dict[Key, Followed] = {}
        self._left_out = 0

    def record(self, event: Event) -> None:
        """Keep what operators may want to see."""
        key = event.model, event.caller
        followed = self._callers.get(key)
        if followed is not None or event.level is not Level.CLEAR or _speaks(event.findings):
            ways = _ways(event)
            if followed is None and (event.level is not Level.CLEAR or max(ways.values(), default=0.0) >= FROM):
                followed = self._follow(key, event.time_unix)
            if followed is not None:
                followed.add(event, ways)
        if not event.plain or event.rose:
            self._decisions[event.decision_id] = _decision(event)
            if len(self._decisions) > DECISIONS:
                self._decisions.popitem(last=False)

    def picture(self, decision_id: str, flags: Flags, space: Space) -> None:
        """The quarantine keeps rows of this decision that can be drawn."""
        known = self._decisions.get(decision_id)
        if known is not None and flags.kept and flags.layout in _DRAWN:
            known["pictures"] = {
                "rows": list(flags.kept),
                "layout": flags.layout,
                "shape": list(flags.shape),
                "low": list(space.low),
                "high": list(space.high),
            }

    def forgive(self, model: str, caller: str) -> None:
        """He begins anew; what was decided stays."""
        self._callers.pop((model, caller), None)

    def document(self, decisions: int, callers: int) -> dict[str, Any]:
        """The latest decisions, the most alarming callers and who is known, as plain data: one part of `merged`."""
        followed = sorted(self._callers.items(), key=lambda one: _alarm(one[1]), reverse=True)
        return {
            "decisions": list(self._decisions.values())[-decisions:],
            "callers": [_caller(key, one) for key, one in followed[:callers]],
            "known": [(*key, one.level.name.lower(), round(one.heard, 3)) for key, one in followed],
            "left_out": self._left_out,
        }

    def _follow(self, key: Key, now: float) -> Followed:
        if len(self._callers) >= CALLERS:
            del self._callers[min(self._callers, key=lambda one: _worth(self._callers[one], now))]
            self._left_out += 1
        self._callers[key] = Followed()
        return self._callers[key]


def _worth(followed: Followed, now: float) -> tuple[int, float]:
    """Who is unheard of for long is worth nothing, however alarming he was."""
    return (0 if now - followed.heard > STALE_S else int(followed.level)), followed.heard


def _alarm(followed: Followed) -> tuple[int, float, float]:
    return int(followed.level), followed.points[-1][1], followed.heard


def _speaks(findings: Iterable[Finding]) -> bool:
    """Whether any monitor has evidence: of most callers none has, and that is all there is to say."""
    return any(finding.kind == "monitor" and finding.p_values and finding.p_values[0] < 1.0 for finding in findings)


def _ways(event: Event) -> dict[str, float]:
    """How far the evidence of each monitor has come that added to it with this query."""
    credited = {credit.monitor for credit in event.credits if credit.cluster < 0}
    return {
        finding.stage: max(0.0, math.log(max(finding.p_values[0], 1e-300)) / math.log(finding.threshold))
        for finding in event.findings
        if finding.stage in credited and len(finding.p_values) == 1 and 0.0 < finding.threshold < 1.0
    }


def _caller(key: Key, one: Followed) -> dict[str, Any]:
    return {
        "model": key[0],
        "caller": key[1],
        "level": one.level.name.lower(),
        "heard": round(one.heard, 3),
        "rows": one.rows,
        "monitors": {name: round(way, 4) for name, way in one.monitors.items()},
        "points": [(round(at, 2), round(way, 4)) for at, way in one.points],
    }


def _decision(event: Event) -> dict[str, Any]:
    return {
        "time": round(event.time_unix, 3),
        "decision_id": event.decision_id,
        "model": event.model,
        "caller": event.caller,
        "action": event.action.value,
        "would_be": event.would_be.value,
        "level": event.level.name.lower(),
        "former_level": event.former.name.lower(),
        "reason": None if event.reason is None else event.reason.value,
        "atlas_techniques": list(event.techniques),
        "rows": event.rows,
        "findings": _findings(event.findings),
        "pictures": None,
    }


def _findings(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Those that fired or failed, each by its smallest p-value; None where it is no test."""
    return [
        {
            "stage": finding.stage,
            "kind": finding.kind,
            "mode": finding.mode.value,
            "p_value": _number(min(finding.p_values, default=math.nan)) if finding.threshold else None,
            "threshold": finding.threshold,
            "fired": finding.fired,
            "error": error_name(finding.error),
        }
        for finding in findings
        if finding.fired or finding.error is not None
    ]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def merged(documents: Iterable[dict[str, Any]], decisions: int, callers: int) -> dict[str, Any]:
    """What several processes noticed, as one. Callers share their history: each process has points of one way."""
    told = tuple(documents)
    found: dict[Key, dict[str, Any]] = {}
    for one in sorted((one for document in told for one in document["callers"]), key=lambda one: one["heard"]):
        key = one["model"], one["caller"]
        former = found.get(key)
        points = [] if former is None else former["points"]
        found[key] = {**one, "points": _thinned(sorted(map(tuple, [*points, *one["points"]])))}
        if former is not None:
            found[key]["monitors"] = {**former["monitors"], **one["monitors"]}
            found[key]["rows"] = max(former["rows"], one["rows"])
    ranked = sorted(found.values(), key=_alarm_of, reverse=True)
    latest = sorted((one for document in told for one in document["decisions"]), key=lambda one: one["time"])
    levels = _levels(told)
    return {
        "decisions": latest[-decisions:],
        "callers": ranked[:callers],
        "followed": sum(levels.values()),
        "levels": levels,
        "left_out": sum(document["left_out"] for document in told),
    }


def _levels(documents: Iterable[dict[str, Any]]) -> dict[str, int]:
    """How many callers are at each level, those included that are not among the most alarming."""
    known = sorted((tuple(one) for document in documents for one in document["known"]), key=lambda one: one[-1])
    latest = {(model, caller): level for model, caller, level, _ in known}
    levels = {level.name.lower(): 0 for level in Level}
    for level in latest.values():
        levels[level] += 1
    return levels


def _alarm_of(one: dict[str, Any]) -> tuple[int, float, float]:
    return int(Level[one["level"].upper()]), one["points"][-1][1], one["heard"]


def _thinned(points: list[Any]) -> list[Any]:
    step = -(-len(points) // POINTS)
    return points[::-1][::step][::-1]
