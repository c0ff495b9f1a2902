"""The engine with arrays alone: what fires, what is done about it, and what a failing stage can and cannot do."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from guard import registry
from guard.engine import Engine
from guard.evidence import Evidence
from guard.profile import Profile, ProfileError, Space
from guard.settings import ConfigError
from guard.types import (
    Action,
    Alert,
    Answer,
    Conclusion,
    Decision,
    Finding,
    History,
    InvalidQuery,
    Level,
    Match,
    Mode,
    Past,
    Query,
    without,
)
from tests.core.helpers import (
    AgreementMonitor,
    BrokenDetector,
    BrokenViews,
    BudgetMonitor,
    ImagesOnly,
    MeanDetector,
    OverlapMonitor,
    ViewGap,
    model_of,
    profile_of,
)

pytestmark = pytest.mark.usefixtures("stages")

CLEAN = np.linspace(0.0, 0.5, 99)  # p-values in steps of 1 %
PROFILE = profile_of(
    {
        ("detector", "test_mean"): (MeanDetector(), CLEAN),
        ("detector", "test_views"): (ViewGap(), CLEAN),
        ("detector", "test_broken"): (BrokenDetector(), CLEAN),
        ("detector", "test_broken_views"): (BrokenViews(), CLEAN),
        ("monitor", "test_overlap"): (OverlapMonitor(), np.zeros(999)),
    }
)
GOOD, BAD = [0.1] * 4, [0.9] * 4
Y = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], np.float32)
MEAN = [{"stage": "test_mean"}]
VIEWS = [{"stage": "test_views"}]
HALVE = [{"stage": "test_halve"}]
UNIFORM = [{"stage": "test_uniform"}]
OVERLAP = [{"stage": "test_overlap"}]


def engine_of(profile: Profile = PROFILE, **values: Any) -> Engine:
    return Engine(model_of(**values), profile, b"a secret of sixteen bytes")


def query_of(*rows: list[float], caller: str = "peer:1") -> Query:
    return Query(np.array(rows, np.float32), caller, "m", "d1")


def decide(engine: Engine, *rows: list[float], matches: Any = (), history: History | None = None) -> Decision:
    found = matches or tuple(Match() for _ in rows)
    return engine.decide(query_of(*rows), history or History(found))


def conclude(engine: Engine, decision: Decision, views: Any = (), standby: Any = None, y: Any = Y) -> Conclusion:
    return engine.conclude(decision, Answer(None if y is None else y[: len(decision.query.x)], views, standby))


# --- detectors


def test_a_clean_row_is_allowed_and_travels_untouched() -> None:
    decision = decide(engine_of(detectors=MEAN), GOOD)
    assert decision.action is Action.ALLOW
    assert decision.x is None
    assert not decision.waits
    assert decision.findings[0].p_value == pytest.approx(0.8)  # 20 of 99 clean scores are below 0.1
    result = conclude(engine_of(detectors=MEAN), decision)
    assert result.action is Action.ALLOW
    assert result.y is None


def test_an_outlying_row_is_denied_at_the_budget_and_not_above() -> None:
    decision = decide(engine_of(detectors=MEAN), GOOD, BAD)
    assert decision.action is decision.would_be is Action.DENY
    assert decision.suspicious.tolist() == [False, True]
    assert decision.findings[0].threshold == pytest.approx(0.1)
    assert decision.findings[0].fired
    result = conclude(engine_of(detectors=MEAN), decision, y=None)
    assert result.action is Action.DENY
    assert result.y is None


def test_the_budget_is_shared_by_weight() -> None:
    engine = engine_of(detectors=[{"stage": "test_mean", "weight": 3}, {"stage": "test_views", "weight": 1}])
    assert [s.threshold for s in engine.stages] == [pytest.approx(0.075), pytest.approx(0.025)]
    off = engine_of(detectors=[{"stage": "test_mean"}, {"stage": "test_views", "mode": "off"}])
    assert [(s.name, s.threshold) for s in off.stages] == [("test_mean", pytest.approx(0.1))]


def test_the_rate_of_flagged_clean_rows_keeps_the_budget() -> None:
    """Detectors that agree and detectors that do not: the union stays below the sum of the shares."""
    rng = np.random.default_rng(3)
    profile = profile_of(
        {
            ("detector", "test_mean"): (MeanDetector(), rng.random((2000, 4)).mean(axis=1)),
            ("detector", "test_views"): (ViewGap(), rng.random(2000)),
        }
    )
    engine = engine_of(profile, detectors=[*MEAN, *VIEWS])
    decision = engine.decide(Query(rng.random((4000, 4)), "c", "m", "d"), None)
    first = rng.dirichlet([1, 1, 1], 4000)
    gap = (rng.random((4000, 1)) / 2) * np.array([[1.0, -1.0, 0.0]])
    moved = np.clip(first + gap, 0, None)
    result = engine.conclude(decision, Answer(first, (moved / moved.sum(axis=1, keepdims=True),)))
    flagged = np.zeros(4000, bool)
    for finding in result.findings:
        flagged |= np.array(finding.p_values) <= finding.threshold
    assert 0.0 < flagged.mean() < 0.1 + 3 * np.sqrt(0.1 * 0.9 / 4000)


def test_a_budget_that_the_profile_cannot_resolve_is_refused() -> None:
    with pytest.raises(ProfileError, match=r"can never fire: its share of the budget is 0\.001.*at least 999"):
        engine_of(detectors=MEAN, false_positive_rate=0.001)


# --- modes


@pytest.mark.parametrize(("model", "stage"), [("shadow", "enforce"), ("enforce", "shadow"), ("shadow", "shadow")])
def test_in_shadow_nothing_is_done_and_all_is_told(model: str, stage: str) -> None:
    engine = engine_of(
        mode=model,
        detectors=[{"stage": "test_mean", "mode": stage}, {"stage": "test_views", "mode": stage}],
        purifiers=[{"stage": "test_halve", "mode": stage, "when": "always"}],
        outputs=[{"stage": "test_uniform", "mode": stage, "when": "always"}],
    )
    decision = decide(engine, BAD)
    assert decision.action is Action.ALLOW
    assert decision.would_be is Action.DENY
    assert decision.enforced is (model == "enforce")
    assert decision.x is None
    assert decision.standby is None
    assert not decision.waits
    assert len(decision.views) == 1  # asked all the same: shadow measures
    result = conclude(engine, decision, views=(Y[1:2],))
    assert (result.action, result.would_be) == (Action.ALLOW, Action.DENY)
    assert result.y is None
    assert not result.use_standby
    assert {f.stage for f in result.findings} == {"test_mean", "test_views"}


def test_off_is_off() -> None:
    engine = engine_of(mode="off", detectors=MEAN, monitors=OVERLAP)
    decision = decide(engine, BAD)
    assert engine.stages == ()
    assert decision.findings == ()
    assert decision.would_be is Action.ALLOW


def test_the_canary_takes_its_share_of_callers_and_always_the_same() -> None:
    engine = engine_of(detectors=MEAN, purifiers=[{"stage": "test_halve", "when": "always"}], canary=0.25)
    enforced = [engine.decide(query_of(BAD, caller=f"c{i}"), None).enforced for i in range(2000)]
    assert 0.2 < np.mean(enforced) < 0.3
    assert enforced == [engine.decide(query_of(BAD, caller=f"c{i}"), None).enforced for i in range(2000)]
    outside = engine.decide(query_of(BAD, caller=f"c{enforced.index(False)}"), None)
    assert (outside.action, outside.would_be, outside.x) == (Action.ALLOW, Action.DENY, None)
    inside = engine.decide(query_of(BAD, caller=f"c{enforced.index(True)}"), None)
    assert inside.action is Action.DENY
    for share, expected in ((0.0, False), (1.0, True)):
        assert engine_of(detectors=MEAN, canary=share).decide(query_of(BAD), None).enforced is expected


# --- validation


def test_invalid_values_end_a_query_where_validation_enforces() -> None:
    engine = engine_of(monitors=OVERLAP)
    for act in (engine.admit, engine.sketch, lambda q: engine.decide(q, None)):
        with pytest.raises(InvalidQuery):
            act(query_of([np.nan] * 4))
    with pytest.raises(InvalidQuery, match="outside"):
        engine_of().admit(query_of([2.0] * 4))


@pytest.mark.parametrize(("model", "mode"), [("shadow", "enforce"), ("enforce", "shadow")])
def test_invalid_values_are_recorded_where_validation_is_in_shadow(model: str, mode: str) -> None:
    decision = decide(engine_of(mode=model, detectors=MEAN, validation={"mode": mode}), [2.0] * 4)
    assert decision.findings[0].stage == "validation"
    assert decision.findings[0].mode is Mode.SHADOW
    assert decision.would_be is Action.DENY
    clean = decide(engine_of(mode=model, detectors=MEAN, validation={"mode": mode}), GOOD)
    assert [f.stage for f in clean.findings] == ["test_mean"]


def test_validation_can_be_off() -> None:
    decision = decide(engine_of(validation={"mode": "off"}), [2.0] * 4)
    assert decision.findings == ()


def test_a_shape_that_no_stage_could_read_is_invalid_in_every_mode() -> None:
    engine = engine_of(replace(PROFILE, space=Space("nhw", (0.0,), (1.0,), certain=True)), mode="off")
    with pytest.raises(InvalidQuery):
        engine.admit(query_of(GOOD))


def test_admitting_twice_is_admitting_once() -> None:
    query = engine_of().admit(query_of(GOOD))
    assert engine_of().admit(query) is query
    assert query.unit is not None
    assert not query.unit.flags.writeable


# --- vetting


@pytest.mark.parametrize("values", [{}, {"validation": {"mode": "off"}}, {"mode": "shadow"}, {"canary": 0.5}])
def test_vetting_passes_what_a_decision_says_nothing_of(values: dict[str, Any]) -> None:
    engine = engine_of(**values)
    query = query_of(GOOD, BAD)
    assert engine.vet(query.x, query.caller, query.now)
    decision = engine.decide(query, None, ())
    assert (decision.action, decision.would_be, decision.responses) == (Action.ALLOW, Action.ALLOW, {Action.ALLOW})
    assert (decision.findings, decision.seen, decision.views, decision.waits) == ((), (), (), False)
    assert decision.x is None
    assert decision.update.empty
    assert not engine.reads_answers


@pytest.mark.parametrize(
    "values",
    [
        {"detectors": MEAN},
        {"monitors": OVERLAP},
        {"purifiers": HALVE},
        {"outputs": UNIFORM},
        {"budget": {"bits_per_day": 100}},
        {"policy": {"on_clear": "challenge"}},
    ],
)
def test_where_there_is_more_to_it_vetting_passes_nothing(values: dict[str, Any]) -> None:
    engine = engine_of(**values)
    assert not engine.vet(query_of(GOOD).x, "peer:1", 0.0)


def test_vetting_validates() -> None:
    for row in ([np.nan] * 4, [2.0] * 4):
        x = query_of(row).x
        with pytest.raises(InvalidQuery):
            engine_of().vet(x, "peer:1", 0.0)
        assert not engine_of(validation={"mode": "shadow"}).vet(x, "peer:1", 0.0)  # there is a finding
        assert engine_of(validation={"mode": "off"}).vet(x, "peer:1", 0.0)
    space = Space("nhw", (0.0,), (1.0,), certain=True)
    with pytest.raises(InvalidQuery):
        engine_of(replace(PROFILE, space=space), mode="off").vet(query_of(GOOD).x, "peer:1", 0.0)


# --- views


def test_a_view_detector_fires_on_the_gap_between_answers() -> None:
    engine = engine_of(detectors=VIEWS)
    decision = decide(engine, BAD)
    assert decision.action is Action.ALLOW
    assert decision.waits
    np.testing.assert_array_equal(decision.views[0], np.zeros((1, 4), np.float32))
    same = conclude(engine, decision, views=(Y[:1],))
    assert same.action is Action.ALLOW
    moved = conclude(engine, decision, views=(Y[1:2],))
    assert moved.action is Action.DENY
    assert moved.findings[-1].scores == (pytest.approx(0.8),)


def test_views_of_several_detectors_are_told_apart() -> None:
    engine = engine_of(detectors=[{"stage": "test_broken_views"}, *VIEWS])
    decision = decide(engine, GOOD)
    assert dict(decision.view_counts) == {"detector/test_views": 1}
    result = conclude(engine, decision, views=(Y[1:2],))
    assert [(f.stage, f.error) for f in result.findings] == [
        ("test_broken_views", "returned shape (1, 1) for (1, 4)"),
        ("test_views", None),
    ]
    assert result.action is Action.DENY


@pytest.mark.parametrize(
    ("y", "views"),
    [(None, (Y[:1],)), (Y, (None,)), (np.array([[np.nan] * 3]), (Y[:1],)), (Y, (np.ones((1, 2)),)), (Y, ())],
)
@pytest.mark.parametrize(("on_error", "action"), [("allow", Action.ALLOW), ("deny", Action.DENY)])
def test_a_missing_answer_is_the_stages_error(y: Any, views: Any, on_error: str, action: Action) -> None:
    engine = engine_of(detectors=[{"stage": "test_views", "on_error": on_error}])
    result = conclude(engine, decide(engine, GOOD), views=views, y=y)
    assert result.findings[-1].error in {"no answer to compare", "IndexError"}
    assert result.action is action


def test_no_views_are_asked_for_what_is_denied() -> None:
    decision = decide(engine_of(detectors=[*MEAN, *VIEWS]), BAD)
    assert decision.action is Action.DENY
    assert decision.views == ()


# --- monitors (what they make of a query: test_watching)


def of_level(level: Level) -> Past:
    """The past of a caller whose evidence is as far as this."""
    p = {Level.CLEAR: 1.0, Level.WATCH: 1e-4, Level.SUSPECT: 1e-5, Level.HOSTILE: 1e-9}[level]
    alert = Alert(level, 1e9 if level is Level.HOSTILE else 0.0)
    return Past({"test_overlap": Evidence().add((p,))}, alert)


def alert_of(decision: Decision) -> Finding | None:
    return next((f for f in decision.findings if f.stage == "alert"), None)


def test_evidence_adds_up_over_queries_until_the_caller_is_hostile() -> None:
    engine, past, levels = engine_of(monitors=OVERLAP), Past(), []
    while not levels or levels[-1] is not Level.HOSTILE:
        decision = decide(engine, GOOD, history=History((Match(overlap=4, number=1),), caller=past))
        assert decision.update.evidence == {"test_overlap": (pytest.approx(0.001),)}
        known = past.evidence.get("test_overlap", Evidence()).add((0.001,))
        past = replace(past, evidence={"test_overlap": known}, alert=decision.update.alert or past.alert)
        levels.append(decision.level)
        assert (decision.action is Action.DENY) == (levels[-1] is Level.HOSTILE)
    assert levels == sorted(levels)
    assert 2 <= len(levels) <= 5
    monitor, alert = decision.findings
    assert (monitor.kind, monitor.stage, monitor.fired) == ("monitor", "test_overlap", True)
    assert monitor.p_values[0] == pytest.approx(known.p_value)
    assert (alert.stage, alert.scores, alert.fired) == ("alert", (3.0, 3.0), True)
    assert decision.suspicious.all()


@pytest.mark.parametrize("level", [Level.WATCH, Level.SUSPECT, Level.HOSTILE])
@pytest.mark.parametrize("action", ["allow", "degrade", "purify", "deny"])
def test_what_a_level_means_is_the_policys_to_say(level: Level, action: str) -> None:
    others = {f"on_{other.name.lower()}": "allow" for other in Level if other is not Level.CLEAR}
    policy = others | {f"on_{level.name.lower()}": action}
    engine = engine_of(monitors=OVERLAP, purifiers=HALVE, outputs=UNIFORM, policy=policy)
    decision = decide(engine, GOOD, GOOD, history=History((Match(), Match()), caller=of_level(level)))
    assert decision.level is level
    assert decision.action is decision.would_be is Action(action)
    assert decision.suspicious.tolist() == [action != "allow"] * 2
    assert (decision.x is not None) == (action == "purify")


@pytest.mark.parametrize(
    ("values", "action"),
    [
        ({}, "deny"),
        ({"purifiers": HALVE}, "purify"),
        ({"purifiers": HALVE, "outputs": UNIFORM}, "purify"),
        ({"purifiers": [{"stage": "test_halve", "when": "always"}]}, "deny"),
        ({"purifiers": [{"stage": "test_halve", "mode": "shadow"}]}, "deny"),
        ({"outputs": [{"stage": "test_uniform", "degree": 3}]}, "degrade"),
        ({"outputs": [{"stage": "test_uniform", "when": "always"}]}, "deny"),
        ({"outputs": [{"stage": "test_uniform", "mode": "shadow"}]}, "deny"),
        ({"purifiers": HALVE, "policy": {"on_input": "deny"}}, "deny"),
    ],
)
def test_by_default_a_flagged_input_meets_with_the_mildest_that_helps(values: Any, action: str) -> None:
    assert decide(engine_of(detectors=MEAN, **values), BAD).action is Action(action)


@pytest.mark.parametrize(("degree", "action"), [(1, "degrade"), (2, "degrade"), (3, "allow")])
def test_by_default_a_suspect_caller_gets_less_where_something_can(degree: int, action: str) -> None:
    engine = engine_of(monitors=OVERLAP, outputs=[{"stage": "test_uniform", "degree": degree}])
    history = History((Match(),), caller=of_level(Level.SUSPECT))
    assert decide(engine, GOOD, history=history).action is Action(action)


def test_by_default_only_hostile_callers_are_acted_upon() -> None:
    engine = engine_of(monitors=OVERLAP)
    for level in Level:
        decision = decide(engine, GOOD, history=History((Match(),), caller=of_level(level)))
        assert decision.action is (Action.DENY if level is Level.HOSTILE else Action.ALLOW)
        assert (alert_of(decision) is None) == (level is Level.CLEAR)


@pytest.mark.parametrize(("model", "stage"), [("shadow", "enforce"), ("enforce", "shadow"), ("shadow", "shadow")])
def test_monitors_in_shadow_never_act(model: str, stage: str) -> None:
    engine = engine_of(mode=model, monitors=[{"stage": "test_overlap", "mode": stage}])
    decision = decide(engine, GOOD, history=History((Match(),), caller=of_level(Level.HOSTILE)))
    assert (decision.action, decision.would_be, decision.level) == (Action.ALLOW, Action.DENY, Level.HOSTILE)
    assert not decision.suspicious.any()


def test_a_monitor_in_shadow_does_not_make_a_caller_hostile_where_another_enforces() -> None:
    twins = profile_of(
        {
            ("monitor", "test_overlap"): (OverlapMonitor(), np.zeros(999)),
            ("monitor", "test_budget"): (BudgetMonitor(), np.zeros(999)),
        }
    )
    engine = engine_of(twins, monitors=[{"stage": "test_overlap", "mode": "shadow"}, {"stage": "test_budget"}])
    decision = decide(engine, GOOD, history=History((Match(),), caller=replace(of_level(Level.HOSTILE), alert=Alert())))
    assert (decision.action, decision.would_be, decision.level) == (Action.ALLOW, Action.ALLOW, Level.CLEAR)


def test_outside_the_canary_a_hostile_caller_is_told_of_alone() -> None:
    history = History((Match(),), caller=of_level(Level.HOSTILE))
    decision = decide(engine_of(monitors=OVERLAP, canary=0.0), GOOD, history=history)
    assert (decision.action, decision.would_be, decision.level) == (Action.ALLOW, Action.DENY, Level.HOSTILE)
    assert decide(engine_of(monitors=OVERLAP, canary=1.0), GOOD, history=history).action is Action.DENY


def test_a_retry_is_no_evidence() -> None:
    matches = (Match(4, duplicate=True, number=1), Match(0, number=2))
    decision = decide(engine_of(monitors=OVERLAP), GOOD, GOOD, matches=matches)
    assert decision.update.evidence == {"test_overlap": (1.0,)}


def test_sketches_may_be_given_or_made() -> None:
    engine = engine_of(monitors=OVERLAP)
    query, history = engine.admit(query_of(GOOD)), History((Match(),))
    given, made = engine.decide(query, history, engine.sketch(query)), engine.decide(query, history)
    assert given.findings == made.findings
    assert given.seen[0].sketch.digest == made.seen[0].sketch.digest
    assert engine_of().sketch(query) == ()


@pytest.mark.parametrize(
    ("broken", "error"), [("raise", "RuntimeError"), ("count", "returned shape (0,) for 1 rows"), ("", "no history")]
)
@pytest.mark.parametrize(("on_error", "action"), [("allow", Action.ALLOW), ("deny", Action.DENY)])
def test_a_monitor_that_fails(broken: str, error: str, on_error: str, action: Action) -> None:
    profile = profile_of({("monitor", "test_overlap"): (OverlapMonitor(broken), np.zeros(99))})
    monitors = [{"stage": "test_overlap", "on_error": on_error, "options": {"broken": broken}}]
    decision = engine_of(profile, monitors=monitors).decide(query_of(GOOD), History((Match(),)) if broken else None)
    assert decision.findings[0].error == error
    assert decision.update.empty
    assert decision.action is action


def test_a_history_of_other_rows_is_none() -> None:
    decision = engine_of(monitors=OVERLAP).decide(query_of(GOOD), History((Match(), Match())))
    assert decision.findings[0].error == "no history"


def test_where_rows_cannot_be_sketched_there_is_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Any) -> Any:
        raise ValueError("an unfit network")

    engine = engine_of(monitors=[{"stage": "test_overlap", "on_error": "deny"}])
    monkeypatch.setattr(engine._watching, "sketch", fails)
    assert engine.sketch(query_of(GOOD)) == ()
    decision = decide(engine, GOOD)
    assert (decision.findings[0].error, decision.action) == ("no history", Action.DENY)


# --- purifiers


def test_suspicious_rows_are_purified_and_only_they() -> None:
    decision = decide(engine_of(detectors=MEAN, purifiers=HALVE, policy={"on_input": "purify"}), GOOD, BAD)
    assert decision.action is Action.PURIFY
    assert decision.x is not None
    assert decision.x.dtype == np.float32
    np.testing.assert_allclose(decision.x, [GOOD, [0.45] * 4])
    clean = decide(engine_of(detectors=MEAN, purifiers=HALVE, policy={"on_input": "purify"}), GOOD)
    assert clean.x is None


def test_purifiers_that_always_act_act_in_order_on_every_row() -> None:
    always = [{"stage": "test_halve", "when": "always"}]
    decision = decide(engine_of(purifiers=always), GOOD)
    assert decision.action is Action.ALLOW
    np.testing.assert_allclose(decision.x, [[0.05] * 4])
    shadow = [{"stage": "test_halve", "when": "always", "mode": "shadow"}]
    assert decide(engine_of(purifiers=shadow), GOOD).x is None


def test_an_engine_is_light_where_all_its_stages_are_and_none_looks_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_of().light
    assert not engine_of(purifiers=HALVE).light
    assert not engine_of(monitors=OVERLAP).light
    monkeypatch.setattr(registry.lookup("purifier", "test_halve"), "light", True, raising=False)
    monkeypatch.setattr(registry.lookup("monitor", "test_overlap"), "light", True, raising=False)
    assert engine_of(purifiers=HALVE).light
    assert not engine_of(monitors=OVERLAP).light


def test_a_caller_under_suspicion_has_all_rows_purified() -> None:
    engine = engine_of(monitors=OVERLAP, purifiers=HALVE, policy={"on_hostile": "purify"})
    decision = decide(engine, GOOD, GOOD, history=History((Match(4), Match(4)), caller=of_level(Level.HOSTILE)))
    np.testing.assert_allclose(decision.x, [[0.05] * 4] * 2)


@pytest.mark.parametrize(("on_error", "action"), [("allow", Action.PURIFY), ("deny", Action.DENY)])
def test_a_purifier_that_fails(on_error: str, action: Action) -> None:
    purifiers = [{"stage": "test_broken", "on_error": on_error}, *HALVE]
    decision = decide(engine_of(detectors=MEAN, purifiers=purifiers, policy={"on_input": "purify"}), BAD)
    assert decision.findings[-1].error == "returned NaN or infinity"
    assert decision.action is action
    assert (decision.x is not None) == (action is Action.PURIFY)


def standby_engine(**values: Any) -> Engine:
    return engine_of(**{"detectors": VIEWS, "purifiers": HALVE, "policy": {"on_input": "purify"}} | values)


def test_a_standby_is_answered_with_if_a_view_detector_fires() -> None:
    engine = standby_engine()
    decision = decide(engine, BAD)
    np.testing.assert_allclose(decision.standby, [[0.45] * 4])
    fired = conclude(engine, decision, views=(Y[1:2],), standby=Y[:1])
    assert (fired.action, fired.use_standby, fired.y) == (Action.PURIFY, True, None)
    quiet = conclude(engine, decision, views=(Y[:1],), standby=Y[:1])
    assert (quiet.action, quiet.use_standby) == (Action.ALLOW, False)


@pytest.mark.parametrize(("on_error", "action"), [("allow", Action.PURIFY), ("deny", Action.DENY)])
def test_a_standby_without_an_answer(on_error: str, action: Action) -> None:
    engine = standby_engine(purifiers=[{"stage": "test_halve", "on_error": on_error}])
    result = conclude(engine, decide(engine, BAD), views=(Y[1:2],))
    assert result.findings[-1].error == "no answer to the purified input"
    assert (result.action, result.use_standby) == (action, False)


def test_a_standby_is_not_made_where_it_is_not_needed() -> None:
    assert decide(standby_engine(policy={"on_input": "deny"}), BAD).standby is None
    assert decide(standby_engine(detectors=[*MEAN, *VIEWS]), BAD).standby is None  # already purified
    assert decide(standby_engine(purifiers=[{"stage": "test_halve", "mode": "shadow"}]), BAD).standby is None


@pytest.mark.parametrize(("on_error", "action"), [("allow", Action.ALLOW), ("deny", Action.DENY)])
def test_a_standby_that_cannot_be_made(on_error: str, action: Action) -> None:
    decision = decide(standby_engine(purifiers=[{"stage": "test_broken", "on_error": on_error}]), BAD)
    assert decision.action is action
    assert decision.standby is None
    assert bool(decision.views) == (action is Action.ALLOW)


# --- outputs


def test_suspicious_rows_are_degraded_and_only_they() -> None:
    engine = engine_of(detectors=MEAN, outputs=UNIFORM, policy={"on_input": "degrade"})
    result = conclude(engine, decide(engine, BAD, GOOD))
    assert result.action is Action.DEGRADE
    assert result.y is not None
    assert result.y.dtype == np.float32
    np.testing.assert_allclose(result.y[0], [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_array_equal(result.y[1], Y[1])
    assert conclude(engine, decide(engine, GOOD, GOOD)).y is None


def test_an_output_that_always_protects_holds_the_answer() -> None:
    engine = engine_of(outputs=[{"stage": "test_uniform", "when": "always"}])
    decision = decide(engine, GOOD)
    assert decision.waits
    assert engine.reads_answers
    result = conclude(engine, decision)
    assert result.action is Action.ALLOW
    np.testing.assert_allclose(result.y, [[1 / 3] * 3], rtol=1e-6)


def test_an_output_whose_noise_is_keyed_sees_the_inputs_as_they_came() -> None:
    engine = engine_of(detectors=MEAN, outputs=[{"stage": "test_echo"}], policy={"on_input": "degrade"})
    decision = decide(engine, BAD, GOOD)
    unit = decision.query.unit
    assert unit is not None
    result = conclude(engine, decision)
    assert result.y is not None
    np.testing.assert_allclose(result.y[0, :2], [unit[0, 0], 1 - unit[0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(result.y[1], Y[1])


@pytest.mark.parametrize("stage", ["test_broken", "test_wrong_shape"])
@pytest.mark.parametrize(("on_error", "action"), [("allow", Action.ALLOW), ("deny", Action.DENY)])
def test_an_output_that_fails(stage: str, on_error: str, action: Action) -> None:
    engine = engine_of(outputs=[{"stage": stage, "when": "always", "on_error": on_error}])
    result = conclude(engine, decide(engine, GOOD))
    assert result.findings[-1].error is not None
    assert result.action is action
    assert result.y is None


@pytest.mark.parametrize("y", [None, np.array([[np.nan] * 3]), np.zeros((0, 3))])
def test_an_answer_that_cannot_be_protected(y: Any) -> None:
    engine = engine_of(outputs=[{"stage": "test_uniform", "when": "always", "on_error": "deny"}])
    assert conclude(engine, decide(engine, GOOD), y=y).action is Action.DENY


# --- errors and misfits


@pytest.mark.parametrize(
    ("how", "error"),
    [("raise", "RuntimeError"), ("nan", "returned NaN or infinity"), ("shape", "returned shape (1, 2) for 1 rows")],
)
@pytest.mark.parametrize(("on_error", "action"), [("allow", Action.ALLOW), ("deny", Action.DENY)])
def test_a_detector_that_fails(how: str, error: str, on_error: str, action: Action) -> None:
    profile = profile_of({("detector", "test_broken"): (BrokenDetector(how), CLEAN)})
    detectors = [{"stage": "test_broken", "on_error": on_error, "options": {"how": how}}]
    decision = decide(engine_of(profile, detectors=detectors), GOOD)
    assert decision.findings[0].error == error  # the text of a foreign exception stays inside
    assert decision.action is action
    shadow = decide(engine_of(profile, mode="shadow", detectors=detectors), GOOD)
    assert (shadow.action, shadow.would_be) == (Action.ALLOW, action)


def test_view_detectors_that_fail_and_must_not() -> None:
    engine = engine_of(detectors=[{"stage": "test_broken_views", "on_error": "deny"}])
    assert decide(engine, GOOD).action is Action.DENY


def test_stages_that_cannot_serve_the_model_are_refused() -> None:
    with pytest.raises(ProfileError, match=r"labels only, which test_views, test_uniform cannot"):
        engine_of(replace(PROFILE, meaning="labels"), detectors=VIEWS, outputs=UNIFORM)
    images = profile_of({("detector", "test_images"): (ImagesOnly(), CLEAN)})
    with pytest.raises(ProfileError, match="images only, and the model takes vectors"):
        engine_of(images, detectors=[{"stage": "test_images"}])
    square = Space("flat", (0.0,), (1.0,), certain=True, image_shape=(2, 2, 1))
    fine = replace(images, space=square)
    assert decide(engine_of(fine, detectors=[{"stage": "test_images"}]), GOOD).action is Action.ALLOW


def test_settings_of_a_stage_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"purifiers\.0\.stage"):
        engine_of(purifiers=[{"stage": "nope"}])


# --- properties


def test_all_shadow_is_the_identity_and_a_stage_more_never_softens() -> None:
    """Over every mix of modes and inputs: shadow changes nothing; adding a detector never turns a denial around."""
    rng = np.random.default_rng(5)
    for mean, views in itertools.product(("off", "shadow", "enforce"), repeat=2):
        detectors = [{"stage": "test_mean", "mode": mean}, {"stage": "test_views", "mode": views}]
        fewer, more = engine_of(detectors=detectors[:1]), engine_of(detectors=detectors)
        shadow = engine_of(mode="shadow", detectors=detectors, purifiers=HALVE, outputs=UNIFORM)
        for _ in range(20):
            row, view = rng.random(4).tolist(), rng.dirichlet([1, 1, 1], 1)
            one, two, three = (conclude(e, decide(e, row), views=(view,)) for e in (fewer, more, shadow))
            if mean == "enforce" and one.findings[0].p_value <= 0.05:  # fires at half the budget too
                assert two.action is Action.DENY
            assert three.action is Action.ALLOW
            assert three.y is None
            assert three.decision.x is None


def test_an_empty_batch_is_allowed() -> None:
    engine = engine_of(detectors=[*MEAN, *VIEWS], outputs=[{"stage": "test_uniform", "when": "always"}])
    empty = np.zeros((0, 4), np.float32)
    decision = engine.decide(Query(empty, "c", "m", "d"), None)
    result = engine.conclude(decision, Answer(np.zeros((0, 3)), (np.zeros((0, 3)),)))
    assert result.action is Action.ALLOW
    assert result.y is None


# --- graded responses


UNTIL = "2027-01-01T00:00:00Z"
EXEMPT = {"caller": "peer:1", "until": UNTIL, "reason": "a test of the whole", "approved_by": ["ann", "bob"]}


def test_several_things_are_done_about_one_finding() -> None:
    policy = {"on_input": ["degrade", "delay", "throttle"]}
    engine = engine_of(detectors=MEAN, outputs=UNIFORM, policy=policy)
    decision = decide(engine, BAD, GOOD)
    assert decision.responses == {Action.ALLOW, Action.DEGRADE, Action.DELAY, Action.THROTTLE}
    assert decision.action is Action.THROTTLE
    assert decision.would_be is Action.THROTTLE
    result = conclude(engine, decision)
    assert result.y is not None
    np.testing.assert_allclose(result.y[0], [1 / 3] * 3, rtol=1e-6)
    assert decide(engine, GOOD).responses == {Action.ALLOW}


def test_once_it_is_settled_that_a_response_need_not_be_the_next_severest_is_the_action() -> None:
    engine = engine_of(detectors=MEAN, outputs=UNIFORM, policy={"on_input": ["degrade", "throttle"]})
    settled = without(decide(engine, BAD), Action.THROTTLE)
    assert settled.action is Action.DEGRADE
    assert settled.responses == {Action.ALLOW, Action.DEGRADE}
    assert without(without(settled, Action.DEGRADE), Action.ALLOW).action is Action.ALLOW


@pytest.mark.parametrize(("degree", "degraded"), [(1, True), (3, True)])
def test_a_flagged_input_is_degraded_to_the_full(degree: int, degraded: bool) -> None:
    outputs = [{"stage": "test_uniform", "degree": degree}]
    engine = engine_of(detectors=MEAN, outputs=outputs, policy={"on_input": "degrade"})
    decision = decide(engine, BAD, GOOD)
    assert decision.degrees.tolist() == [3, 0]
    assert (conclude(engine, decision).y is not None) is degraded


@pytest.mark.parametrize(
    ("caller", "now", "action"),
    [
        ("peer:1", 1_790_000_000.0, Action.ALLOW),
        ("peer:1", 1_800_000_000.0, Action.DENY),
        ("peer:2", 1_790_000_000.0, Action.DENY),
    ],
)
def test_for_an_exempt_caller_nothing_is_enforced_until_his_day(caller: str, now: float, action: Action) -> None:
    engine = engine_of(detectors=MEAN, policy={"exempt": [EXEMPT]})
    decision = engine.decide(replace(query_of(BAD, caller=caller), now=now), History((Match(),)))
    assert (decision.action, decision.would_be) == (action, Action.DENY)
    assert decision.enforced is engine.enforces_for(caller, now) is (action is Action.DENY)


# --- challenges


def test_everybody_is_challenged_where_the_policy_says_so() -> None:
    engine = engine_of(detectors=MEAN, policy={"on_clear": "challenge", "on_input": "deny"})
    decision = decide(engine, GOOD)
    assert (decision.action, decision.would_be) == (Action.CHALLENGE, Action.CHALLENGE)
    paid = without(decision, Action.CHALLENGE)
    assert paid.action is Action.ALLOW
    assert conclude(engine, paid).action is Action.ALLOW  # nothing is asked for twice
    assert decide(engine, BAD).action is Action.DENY
    assert decide(engine_of(detectors=MEAN), GOOD).would_be is Action.ALLOW


def test_in_shadow_and_for_the_exempt_nobody_is_challenged() -> None:
    for values in ({"mode": "shadow"}, {"canary": 0.0}):
        decision = decide(engine_of(detectors=MEAN, policy={"on_clear": "challenge"}, **values), GOOD)
        assert (decision.action, decision.would_be) == (Action.ALLOW, Action.CHALLENGE)
    engine = engine_of(policy={"on_clear": "challenge", "exempt": [EXEMPT]})
    assert engine.decide(replace(query_of(GOOD), now=1_790_000_000.0), None).action is Action.ALLOW


def test_foreseen_is_what_asks_for_proof_and_nothing_to_keep() -> None:
    engine = engine_of(detectors=MEAN, monitors=OVERLAP, policy={"on_clear": "challenge"})
    foreseen = engine.foresee(query_of(BAD), History((Match(),)), engine.sketch(query_of(BAD)))
    assert foreseen.action is Action.CHALLENGE
    assert (foreseen.seen, foreseen.update.empty) == ((), True)
    assert [f.stage for f in foreseen.findings] == ["test_overlap"]  # detectors change nothing about it
    flagged = engine_of(detectors=MEAN, policy={"on_input": "challenge"})
    assert flagged.foresee(query_of(BAD), None, ()).action is Action.CHALLENGE
    assert flagged.foresee(query_of(GOOD), None, ()).action is Action.ALLOW


@pytest.mark.parametrize(
    ("mode", "level", "rows", "progress"),
    [
        ("enforce", Level.CLEAR, 0, 0.0),
        ("enforce", Level.CLEAR, 20, 0.0),
        ("enforce", Level.CLEAR, 40, 0.25),
        ("enforce", Level.CLEAR, 400, 1.0),
        ("enforce", Level.SUSPECT, 40, 2 / 3),
        ("shadow", Level.CLEAR, 40, 0.0),  # what is in shadow does nothing, makes no price either
    ],
)
def test_progress_is_the_estimate_or_the_level(mode: str, level: Level, rows: int, progress: float) -> None:
    profile = profile_of(
        {
            ("monitor", "test_overlap"): (OverlapMonitor(), np.zeros(999)),
            ("monitor", "test_agreement"): (AgreementMonitor(), np.zeros(999)),
        }
    )
    monitors = [*OVERLAP, {"stage": "test_agreement", "mode": mode}]
    engine = engine_of(profile, monitors=monitors, challenge={"grows_from": 0.2})
    alarm = -math.log(next(stage.threshold for stage in engine.stages if stage.name == "test_overlap"))
    evidence = {"test_overlap": Evidence(1, (0.8 * alarm,) * 4)} if level is Level.SUSPECT else {}
    past = Past(evidence, Alert(level), rows=rows)
    decision = decide(engine, GOOD, history=History((Match(),), caller=past))
    assert decision.level is level
    assert decision.progress == pytest.approx(progress)


class TestBits:
    """Information in answers: log2 of the number of classes a row, and the entropy of what leaves."""

    def test_what_leaves_is_counted_not_what_the_model_said(self) -> None:
        plain = engine_of(budget={"bits_per_day": 100})
        assert plain.reads_answers
        label = np.log2(3)
        sure, even = np.array([[1.0, 0.0, 0.0]]), np.full((1, 3), 1 / 3)
        assert conclude(plain, decide(plain, GOOD), y=sure).bits == pytest.approx(label)
        assert conclude(plain, decide(plain, GOOD), y=even).bits == pytest.approx(2 * label)
        outputs = [{"stage": "test_uniform", "when": "always"}]
        protected = engine_of(outputs=outputs, budget={"bits_per_day": 100})
        assert conclude(protected, decide(protected, GOOD), y=sure).bits == pytest.approx(2 * label)

    def test_what_cannot_be_read_counts_as_the_most(self) -> None:
        engine = engine_of(budget={"bits_per_day": 100})
        decision = decide(engine, GOOD, GOOD)
        assert engine.most_bits(2) == pytest.approx(4 * np.log2(3))
        assert engine.least_bits(2) == pytest.approx(2 * np.log2(3))
        assert conclude(engine, decision, y=None).bits == pytest.approx(engine.most_bits(2))

    def test_nobody_counts_where_nobody_asks_and_a_denial_tells_nothing(self) -> None:
        engine = engine_of(outputs=UNIFORM, detectors=MEAN, policy={"on_input": "degrade"})
        assert engine.most_bits(2) == engine.least_bits(2) == 0
        assert conclude(engine, decide(engine, GOOD)).bits == 0
        counting = engine_of(
            outputs=[{"stage": "test_broken", "when": "always", "on_error": "deny"}], budget={"bits_per_day": 1}
        )
        assert conclude(counting, decide(counting, GOOD)).bits == 0

    def test_of_a_model_of_labels(self) -> None:
        engine = engine_of(profile_of({}, meaning="labels"), budget={"bits_per_day": 100})
        assert conclude(engine, decide(engine, GOOD), y=np.array([1])).bits == pytest.approx(np.log2(3))


def test_it_says_whether_there_is_anything_to_look_up() -> None:
    assert engine_of(monitors=OVERLAP).remembers
    assert not engine_of(detectors=MEAN).remembers
