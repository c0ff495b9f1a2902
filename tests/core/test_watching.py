"""What monitors make of a query and of its caller: windows, answers, clusters, cohorts, alerts, and what is kept."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from guard.assembly import AMONG
from guard.engine import Engine
from guard.evidence import Evidence
from guard.types import (
    Action,
    Alert,
    Answer,
    Component,
    Conclusion,
    Decision,
    History,
    Level,
    Match,
    Neighbour,
    Past,
    Query,
    Recent,
)
from guard.watching import MONTH_S, repeats, unanswered
from tests.core.helpers import (
    BudgetMonitor,
    ClusterMonitor,
    OneClassMonitor,
    OverlapMonitor,
    UnsureMonitor,
    model_of,
    profile_of,
)

pytestmark = pytest.mark.usefixtures("stages")

IMPLS: Mapping[str, Any] = {
    "overlap": OverlapMonitor(),
    "cluster": ClusterMonitor(),
    "unsure": UnsureMonitor(),
    "one_class": OneClassMonitor(),
    "budget": BudgetMonitor(),
}
CLEAN: Mapping[str, Any] = {
    "overlap": np.zeros(999),
    "cluster": np.concatenate([np.zeros(900), np.linspace(0.4, 0.5, 99)]),
    "unsure": np.linspace(0.0, 0.5, 999),
    "one_class": np.linspace(0.1, 0.5, 999),
    "budget": np.zeros(1),
}
ROW, OTHER = [0.1, 0.9, 0.3, 0.6], [0.8, 0.2, 0.7, 0.1]
SURE, UNSURE = [1.0, 0.0, 0.0], [0.4, 0.3, 0.3]
NOW = 1_000_000.0


def engine_of(*names: str, meaning: str = "probabilities", options: Any = None, **values: Any) -> Engine:
    fits = {("monitor", f"test_{name}"): (IMPLS[name], CLEAN[name]) for name in names}
    monitors = [{"stage": f"test_{name}"} | (options or {}) for name in names]
    return Engine(model_of(monitors=monitors, **values), profile_of(fits, meaning=meaning), b"a secret of 16 bytes")


def decide(engine: Engine, *rows: list[float], now: float = NOW, matches: Any = (), **history: Any) -> Decision:
    found = matches or tuple(Match(number=i) for i in range(len(rows)))
    query = Query(np.array(rows, np.float32), "peer:1", "m", "d1", now=now)
    return engine.decide(query, History(found, **history))


def conclude(engine: Engine, decision: Decision, *answers: Any) -> Conclusion:
    return engine.conclude(decision, Answer(np.array(answers, np.float32) if answers else None))


def found(of: Decision | Conclusion, stage: str) -> Any:
    return next(f for f in of.findings if f.stage == stage)


def against(*p_values: float) -> Evidence:
    return Evidence().add(p_values)


def recent_of(*labels: int) -> Recent:
    return Recent(
        np.zeros((len(labels), 48), np.float32),
        np.zeros((len(labels), 0), np.float32),
        np.array(labels, np.int64),
        np.full(len(labels), 0.9),
        np.ones(len(labels), np.bool_),
    )


class TestWindows:
    def test_a_window_is_judged_once_so_many_rows_were_answered(self) -> None:
        engine = engine_of("one_class")
        decision = decide(engine, ROW, caller=Past(rows=8, recent=recent_of(*[2] * 9)))
        ((rows, p),) = decision.update.judged.values()
        assert (rows, p) == (8, pytest.approx(0.001))
        finding = found(decision, "test_one_class")
        assert finding.scores == (1.0,)
        assert finding.p_values == (pytest.approx(against(p).p_value),)
        assert decision.update.evidence == {}  # else it would count twice

    @pytest.mark.parametrize(
        "past",
        [
            Past(),
            Past(rows=7, recent=recent_of(*[2] * 7)),
            Past(rows=15, judged={"test_one_class": 8}, recent=recent_of(*[2] * 15)),
            Past(rows=20, recent=recent_of(*[2] * 3)),  # the store has forgotten them
        ],
    )
    def test_before_that_nothing_is_added_and_what_is_known_is_told(self, past: Past) -> None:
        decision = decide(engine_of("one_class"), ROW, caller=replace(past, evidence={"test_one_class": against(1e-4)}))
        assert decision.update.judged == {}
        assert found(decision, "test_one_class").p_values == (pytest.approx(against(1e-4).p_value),)

    def test_windows_add_up_until_the_caller_is_hostile(self) -> None:
        past = Past(
            {"test_one_class": against(0.001)}, rows=16, judged={"test_one_class": 8}, recent=recent_of(*[1] * 8)
        )
        decision = decide(engine_of("one_class"), ROW, caller=past)
        assert decision.level is Level.SUSPECT
        past = replace(past, evidence={"test_one_class": against(0.001, 0.001)})
        decision = decide(engine_of("one_class"), ROW, caller=past)
        assert (decision.level, decision.action) == (Level.HOSTILE, Action.DENY)

    @pytest.mark.parametrize(("on_error", "action"), [("allow", Action.ALLOW), ("deny", Action.DENY)])
    def test_one_that_fails(self, on_error: str, action: Action) -> None:
        fits = {("monitor", "test_one_class"): (OneClassMonitor(broken=True), CLEAN["one_class"])}
        entry = {"stage": "test_one_class", "on_error": on_error, "options": {"broken": True}}
        engine = Engine(model_of(monitors=[entry]), profile_of(fits), b"a secret of 16 bytes")
        decision = decide(engine, ROW, caller=Past(rows=8, recent=recent_of(*[2] * 8)))
        assert found(decision, "test_one_class").error == "returned NaN or infinity"
        assert decision.update.judged == {}
        assert decision.action is action


class TestAnswers:
    def test_they_are_judged_once_they_are_there_and_kept(self) -> None:
        engine = engine_of("unsure")
        assert engine.reads_answers
        decision = decide(engine, ROW, OTHER)
        assert decision.findings == ()
        assert not decision.waits  # the answer need not be held for it
        result = conclude(engine, decision, UNSURE, SURE)
        assert result.update.evidence == {"test_unsure": (pytest.approx(0.001), 1.0)}
        assert found(result, "test_unsure").p_values == (pytest.approx(against(0.001, 1.0).p_value),)
        kept = result.update.answered
        assert [(row.number, row.label, row.confidence) for row in kept] == [(0, 0, pytest.approx(0.4)), (1, 0, 1.0)]
        np.testing.assert_array_equal(kept[0].position, decision.seen[0].sketch.position)

    def test_evidence_comes_on_top_of_what_is_known(self) -> None:
        engine = engine_of("unsure")
        past = Past({"test_unsure": against(0.01)})
        result = conclude(engine, decide(engine, ROW, caller=past), UNSURE)
        assert found(result, "test_unsure").p_values == (pytest.approx(against(0.01, 0.001).p_value),)
        assert result.action is Action.ALLOW  # his level is for his next query

    def test_a_caller_is_hostile_from_the_query_after(self) -> None:
        past = Past({"test_unsure": against(*[0.001] * 4)})
        decision = decide(engine_of("unsure"), ROW, caller=past)
        assert (decision.level, decision.action) == (Level.HOSTILE, Action.DENY)

    def test_retries_are_neither_judged_nor_kept(self) -> None:
        engine = engine_of("unsure")
        matches = (Match(9, duplicate=True, number=0), Match(number=1))
        result = conclude(engine, decide(engine, ROW, OTHER, matches=matches), UNSURE, SURE)
        assert result.update.evidence == {"test_unsure": (1.0,)}
        assert [row.number for row in result.update.answered] == [1]

    @pytest.mark.parametrize("answers", [(), (SURE, SURE), ([np.nan] * 3,)])
    def test_without_an_answer_rows_are_the_callers_all_the_same(self, answers: Any) -> None:
        engine = engine_of("unsure")
        result = conclude(engine, decide(engine, ROW), *answers)
        assert found(result, "test_unsure").error == "no answer to look at"
        assert result.update.evidence == {}
        ((kept),) = result.update.answered
        assert (kept.number, kept.label) == (0, -1)
        assert math.isnan(kept.confidence)

    def test_labels_are_answers_to_monitors(self) -> None:
        engine = engine_of("overlap", meaning="labels")
        result = engine.conclude(decide(engine, ROW), Answer(np.array([2])))
        assert [(row.label, row.confidence) for row in result.update.answered] == [(2, 1.0)]

    @pytest.mark.parametrize("y", [np.array([3]), np.array([-1.0]), np.array([np.nan]), None])
    def test_what_is_no_label_is_no_answer(self, y: Any) -> None:
        engine = engine_of("overlap", meaning="labels")
        result = engine.conclude(decide(engine, ROW), Answer(y))
        ((kept),) = result.update.answered
        assert kept.label == -1
        assert math.isnan(kept.confidence)

    def test_a_denied_query_adds_nothing_more(self) -> None:
        engine = engine_of("unsure")
        decision = decide(engine, ROW, caller=Past({"test_unsure": against(1e-12)}))
        assert conclude(engine, decision, UNSURE).update.empty

    def test_the_unanswered(self) -> None:
        matches = (Match(9, duplicate=True, number=0), Match(number=1))
        decision = decide(engine_of("overlap"), ROW, OTHER, matches=matches)
        assert [(row.number, row.label) for row in unanswered(decision.seen).answered] == [(1, -1)]

    def test_without_monitors_there_is_nothing_to_tell(self) -> None:
        engine = Engine(model_of(), profile_of({}), b"a secret of 16 bytes")
        assert not engine.reads_answers
        assert conclude(engine, decide(engine, ROW), SURE).update.empty


def test_an_overlap_is_no_surprise_in_a_full_store() -> None:
    impl, clean = IMPLS["overlap"], np.concatenate([np.zeros(900), np.full(99, 3.0)])
    profile = profile_of({("monitor", "test_overlap"): (impl, clean)})
    fit = profile.stages["monitor/test_overlap"]
    profile = replace(profile, stages={"monitor/test_overlap": replace(fit, arrays={AMONG: np.array([100.0])})})
    engine = Engine(model_of(monitors=[{"stage": "test_overlap"}]), profile, b"a secret of 16 bytes")
    few, many, own = (
        decide(engine, ROW, matches=(Match(3, number=1),), entries=n, caller=Past(rows=rows))
        for n, rows in ((100, 0), (10_000, 0), (10_000, 9_900))  # who sends much makes nothing nearer
    )
    assert own.update.evidence == few.update.evidence
    assert few.update.evidence["test_overlap"][0] == pytest.approx(0.1)
    assert many.update.evidence["test_overlap"][0] == pytest.approx(1.0, abs=1e-3)


class TestClusters:
    HOSTILE = Component(against(*[1e-9] * 20), rows=20, owners=3)

    @staticmethod
    def near(engine: Engine, row: list[float], number: int, component: int = 7, step: float = 0.01) -> Match:
        """A match of a row with an earlier one so far away."""
        (sketch,) = engine.sketch(Query(np.array([row], np.float32), "c", "m", "d"))
        earlier = Neighbour(component, 5, sketch.position + np.float32(step), component, 0, b"somebody")
        return Match(5, number=number, neighbours=(earlier,))

    def test_what_joins_one_is_credited_to_it_and_not_to_the_caller(self) -> None:
        engine = engine_of("cluster")
        matches = (self.near(engine, ROW, 20), Match(number=21))
        decision = decide(engine, ROW, OTHER, matches=matches, components={7: Component()}, joined=4)
        assert decision.update.joins == {20: 7}
        ((number, p_values),) = decision.update.components.items()
        assert (number, len(p_values)) == (7, 1)
        assert 0 < p_values[0] < 1
        assert decision.update.evidence == {}
        assert decision.action is Action.ALLOW
        assert decision.level is Level.CLEAR

    def test_a_hostile_cluster_tells_against_the_query_that_joins_it_and_not_of_its_caller(self) -> None:
        engine = engine_of("cluster", policy={"on_hostile": "degrade"}, outputs=[{"stage": "test_uniform"}])
        matches = (Match(number=20), self.near(engine, OTHER, 21))
        decision = decide(engine, ROW, OTHER, matches=matches, components={7: self.HOSTILE}, joined=19)
        assert decision.action is Action.DEGRADE
        assert decision.suspicious.tolist() == [True, True]
        assert decision.level is Level.CLEAR  # of the caller nothing is said
        assert found(decision, "test_cluster").p_values[0] == 1.0
        denied = decide(engine_of("cluster"), OTHER, matches=matches[1:], components={7: self.HOSTILE}, joined=19)
        assert denied.action is Action.DENY

    def test_what_follows_is_drawn_and_lasts_whatever_is_sent(self) -> None:
        engine = engine_of("cluster", policy={"lag_rows": 8})
        past, denied = Past(), {True: 0, False: 0}
        for i in range(400):
            joins = i % 2 == 0
            matches = (self.near(engine, OTHER, 21) if joins else Match(number=20),)
            query = Query(np.array([OTHER], np.float32), "peer:1", "m", f"d{i}", now=NOW)
            decision = engine.decide(
                query, History(matches, caller=past, components={7: self.HOSTILE} if joins else {}, joined=19)
            )
            assert decision.level is Level.CLEAR
            denied[joins] += decision.action is Action.DENY
            past = replace(past, alert=decision.update.applied(past.alert))
        assert 140 < denied[True] < 200  # of 200
        assert 110 < denied[False] < denied[True]  # nothing speaks against these

    def test_in_shadow_it_is_told(self) -> None:
        engine = engine_of("cluster", mode="shadow")
        matches = (self.near(engine, ROW, 21),)
        decision = decide(engine, ROW, matches=matches, components={7: self.HOSTILE}, joined=19)
        assert (decision.action, decision.would_be) == (Action.ALLOW, Action.DENY)
        assert not decision.suspicious.any()

    def test_in_shadow_beside_one_that_enforces_it_is_told(self) -> None:
        monitors = [{"stage": "test_cluster", "mode": "shadow"}, {"stage": "test_overlap"}]
        fits = {("monitor", f"test_{name}"): (IMPLS[name], CLEAN[name]) for name in ("cluster", "overlap")}
        engine = Engine(model_of(monitors=monitors), profile_of(fits), b"a secret of 16 bytes")
        matches = (self.near(engine, ROW, 21),)
        decision = decide(engine, ROW, matches=matches, components={7: self.HOSTILE}, joined=19)
        assert (decision.action, decision.would_be) == (Action.ALLOW, Action.DENY)

    def test_rows_of_one_query_join_one_another(self) -> None:
        engine = engine_of("cluster")
        matches = (self.near(engine, ROW, 20), self.near(engine, OTHER, 21, component=20))
        decision = decide(engine, ROW, OTHER, matches=matches, components={7: Component()}, joined=4)
        assert decision.update.joins == {20: 7, 21: 7}
        assert [len(p_values) for p_values in decision.update.components.values()] == [2]

    def test_the_nearest_of_more_rows_than_were_fitted_with_says_less(self) -> None:
        clean = np.concatenate([np.zeros(900), np.linspace(0.5, 1.0, 99)])
        old = profile_of({("monitor", "test_cluster"): (IMPLS["cluster"], clean)})
        fit = replace(old.stages["monitor/test_cluster"], arrays={AMONG: np.array([100.0])})
        settings = model_of(monitors=[{"stage": "test_cluster"}])
        engine = Engine(settings, old, b"a secret of 16 bytes")
        fitted = Engine(settings, replace(old, stages={"monitor/test_cluster": fit}), b"a secret of 16 bytes")
        matches = (self.near(engine, ROW, 20, step=0.03),)
        found = [
            decide(one, ROW, matches=matches, components={7: Component()}, entries=entries).update.components[7][0]
            for one, entries in ((engine, 100_000), (fitted, 100), (fitted, 100_000))
        ]
        assert found[0] == found[1] < found[2]

    def test_a_row_is_the_first_of_a_cluster_that_nobody_knows_of(self) -> None:
        engine = engine_of("cluster")
        decision = decide(engine, ROW, matches=(self.near(engine, ROW, 20),))
        assert decision.update.joins == {20: 7}

    def test_what_is_far_joins_nothing_nor_does_a_retry(self) -> None:
        engine = engine_of("cluster")
        far, retry = self.near(engine, ROW, 20, step=5.0), replace(self.near(engine, ROW, 21), duplicate=True)
        decision = decide(engine, ROW, ROW, matches=(far, retry), components={7: self.HOSTILE}, joined=19)
        assert decision.update.joins == {}
        assert found(decision, "test_cluster").p_values == (1.0, 1.0)

    @pytest.mark.parametrize(("on_error", "action"), [("allow", Action.ALLOW), ("deny", Action.DENY)])
    def test_one_that_fails(self, on_error: str, action: Action) -> None:
        fits = {("monitor", "test_cluster"): (ClusterMonitor(broken=True), CLEAN["cluster"])}
        entry = {"stage": "test_cluster", "on_error": on_error, "options": {"broken": True}}
        engine = Engine(model_of(monitors=[entry]), profile_of(fits), b"a secret of 16 bytes")
        decision = decide(engine, ROW)
        assert found(decision, "test_cluster").error == "RuntimeError"
        assert decision.action is action

    def test_the_rates_are_apart(self) -> None:
        engine = engine_of("cluster", "overlap", "unsure", "budget", false_alarms_per_month=0.02)
        thresholds = {stage.name: stage.threshold for stage in engine.stages}
        assert thresholds["test_cluster"] == 0.02
        assert thresholds["test_overlap"] == thresholds["test_unsure"] == 0.005  # 0.01 for both


class TestCohorts:
    def test_an_alarming_cohort_is_told_of_and_nothing_is_done(self) -> None:
        cohorts = {"network 10.0.0.0/24": Past({"test_overlap": against(1e-12)}), "global": Past()}
        decision = decide(engine_of("overlap"), ROW, cohorts=cohorts)
        finding = found(decision, "cohort network 10.0.0.0/24")
        assert finding.fired
        assert finding.scores[0] >= 1.0
        assert [f.stage for f in decision.findings] == ["test_overlap", finding.stage]
        assert (decision.action, decision.would_be, decision.level) == (Action.ALLOW, Action.ALLOW, Level.CLEAR)
        assert not decision.suspicious.any()

    def test_this_query_counts(self) -> None:
        cohorts = {"global": Past({"test_overlap": against(0.001, 0.001)})}
        calm = decide(engine_of("overlap"), ROW, cohorts=cohorts)
        assert [f.stage for f in calm.findings] == ["test_overlap"]
        decision = decide(engine_of("overlap"), ROW, matches=(Match(9, number=1),), cohorts=cohorts)
        assert found(decision, "cohort global").fired

    def test_monitors_of_clusters_and_measures_have_no_cohorts(self) -> None:
        cohorts = {"global": Past({"test_cluster": against(1e-12), "test_budget": against(1e-12)}, rows=10**6)}
        decision = decide(engine_of("cluster", "budget"), ROW, cohorts=cohorts)
        assert not [f for f in decision.findings if f.stage.startswith("cohort")]


class TestCoarseTimes:
    """When a caller is denied is drawn: no query's own verdict can be read off."""

    def runs(self, lag_rows: int) -> list[list[Action]]:
        """Thirty callers' first answers once one query has made them hostile; nothing that follows is suspicious."""
        engine, runs = engine_of("overlap", policy={"lag_rows": lag_rows}), []
        for caller in range(30):
            past, told = Past({"test_overlap": against(1e-9)}), []
            for i in range(60):
                query = Query(np.array([ROW], np.float32), f"c{caller}", "m", f"d{i}", now=NOW)
                decision = engine.decide(query, History((Match(overlap=4 if i == 0 else 0, number=i),), caller=past))
                past = replace(past, alert=decision.update.applied(past.alert))
                told.append(decision.action)
            runs.append(told)
        return runs

    def test_the_query_that_counts_is_not_told_from_those_after_it(self) -> None:
        firsts = [told.index(Action.DENY) for told in self.runs(8)]
        assert 4 < np.mean(firsts) < 12
        assert len(set(firsts)) > 8
        assert max(firsts) < 59
        for told, first in zip(self.runs(8), firsts, strict=True):
            assert set(told[first:]) == {Action.DENY}

    def test_queries_side_by_side_do_not_undo_what_one_has_drawn(self) -> None:
        engine, alert = engine_of("overlap", policy={"lag_rows": 8}), Alert(Level.HOSTILE, NOW + 100.0)
        past, told = Past({"test_overlap": against(1e-9)}, alert), []
        for i in range(40):  # all of them were looked up before any was decided
            query = Query(np.array([ROW], np.float32), "c", "m", f"d{i}", now=NOW)
            told.append(engine.decide(query, History((Match(overlap=4, number=i),), caller=past)))
        denied = [decision.action is Action.DENY for decision in told]
        assert 0 < denied.index(True) < 39
        for decision, was in zip(told, denied, strict=True):
            alert = decision.update.applied(alert)
            assert alert.acting is Level.HOSTILE or not was
        assert alert.acting is Level.HOSTILE

    def test_to_foresee_draws_nothing(self) -> None:
        engine = engine_of("overlap", policy={"lag_rows": 8, "on_hostile": "challenge"})
        evidence = {"test_overlap": against(1e-9)}
        for acting, action, progress in ((Level.CLEAR, Action.ALLOW, 0.0), (Level.HOSTILE, Action.CHALLENGE, 1.0)):
            past = Past(evidence, Alert(Level.HOSTILE, NOW + 100.0, acting))
            for i in range(30):
                query = Query(np.array([ROW], np.float32), "c", "m", f"d{i}", now=NOW)
                history = History((Match(overlap=4, number=i),), caller=past)
                seen = engine.foresee(query, history, engine.sketch(query))
                assert (seen.action, seen.progress, seen.update.empty) == (action, progress, True)

    def test_control_at_once_it_is(self) -> None:
        assert {told.index(Action.DENY) for told in self.runs(1)} == {0}


class TestAlerts:
    HOSTILE = Past({"test_overlap": against(1e-9)}, Alert(Level.HOSTILE, NOW + 100.0))

    def test_a_caller_who_turns_hostile_is_so_for_as_long_as_is_asked(self) -> None:
        decision = decide(engine_of("overlap", policy={"calm_s": 50}), ROW, caller=replace(self.HOSTILE, alert=Alert()))
        assert decision.update.alert == Alert(Level.HOSTILE, NOW + 50.0)

    def test_he_stays_so_while_it_holds(self) -> None:
        decision = decide(engine_of("overlap"), ROW, caller=replace(self.HOSTILE, evidence={}))
        assert (decision.level, decision.action) == (Level.HOSTILE, Action.DENY)
        assert decision.update.alert is None
        assert not decision.update.restart

    def test_what_speaks_against_him_makes_it_longer(self) -> None:
        decision = decide(engine_of("overlap"), ROW, matches=(Match(9, number=1),), caller=self.HOSTILE)
        assert decision.update.alert == Alert(Level.HOSTILE, NOW + 3600.0)

    def test_then_his_evidence_begins_anew(self) -> None:
        decision = decide(engine_of("overlap"), ROW, now=NOW + 100.0, caller=self.HOSTILE)
        assert (decision.level, decision.action) == (Level.CLEAR, Action.ALLOW)
        assert decision.update.alert == Alert()
        assert decision.update.restart

    def test_evidence_is_of_a_month(self) -> None:
        past = Past({"test_overlap": against(1e-4)}, Alert(Level.WATCH), since=NOW - MONTH_S)
        before = decide(engine_of("overlap"), ROW, now=NOW - 1.0, caller=past)
        assert (before.level, before.update.restart) == (Level.WATCH, False)
        after = decide(engine_of("overlap"), ROW, caller=past)
        assert (after.level, after.update.restart) == (Level.CLEAR, True)
        assert found(after, "test_overlap").p_values == (1.0,)
        unknown = decide(engine_of("overlap"), ROW, caller=Past(since=NOW - MONTH_S))
        assert not unknown.update.restart

    def test_a_measure_raises_the_level_and_is_no_evidence(self) -> None:
        engine = engine_of("budget", policy={"on_suspect": "deny"})
        few, many = (decide(engine, ROW, caller=Past(rows=rows)) for rows in (99, 100))
        assert (few.level, few.action) == (Level.CLEAR, Action.ALLOW)
        assert (many.level, many.action) == (Level.SUSPECT, Action.DENY)
        assert found(many, "test_budget").scores == (100.0,)
        assert found(many, "test_budget").p_values == ()
        assert many.update.empty

    @pytest.mark.parametrize(("degree", "degraded"), [(1, True), (2, True), (3, False)])
    def test_answers_are_degraded_to_the_degree_of_the_level(self, degree: int, degraded: bool) -> None:
        outputs = [{"stage": "test_echo"}, {"stage": "test_uniform", "degree": degree}]
        engine = engine_of("budget", policy={"on_suspect": ["degrade", "delay"]}, outputs=outputs)
        suspect, clear = (decide(engine, ROW, caller=Past(rows=rows)) for rows in (100, 99))
        assert suspect.degrees.tolist() == [int(Level.SUSPECT)]
        assert suspect.responses == {Action.ALLOW, Action.DEGRADE, Action.DELAY}
        y = conclude(engine, suspect, SURE).y
        assert y is not None
        assert np.allclose(y, 1 / 3) is degraded
        assert conclude(engine, clear, SURE).y is None

    def test_an_empty_measure_says_nothing(self) -> None:
        engine = engine_of("budget")
        decision = engine.decide(Query(np.zeros((0, 4), np.float32), "c", "m", "d"), History())
        assert decision.level is Level.CLEAR


def test_the_same_again_is_a_retry_or_a_film() -> None:
    engine = engine_of("overlap")
    (new, retry) = decide(engine, ROW, OTHER, matches=(Match(number=0), Match(9, duplicate=True, number=1))).seen
    assert not repeats(new)
    assert repeats(retry)
    assert repeats(replace(new, follows=True))
    assert repeats(replace(new, beside=True))


class TestBeside:
    """Rows that lie near the caller's own latest ones."""

    def credited(self, *names: str, impl: Any = None, **of: Any) -> tuple[float, ...]:
        engine = engine_of(*names)
        if impl is not None:
            stages = engine._watching._answers
            engine._watching._answers = tuple(replace(stage, impl=impl) for stage in stages)
        decision = decide(engine, ROW)
        (seen,) = decision.seen
        decision = replace(decision, seen=(replace(seen, **of),))
        return conclude(engine, decision, UNSURE).update.evidence["test_unsure"]

    def test_their_answers_are_not_judged_again_where_somebody_sees_that_they_are_near(self) -> None:
        assert len(self.credited("overlap", "unsure")) == 1
        assert self.credited("overlap", "unsure", beside=True) == ()

    def test_they_are_where_nobody_does(self) -> None:
        assert len(self.credited("unsure", beside=True)) == 1
        assert self.credited("unsure", follows=True) == ()

    def test_what_compares_neighbours_looks_at_them_alone(self) -> None:
        class Compares(UnsureMonitor):
            compares = True

        assert len(self.credited("overlap", "unsure", impl=Compares(), beside=True)) == 1
        assert self.credited("overlap", "unsure", impl=Compares(), follows=True) == ()

    def test_the_store_is_told_which_were_heard(self) -> None:
        engine = engine_of("overlap", "unsure")
        decision = decide(engine, ROW)
        (seen,) = decision.seen
        for heard in (True, False):
            told = conclude(engine, replace(decision, seen=(replace(seen, heard=heard),)), UNSURE)
            assert [row.heard for row in told.update.answered] == [heard]
