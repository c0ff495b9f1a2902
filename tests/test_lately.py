"""What was noticed lately: what is kept of a decision, how evidence is followed, and that all of it is bounded."""

import json
import math
from typing import Any

import pytest

from guard import lately
from guard.events import Event
from guard.flagging import Flags
from guard.lately import CALLERS, DECISIONS, POINTS, Lately, merged
from guard.profile import Space
from guard.traces import Credit
from guard.types import Action, Finding, Level, Mode

THRESHOLD = 0.001


def event(
    number: int = 0, *, caller: str = "c", way: float | None = None, level: Level = Level.CLEAR, **more: Any
) -> Event:
    """A query whose evidence has come so far; None: no monitor has said anything."""
    findings: tuple[Finding, ...] = ()
    credited: tuple[Credit, ...] = ()
    if way is not None:
        findings = (Finding("fingerprint", "monitor", Mode.SHADOW, (1.0,), (THRESHOLD**way,), THRESHOLD),)
        credited = (Credit("fingerprint", (0.5,), 1),)
    values: dict[str, Any] = {
        "time_unix": float(number),
        "decision_id": f"{number:032x}",
        "caller": caller,
        "model": "m",
        "version": "",
        "action": Action.ALLOW,
        "would_be": Action.ALLOW,
        "enforced": False,
        "findings": findings,
        "credits": credited,
        "level": level,
        "former": level,
        "rows": 1,
    }
    return Event(**{**values, **more})


def told(kept: Lately) -> dict[str, Any]:
    document = kept.document(DECISIONS, CALLERS)
    json.dumps(document, allow_nan=False)
    return document


def test_of_a_clean_query_nothing_is_kept() -> None:
    kept = Lately()
    kept.record(event())
    kept.record(event(way=0.05))
    assert told(kept) == {"decisions": [], "callers": [], "known": [], "left_out": 0}


def test_evidence_is_followed_from_a_tenth_of_the_way_on() -> None:
    kept = Lately()
    for number, way in enumerate((0.0, 0.09, 0.2, 0.05, 1.5)):
        kept.record(event(number, way=way, level=Level.HOSTILE if way >= 1 else Level.CLEAR, caller_rows=number))
    (caller,) = told(kept)["callers"]
    assert caller["level"] == "hostile"
    assert caller["rows"] == 5
    assert caller["points"] == [(2.0, 0.2), (3.0, 0.05), (4.0, 1.5)]
    assert caller["monitors"] == {"fingerprint": 1.5}


def test_the_most_advanced_monitor_counts() -> None:
    findings = tuple(
        Finding(stage, "monitor", Mode.SHADOW, (1.0,), (THRESHOLD**way,), THRESHOLD)
        for stage, way in (("a", 0.3), ("b", 0.6), ("beside", 0.9))
    )
    credited = (Credit("a", (0.1,), 1), Credit("b", (0.1,), 1), Credit("", (0.1,), 1, cluster=4))
    kept = Lately()
    kept.record(event(findings=findings, credits=credited))
    (caller,) = told(kept)["callers"]
    assert caller["points"] == [(0.0, 0.6)]
    assert caller["monitors"] == {"a": 0.3, "b": 0.6}, "nothing was credited to the third"


def test_evidence_beyond_all_bounds_is_a_number() -> None:
    finding = Finding("a", "monitor", Mode.SHADOW, (1.0,), (0.0,), THRESHOLD)
    kept = Lately()
    kept.record(event(findings=(finding,), credits=(Credit("a", (0.0,), 1),)))
    assert 99 < told(kept)["callers"][0]["points"][0][1] < 101


def test_decisions_that_were_no_plain_allow_or_raised_a_level() -> None:
    kept = Lately()
    kept.record(event(1, would_be=Action.DENY))
    kept.record(event(2, action=Action.DENY, would_be=Action.DENY))
    kept.record(event(3, level=Level.WATCH, former=Level.CLEAR))
    kept.record(event(4, level=Level.WATCH))
    assert [one["time"] for one in told(kept)["decisions"]] == [1.0, 2.0, 3.0]


def test_findings_that_fired_or_failed() -> None:
    findings = (
        Finding("fired", "detector", Mode.ENFORCE, (1.0, 2.0), (0.5, 0.001), 0.01),
        Finding("quiet", "detector", Mode.ENFORCE, (1.0,), (0.5,), 0.01),
        Finding("failed", "detector", Mode.SHADOW, (), (), 0.01, "ValueError: a secret <b>"),
        Finding("odd", "detector", Mode.SHADOW, (math.nan,), (math.nan,), 0.01, "x"),
        Finding("cohort global", "monitor", Mode.SHADOW, (1.0,), (0.0,), 0.0),
    )
    kept = Lately()
    kept.record(event(would_be=Action.DENY, findings=findings))
    (decision,) = told(kept)["decisions"]
    assert [(f["stage"], f["p_value"], f["error"]) for f in decision["findings"]] == [
        ("fired", 0.001, None),
        ("failed", None, "ValueError"),
        ("odd", None, "x"),
        ("cohort global", None, None),
    ]


def test_pictures_are_noted_where_rows_are_kept() -> None:
    kept = Lately()
    space = Space("nchw", (0.0,), (1.0,), certain=True)
    flags = Flags(shape=(28, 28, 1), layout="nchw", kept=(0, 2))
    kept.record(event(1, would_be=Action.DENY))
    kept.picture(event(1).decision_id, flags, space)
    kept.picture(event(2).decision_id, flags, space)  # plain, so not shown
    (decision,) = told(kept)["decisions"]
    assert decision["pictures"] == {
        "rows": [0, 2], "layout": "nchw", "shape": [28, 28, 1], "low": [0.0], "high": [1.0],
    }  # fmt: skip
    kept.record(event(3, would_be=Action.DENY))
    kept.picture(event(3).decision_id, Flags(shape=(4,), layout="vector", kept=(0,)), space)
    assert told(kept)["decisions"][1]["pictures"] is None, "there is nothing to draw"


def test_decisions_are_bounded() -> None:
    kept = Lately()
    for number in range(DECISIONS + 5):
        kept.record(event(number, would_be=Action.DENY))
    assert [one["time"] for one in told(kept)["decisions"]] == [float(n) for n in range(5, DECISIONS + 5)]
    assert [one["time"] for one in kept.document(2, 0)["decisions"]] == [DECISIONS + 3.0, DECISIONS + 4.0]


def test_points_are_bounded_and_keep_the_beginning_and_the_end() -> None:
    kept = Lately()
    for number in range(40 * POINTS):
        kept.record(event(number, way=1.0 + number))
    (caller,) = told(kept)["callers"]
    assert POINTS // 4 < len(caller["points"]) <= POINTS
    assert caller["points"][0][0] == 0.0
    assert caller["points"][-1][0] == 40 * POINTS - 1.0
    assert caller["points"] == sorted(caller["points"])


def test_of_a_burst_the_latest_stays() -> None:
    kept = Lately()
    for i in range(10):
        kept.record(event(way=0.2 + i, time_unix=100.0 + i / 1000))
    assert told(kept)["callers"][0]["points"] == [(100.0, 0.2), (100.01, 9.2)]


def test_callers_are_bounded_and_the_least_alarming_go_first() -> None:
    kept = Lately()
    kept.record(event(0, caller="hostile", way=2.0, level=Level.HOSTILE))
    for number in range(1, CALLERS + 3):
        kept.record(event(number, caller=f"c{number}", way=0.5))
    document = told(kept)
    names = {one["caller"] for one in document["callers"]}
    assert len(names) == len(document["known"]) == CALLERS
    assert document["callers"][0]["caller"] == "hostile"
    assert {"c1", "c2", "c3"}.isdisjoint(names - {"c4"})
    assert document["left_out"] == 3


def test_who_is_unheard_of_for_long_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lately, "CALLERS", 2)
    kept = Lately()
    kept.record(event(0, caller="once hostile", way=2.0, level=Level.HOSTILE))
    kept.record(event(int(lately.STALE_S) + 1, caller="a", way=0.5))
    kept.record(event(int(lately.STALE_S) + 2, caller="b", way=0.5))
    assert {one["caller"] for one in told(kept)["callers"]} == {"a", "b"}


def test_who_is_forgiven_is_followed_no_more() -> None:
    kept = Lately()
    kept.record(event(caller="a", way=0.5))
    kept.forgive("m", "a")
    kept.forgive("m", "nobody")
    assert told(kept)["callers"] == []


def test_several_processes_as_one() -> None:
    first, second = Lately(), Lately()
    for number in range(6):
        (first if number % 2 else second).record(event(number, caller="a", way=0.2 * number, would_be=Action.DENY))
    second.record(event(9, caller="b", way=0.5, level=Level.WATCH))
    whole = merged([json.loads(json.dumps(told(one))) for one in (first, second)], 4, 10)
    assert [one["time"] for one in whole["decisions"]] == [2.0, 3.0, 4.0, 5.0]
    assert [one["caller"] for one in whole["callers"]] == ["b", "a"]
    assert [at for at, _ in whole["callers"][1]["points"]] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert whole["callers"][1]["monitors"]["fingerprint"] == pytest.approx(1.0)
    assert (whole["followed"], whole["left_out"]) == (2, 0)


@pytest.mark.parametrize("processes", [1, 2])
def test_levels_are_of_all_callers_and_not_of_those_shown(processes: int) -> None:
    """Each once, as who heard of him last has it."""
    several = [Lately() for _ in range(processes)]
    several[0].record(event(0, caller="c7", way=0.2))
    for number in range(1, 61):
        several[number % processes].record(event(number, caller=f"c{number}", way=2.0, level=Level.HOSTILE))
    several[-1].record(event(61, caller="c1", way=0.5, level=Level.WATCH))
    parts = [json.loads(json.dumps(one.document(DECISIONS, 5))) for one in several]
    whole = merged(parts, DECISIONS, 5)
    assert len(whole["callers"]) == 5
    assert whole["levels"] == {"clear": 0, "watch": 1, "suspect": 0, "hostile": 59}
    assert whole["followed"] == 60


def test_points_of_many_processes_are_bounded() -> None:
    several = [Lately() for _ in range(4)]
    for number in range(4 * POINTS - 8):
        several[number % 4].record(event(number, way=0.5))
    (caller,) = merged([told(one) for one in several], 10, 10)["callers"]
    assert len(caller["points"]) <= POINTS
    assert caller["points"][-1][0] == 4 * POINTS - 9.0


def test_nobody_tells_anything() -> None:
    levels = {"clear": 0, "watch": 0, "suspect": 0, "hostile": 0}
    assert merged([], 1, 1) == {"decisions": [], "callers": [], "followed": 0, "levels": levels, "left_out": 0}
