"""Findings to responses and degrees, by a policy alone."""

from pathlib import Path

import numpy as np
import pytest

from guard.settings import Model, Policy
from guard.types import Action, Finding, Kind, Level, Mode, OnError, When, severest
from guard.weighing import MOST_DEGRADED, Weighing, acted_on

POLICY = Policy(
    on_input=Action.PURIFY, on_watch=Action.ALLOW, on_suspect=(Action.DEGRADE, Action.DELAY), on_hostile=Action.THROTTLE
)
MODEL = Model(name="m", policy=POLICY)
WEIGHING = Weighing(MODEL, {("detector", "strict"): OnError.DENY})


def finding(stage: str, kind: Kind, *p_values: float, error: str | None = None) -> Finding:
    return Finding(stage, kind, Mode.ENFORCE, p_values, p_values, 0.01, error)


def alert(level: Level) -> Finding:
    return WEIGHING.alert(Mode.ENFORCE, Level.WATCH, level, 1e-3)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], set()),
        ([finding("mean", "detector", 0.5)], set()),
        ([finding("mean", "detector", 0.5, 0.001)], {Action.PURIFY}),
        ([finding("print", "monitor", 0.001)], set()),  # a monitor of callers speaks through the alert
        ([finding("graph", "monitor", 0.001)], set()),  # and so does one of clusters
        ([alert(Level.WATCH)], set()),
        ([alert(Level.SUSPECT)], {Action.DEGRADE, Action.DELAY}),
        ([alert(Level.HOSTILE), finding("mean", "detector", 0.001)], {Action.THROTTLE, Action.PURIFY}),
        ([finding("strict", "detector", error="E")], {Action.DENY}),
        ([finding("lenient", "detector", error="E")], set()),
    ],
)
def test_responses(found: list[Finding], expected: set[Action]) -> None:
    assert WEIGHING.responses(found) == {Action.ALLOW} | expected


def test_the_severest_of_several_actions() -> None:
    assert [action.severity for action in Action] == list(range(len(Action)))
    assert severest([Action.DELAY, Action.THROTTLE, Action.ALLOW]) is Action.THROTTLE
    assert severest([]) is Action.ALLOW


def test_an_alert_fires_where_something_is_done_about_it() -> None:
    assert [alert(level).fired for level in Level] == [False, False, True, True]


def test_what_is_asked_of_everybody_is_no_alarm() -> None:
    everybody = Weighing(Model(name="m", profile=Path("p"), policy=Policy(on_clear=Action.CHALLENGE)))
    assert not everybody.alert(Mode.ENFORCE, Level.WATCH, Level.CLEAR, 0.01).fired
    assert everybody.alert(Mode.ENFORCE, Level.HOSTILE, Level.HOSTILE, 0.01).fired


def test_degrees_are_of_rows_that_fired_and_of_alarming_callers() -> None:
    mean, graph = finding("mean", "detector", 0.5, 0.001), finding("graph", "monitor", 0.001, 0.5)
    assert WEIGHING.degrees([mean], 2).tolist() == [0, MOST_DEGRADED]
    assert WEIGHING.degrees([mean, graph], 2).tolist() == [0, MOST_DEGRADED]
    assert (
        WEIGHING.degrees([finding("print", "monitor", 0.001), finding("strict", "detector", error="E")], 2).max() == 0
    )
    assert WEIGHING.degrees([mean, alert(Level.SUSPECT)], 2).tolist() == [2, MOST_DEGRADED]
    assert WEIGHING.degrees([alert(Level.WATCH)], 2).tolist() == [0, 0]  # nothing is done about it


def test_protections_act_from_their_degree_on_or_always() -> None:
    degrees = np.array([0, 1, 2, 3])
    assert acted_on(When.SUSPICIOUS, 2, degrees).tolist() == [False, False, True, True]
    assert acted_on(When.ALWAYS, 3, degrees).all()
