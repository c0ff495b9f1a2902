"""Recorded traces through policies: who would have received what."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from guard import cli, registry
from guard.engine import Engine
from guard.events import Event, Forgiven, event_of, render
from guard.stores.memory import MemoryStore
from guard.techniques import ALERT
from guard.types import Action, Answer, Finding, Level, Mode, Query
from tests.core.helpers import (
    STAGES,
    BrokenDetector,
    ClusterMonitor,
    MeanDetector,
    OverlapMonitor,
    model_of,
    profile_of,
)
from tests.forensics import step, story
from tests.proxy import world

FLAGGED = Finding("test_mean", "detector", Mode.ENFORCE, (0.9,), (0.001,), 0.01)
CLEAN = replace(FLAGGED, scores=(0.1,), p_values=(0.8,))
SLOW = {"throttle_rows_per_s": 0.5, "throttle_burst_rows": 2}


@pytest.fixture(autouse=True)
def stages(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.load()  # before there is a copy of it
    monkeypatch.setattr(registry, "_stages", registry._stages | STAGES)


@pytest.fixture
def simulate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """simulate(events, policy file's tree, *arguments) -> the document, or the text, or what was said of an error."""

    def run(events: Any, tree: Any, *arguments: str, text: bool = False, fails: bool = False) -> Any:
        lines = [event if isinstance(event, str) else render(event) for event in events]
        (tmp_path / "trace").write_text("".join(line + "\n" for line in lines))
        (tmp_path / "policy.yaml").write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
        args = ["--trace", str(tmp_path / "trace"), "--policy", str(tmp_path / "policy.yaml"), *arguments]
        assert cli.main(["simulate", *args, *([] if text else ["--json"])]) == (2 if fails else 0)
        said = capsys.readouterr()
        if fails:
            return said.err
        return said.out if text else json.loads(said.out)

    return run


def query(i: int = 0, *findings: Finding, level: Level = Level.CLEAR, caller: str = "a", **changes: Any) -> Event:
    """The query of second i, allowed then."""
    values = {
        "decision_id": f"{caller} {i}",
        "time_unix": 1e9 + i,
        "action": Action.ALLOW,
        "would_be": Action.ALLOW,
        "findings": findings,
        "level": level,
        "former": level,
        "traces": (),
        "clusters": (),
        "credits": (),
    }
    return step(0, caller, **(values | changes))


def alert(level: Level, mode: Mode = Mode.ENFORCE) -> Finding:
    """As it is recorded where the policy did nothing about it."""
    return Finding(ALERT, "monitor", mode, (float(level),), (1e-3,), 0.0)


def on(level: Level, i: int = 0, mode: Mode = Mode.ENFORCE, **changes: Any) -> Event:
    return query(i, alert(level, mode), level=level, **changes)


def settings(**model: Any) -> dict[str, Any]:
    one = {"name": "m", "mode": "enforce", "profile": "nowhere", **model}
    return {"upstream": {"address": "127.0.0.1:1"}, "models": [one]}


def model(document: dict[str, Any]) -> dict[str, Any]:
    (one,) = document["models"]
    return one


def now(document: dict[str, Any]) -> dict[str, int]:
    """Queries by what they receive now."""
    return {one["what"]: one["queries"]["now"] for one in model(document)["received"] if one["queries"]["now"]}


def changes(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["then"], one["now"]) for one in model(document)["changes"] if one["then"] != one["now"]}


def said(document: dict[str, Any], words: str) -> bool:
    return any(words in note for note in [*document["notes"], *model(document)["notes"]])


# --- responses


def test_a_policy_decides_anew_what_a_finding_means(simulate: Any) -> None:
    events = [query(0, CLEAN), query(1, FLAGGED, action=Action.DENY, would_be=Action.DENY)]
    assert now(simulate(events, {"policy": {"on_input": "deny"}})) == {"allow": 1, "deny": 1}
    document = simulate(events, {"policy": {"on_input": "purify"}})
    assert now(document) == {"allow": 1, "purify": 1}
    assert changes(document) == {("deny", "purify")}
    assert said(document, "1 queries were refused then")


@pytest.mark.parametrize("action", [action for action in Action if action is not Action.THROTTLE])
def test_each_action_is_told_by_its_own_name(simulate: Any, action: Action) -> None:
    document = simulate([query(0, FLAGGED)], {"policy": {"on_input": action.value}})
    assert now(document) == {action.value: 1}


def test_levels_are_the_recorded_ones_and_alerts_fire_by_the_new_policy(simulate: Any) -> None:
    events = [on(level, int(level)) for level in Level]
    tree = {"policy": {"on_watch": "degrade", "on_suspect": ["degrade", "delay"], "on_hostile": "deny"}}
    document = simulate(events, tree)
    assert now(document) == {"allow": 1, "degrade": 1, "delay": 1, "deny": 1}
    assert model(document)["responses"] == {"degrade": 2, "delay": 1}  # what a refused query would lose is not counted
    assert now(simulate(events, {"policy": {"on_hostile": "allow"}})) == {"allow": 4}


def test_delays_come_to_half_up_to_all_of_it(simulate: Any) -> None:
    events = [on(Level.WATCH, i) for i in range(8)]
    document = simulate(events, {"policy": {"on_watch": "delay", "delay_s": 2.0}})
    assert model(document)["held_back_s"] == {"least": 8.0, "expected": 12.0, "most": 16.0}
    assert model(document)["shown"][0]["held_back_s"] == 12.0
    assert said(document, "limits.max_delayed_calls")


def test_a_throttled_caller_has_his_part_by_the_traces_own_times(simulate: Any) -> None:
    policy = {"policy": {"on_watch": ["degrade", "throttle"], **SLOW}}
    at_once = [on(Level.WATCH, 0, decision_id=str(i)) for i in range(5)]
    document = simulate(at_once, policy)
    assert now(document) == {"degrade": 2, "throttle": 3}
    assert model(document)["responses"] == {"degrade": 2}
    later = [*at_once, on(Level.WATCH, 2), on(Level.WATCH, 3), on(Level.WATCH, 1000), on(Level.WATCH, 1000)]
    assert now(simulate(later, policy)) == {"degrade": 5, "throttle": 4}  # a row after 2 s, none at 3, then the burst
    two = [*at_once, *[replace(event, caller="b") for event in at_once], on(Level.WATCH, 0, rows=3, caller="c")]
    assert now(simulate(two, policy)) == {"degrade": 4, "throttle": 7}  # each his own; more than the burst never


def test_what_is_refused_in_any_case_takes_nothing_of_a_throttle(simulate: Any) -> None:
    both = {"policy": {"on_input": "deny", "on_watch": "throttle", **SLOW}}
    events = [query(i, FLAGGED, alert(Level.WATCH), level=Level.WATCH) for i in range(5)]
    assert now(simulate([*events, on(Level.WATCH, 5), on(Level.WATCH, 5)], both)) == {"deny": 5, "allow": 2}


def test_exempt_callers_receive_everything_until_their_day(simulate: Any) -> None:
    until = "2001-09-09T01:46:45Z"  # 1e9 + 5 s
    exempt = [{"caller": "a", "until": until, "reason": "load test", "approved_by": ["ann"]}]
    events = [query(i, FLAGGED, caller=caller) for i in range(10) for caller in ("a", "b")]
    document = simulate(events, {"policy": {"on_input": "deny", "exempt": exempt}})
    assert {one["caller"]: (one["exempt"], one["now"]) for one in model(document)["shown"]} == {
        "a": (True, {"allow": 5, "deny": 5}),
        "b": (False, {"deny": 10}),
    }
    assert said(document, "5 queries are of exempt callers")


def test_a_cluster_is_hostile_whatever_its_callers_level(simulate: Any) -> None:
    joins = Finding("test_cluster", "monitor", Mode.ENFORCE, (0.9,), (1e-4,), 1e-3)
    held = Finding("alert", "monitor", Mode.ENFORCE, (0.0, 3.0), (1.0,), 0.0)  # what was acted upon, then
    for finding, expected in ((joins, "allow"), (held, "deny"), (replace(held, scores=(3.0, 0.0)), "allow")):
        assert now(simulate([query(0, finding)], {"policy": {"on_hostile": "deny"}})) == {expected: 1}


def test_cohorts_and_invalid_values_are_told_of_alone(simulate: Any) -> None:
    cohort = Finding("cohort network", "monitor", Mode.SHADOW, (2.0,), (0.0,), 0.0)
    invalid = Finding("validation", "detector", Mode.SHADOW, p_values=(0.0,))
    events = [query(0, cohort, invalid, CLEAN, rows=1, enforced=False)]
    document = simulate(events, {"policy": {"on_input": "deny", "on_hostile": "deny"}})
    assert now(document) == {"allow": 1}
    assert said(document, "1 queries had values")


# --- which findings act


def test_what_was_in_shadow_acts_where_the_whole_model_was(simulate: Any) -> None:
    shadow = replace(FLAGGED, mode=Mode.SHADOW)
    whole = query(0, shadow, enforced=False)
    beside = query(1, shadow, replace(CLEAN, stage="other"))
    document = simulate([whole, beside], {"policy": {"on_input": "deny"}})
    assert now(document) == {"allow": 1, "deny": 1}
    assert said(document, "1 queries were recorded in shadow")
    assert said(document, "1 findings were in shadow beside")
    listed = {"policy": {"on_input": "deny"}, "detectors": [{"stage": "test_mean"}]}
    assert now(simulate([whole, beside], listed)) == {"deny": 2}
    off = {"policy": {"on_input": "deny"}, "detectors": [{"stage": "test_mean", "mode": "off"}]}
    assert now(simulate([whole, beside], off)) == {"allow": 2}


def test_settings_say_which_stages_act(simulate: Any) -> None:
    events = [query(0, FLAGGED, alert(Level.HOSTILE, Mode.SHADOW), level=Level.HOSTILE)]
    mean, overlap = {"stage": "test_mean"}, {"stage": "test_overlap"}
    policy = {"on_input": "delay", "on_hostile": "deny"}
    for stages, expected in (
        ({"detectors": [mean], "monitors": [overlap]}, "deny"),
        ({"detectors": [mean]}, "delay"),
        ({"detectors": [mean], "monitors": [overlap | {"mode": "shadow"}]}, "delay"),
        ({"monitors": [overlap]}, "deny"),
        ({}, "allow"),
    ):
        assert now(simulate(events, settings(policy=policy, **stages))) == {expected: 1}
    assert said(simulate(events, settings(policy=policy)), "counts for nothing: detector/test_mean")
    shadow = simulate(events, settings(policy=policy, mode="shadow", detectors=[mean]))
    assert now(shadow) == {"allow": 1}
    assert said(shadow, "`mode: shadow`: nothing is done")


def test_failures_mean_what_the_file_says(simulate: Any) -> None:
    failed = query(0, Finding("test_broken", "detector", Mode.ENFORCE, error="ValueError"))
    unknown = simulate([failed], {"policy": {}})
    assert now(unknown) == {"allow": 1}
    assert said(unknown, "1 failures of stages")
    for on_error in ("allow", "deny"):
        listed = {"policy": {}, "detectors": [{"stage": "test_broken", "on_error": on_error}]}
        assert now(simulate([failed], listed)) == {on_error: 1}
    late = query(0, Finding("inspection", "detector", Mode.ENFORCE, error="timeout"), action=Action.DENY, rows=0)
    assert now(simulate([late], {"policy": {}})) == {"deny": 1}
    assert now(simulate([late], settings())) == {"allow": 1}
    assert now(simulate([late], {**settings(), "limits": {"on_inspection_timeout": "deny"}})) == {"deny": 1}


# --- protections


def test_protections_act_by_the_degree_of_the_level_or_the_input(simulate: Any) -> None:
    outputs = [{"stage": "test_uniform", "degree": 2}, {"stage": "test_echo", "degree": 3}]
    tree = {"policy": {"on_input": "degrade", **{f"on_{n}": "degrade" for n in ("watch", "suspect", "hostile")}}}
    events = [*[on(level, int(level)) for level in Level], query(9, FLAGGED)]
    document = simulate(events, tree | {"outputs": outputs})
    acted = {one["stage"]: (one["queries"], one["rows"]) for one in model(document)["protections"]}
    assert acted == {"test_uniform": (3, 3), "test_echo": (2, 2)}
    assert said(document, "1 queries are degraded by nothing")
    assert said(simulate(events, tree), "no `outputs` in the policy file")


def test_protections_that_always_act_act_on_what_is_allowed_too(simulate: Any) -> None:
    tree = {"policy": {"on_hostile": "deny"}, "outputs": [{"stage": "test_uniform", "when": "always"}]}
    document = simulate([query(0, rows=5), on(Level.HOSTILE, 1)], tree)
    assert [(one["queries"], one["rows"]) for one in model(document)["protections"]] == [(1, 5)]
    assert said(document, "`when: always`, so on allowed queries, too: test_uniform")
    tree["outputs"][0]["mode"] = "shadow"
    assert model(simulate([query(0, rows=5)], tree))["protections"] == []


def test_of_large_queries_only_some_rows_are_known(simulate: Any) -> None:
    kept = tuple(range(64))
    few = replace(FLAGGED, scores=(0.9,) * 64, p_values=(0.001,) * 3 + (0.9,) * 61)
    tree = {
        "policy": {"on_input": "degrade", "on_hostile": "degrade"},
        "outputs": [{"stage": "test_uniform"}],
    }
    for findings, level, rows in (((few,), Level.CLEAR, 3), ((few, alert(Level.HOSTILE)), Level.HOSTILE, 100)):
        document = simulate([query(0, *findings, level=level, rows=100, kept_rows=kept)], tree)
        assert model(document)["protections"][0]["rows"] == rows
        assert said(document, "of the rows of 1 large queries")


# --- budgets


def test_a_budget_refuses_by_the_traces_own_times(simulate: Any) -> None:
    budget = {"rows_per_s": 1, "burst_rows": 4}
    events = [query(0, rows=2, decision_id=str(i)) for i in range(4)]
    events += [query(2, rows=2), query(2, rows=1), query(100, rows=5), query(100, rows=4), query(100, caller="b")]
    document = simulate(events, {"policy": {}, "budget": budget})
    assert now(document) == {"allow": 5, "budget": 4}
    assert said(document, "refused for a budget then are not in the trace")
    assert model(document)["shown"][0]["now"] == {"allow": 10, "budget": 10}


def test_a_budget_of_a_day_fills_up_evenly(simulate: Any) -> None:
    events = [query(i * 3600) for i in range(48)]
    assert now(simulate(events, {"policy": {}, "budget": {"rows_per_day": 12}})) == {"allow": 35, "budget": 13}


def test_what_a_budget_refuses_no_stage_sees(simulate: Any) -> None:
    events = [on(Level.WATCH, 0, decision_id=str(i)) for i in range(5)]
    tree = {"policy": {"on_watch": "throttle", "throttle_burst_rows": 1}, "budget": {"rows_per_day": 2}}
    assert now(simulate(events, tree)) == {"allow": 1, "throttle": 1, "budget": 3}


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_a_budget_that_does_not_enforce_refuses_nobody(simulate: Any, mode: str) -> None:
    events = [query(0, decision_id=str(i)) for i in range(5)]
    document = simulate(events, {"policy": {}, "budget": {"rows_per_day": 2, "mode": mode}})
    assert now(document) == {"allow": 5}
    assert said(document, "3 queries are past the budget") is (mode == "shadow")


def test_exempt_callers_and_models_in_shadow_have_no_budget(simulate: Any) -> None:
    events = [query(0, decision_id=str(i)) for i in range(5)]
    exempt = [{"caller": "a", "until": "2999-01-01T00:00:00Z", "reason": "r", "approved_by": ["ann"]}]
    budget = {"rows_per_day": 2}
    for tree in ({"policy": {"exempt": exempt}}, {"policy": {}, "mode": "shadow"}):
        document = simulate(events, {**tree, "budget": budget})
        assert now(document) == {"allow": 5}
        assert said(document, "3 queries are past the budget")


def test_bits_cannot_be_replayed_and_that_is_said(simulate: Any) -> None:
    events = [query(i) for i in range(5)]
    document = simulate(events, {"policy": {}, "budget": {"bits_per_day": 0.1}})
    assert now(document) == {"allow": 5}
    assert said(document, "`bits_per_day` is not replayed")
    assert not said(simulate(events, {"policy": {}}), "bits_per_day")


# --- what is printed


def test_the_most_affected_callers_come_first(simulate: Any) -> None:
    events = [query(i, CLEAN, caller="calm") for i in range(9)]
    events += [query(i, FLAGGED, caller="bad", action=Action.DENY) for i in range(5)]  # the same as before
    events += [query(i, FLAGGED, caller="new") for i in range(3)] + [query(4, FLAGGED, rows=1, caller="little")]
    document = simulate(events, {"policy": {}})
    assert [one["caller"] for one in model(document)["shown"]] == ["new", "little", "bad", "calm"]
    assert (model(document)["callers_changed"], model(document)["rows_changed"]) == (2, 4)
    few = simulate(events, {"policy": {}}, "--limit", "1")
    assert [one["caller"] for one in model(few)["shown"]] == ["new"]
    assert model(few)["received"] == model(document)["received"]


def test_the_text_has_it_all(simulate: Any) -> None:
    events = [on(Level.WATCH, i, caller="a\x1b[31m\n") for i in range(6)] + [query(9, FLAGGED), query(9, CLEAN)]
    tree = {
        "policy": {"on_input": "deny", "on_watch": ["degrade", "delay"], "delay_s": 2},
        "outputs": [{"stage": "test_uniform"}],
    }
    text = simulate(events, tree, text=True)
    assert text.startswith("8 decisions, 2001-09-09T01:46:40.000000Z to 2001-09-09T01:46:49.000000Z\n")
    assert "model m: 8 queries, 8 rows of 2 callers; 2 of them receive something else, on 7 rows" in text
    assert re.search(r"^CALLER +LEVEL +ROWS +ALLOW +DELAY +DENY +HELD BACK$", text, re.MULTILINE)
    assert re.search(r"^a\\u001b\[31m\\n +watch +6 +6 -> 0 +0 -> 6 +- +9\.0 s$", text, re.MULTILINE)
    assert re.search(r"^a +clear +2 +2 -> 1 +- +0 -> 1 +0\.0 s$", text, re.MULTILINE)
    assert re.search(r"^delay +0 +6 +0 +6$", text, re.MULTILINE)
    assert re.search(r"^test_uniform +suspicious +1 +6 +6$", text, re.MULTILINE)
    assert "held back: 6.0 to 12.0 s in all, 9.0 s expected" in text
    assert "note: callers are taken to have asked the same" in text
    assert "1 callers are left out (--limit)" in simulate(events, tree, "--limit", "1", text=True)
    assert "CALLER" not in simulate(events, tree, "--limit", "0", text=True)


def test_an_empty_trace_has_nothing_to_tell(simulate: Any) -> None:
    document = simulate([], {"policy": {}})
    assert (document["decisions"], document["from"], document["models"]) == (0, None, [])
    assert simulate([], settings(), text=True).startswith("0 decisions\n")


def test_lines_that_are_no_events_are_counted(simulate: Any) -> None:
    wrong_rows = replace(FLAGGED, scores=(0.9,) * 7, p_values=(0.001,) * 7)
    broken = [
        "no JSON",
        '{"event": "guard.decision"}',
        query(0, wrong_rows),
        query(0, rows=65),  # of so many, those that were kept are named
        query(0, rows=-1),
        query(0, rows=2**40, kept_rows=(1,)),
        query(0, rows=1, kept_rows=(1, 2)),
        query(0, replace(wrong_rows, kind="monitor", stage="test_cluster")),
        query(0, replace(wrong_rows, stage="inspection")),
    ]
    document = simulate([*broken, Forgiven(1e9, "a", "m"), '{"event": "other"}', query(1, FLAGGED)], {"policy": {}})
    assert (document["unreadable_lines"], document["decisions"], now(document)) == (9, 1, {"deny": 1})
    assert said(document, "9 lines are no audit events")


def test_a_trace_out_of_order_or_incomplete_is_told(simulate: Any) -> None:
    calm = [query(i, CLEAN) for i in range(400)]
    assert simulate([*calm[200:], *calm[:200]], {"policy": {}})["out_of_order"] == 200
    whole = simulate(calm, {"policy": {}})
    assert whole["log"]["complete"] is True
    assert not said(whole, "sample_allowed")
    from guard.audit import sampled

    some = simulate([event for event in calm if sampled(event.decision_id, 0.3)], {"policy": {}})
    assert abs(some["log"]["share"] - 0.3) < 0.05
    assert said(some, "of allowed queries are recorded")
    assert said(simulate(calm[:3], {"policy": {}}), "incomplete as far as one can tell")


def test_callers_past_the_settings_bound_are_evicted_and_counted(simulate: Any) -> None:
    events = [query(i, caller=f"c{i % 3}") for i in range(9)]
    tree = settings(budget={"rows_per_day": 1}) | {"history": {"max_callers": 2}}
    document = simulate(events, tree)
    assert now(document) == {"allow": 9}
    assert said(document, "callers' budgets were evicted")
    assert now(simulate(events, settings(budget={"rows_per_day": 1}))) == {"allow": 3, "budget": 6}


def test_the_canary_counts_as_everybody(simulate: Any) -> None:
    document = simulate([query(0, FLAGGED)], {"policy": {}, "canary": 0.0})
    assert now(document) == {"deny": 1}
    assert said(document, "the canary of 0 counts as everybody")


def test_a_trace_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "policy.yaml").write_text("policy: {on_input: deny}\n")
    lines = io.BytesIO((render(query(0, FLAGGED)) + "\n").encode())
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=lines))
    assert cli.main(["simulate", "--trace", "-", "--policy", str(tmp_path / "policy.yaml"), "--json"]) == 0
    assert now(json.loads(capsys.readouterr().out)) == {"deny": 1}


# --- files and models that are not good


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"policy": {"on_input": "explode"}}, "policy.on_input"),
        ({"policy": {"on_inputs": "deny"}}, "policy.on_inputs: unknown key"),
        ({"policy": {}, "colour": 1}, "colour: unknown key"),
        ({"policy": {}, "name": 3}, "name: "),
        ({"policy": {}, "budget": {"rows_per_s": -1}}, "budget.rows_per_s"),
        ({"policy": {}, "outputs": [{"stage": "nonesuch"}]}, "outputs.0.stage"),
        ({"policy": {}, "outputs": [{"stage": "test_uniform", "degree": 4}]}, "outputs.0.degree"),
        ({"on_input": "deny"}, "policy: is missing"),
        ("policy: {on_input: deny, on_input: allow}", "on_input: given twice"),
        ("[policy]", "must be a mapping"),
        ("{", "not YAML"),
        (settings(policy={"on_input": "explode"}), "models.0.policy.on_input"),
        (settings(policy={"on_input": "purify"}, detectors=[{"stage": "test_mean"}]), "there is no purifier"),
    ],
)
def test_a_bad_policy_file_is_told_by_its_key(simulate: Any, tree: Any, message: str) -> None:
    assert message in simulate([query()], tree, fails=True)


def test_files_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").write_text("policy: {}\n")
    for trace, policy in (("there", "not"), ("not", "there"), ("", "there")):
        args = ["simulate", "--trace", str(tmp_path / trace), "--policy", str(tmp_path / policy)]
        assert cli.main(args) == 2
        assert "cannot read" in capsys.readouterr().err


def test_a_part_is_of_one_model(simulate: Any) -> None:
    events = [query(0, FLAGGED), query(1, FLAGGED, model="other\x1b"), query(2, CLEAN)]
    message = simulate(events, {"policy": {}}, fails=True)
    assert "--model: the trace has several models, 'm' and 'other\\x1b' at least" in message
    for tree, arguments in (({"policy": {}}, ["--model", "m"]), ({"policy": {}, "name": "m"}, [])):
        document = simulate(events, tree, *arguments)
        assert (now(document), document["other_models"]) == ({"allow": 1, "deny": 1}, 1)
        assert said(document, "1 decisions are of models that the policy file does not mean")
    assert now(simulate(events, {"policy": {}, "name": "n"}, "--model", "m")) == {"allow": 1, "deny": 1}


def test_an_unknown_model_is_an_error(simulate: Any) -> None:
    events = [query(0, FLAGGED)]
    assert "the trace has nothing of 'n'; it has: m" in simulate(events, {"policy": {}}, "--model", "n", fails=True)
    assert "--model: the settings have no model 'n'; they have: m" in simulate(
        events, settings(), "--model", "n", fails=True
    )


def test_settings_of_several_models_are_told_apart(simulate: Any) -> None:
    events = [query(i, FLAGGED, model=name) for i, name in enumerate(("m", "n", "o"))]
    tree = settings(policy={"on_input": "deny"}, detectors=[{"stage": "test_mean"}], budget={"rows_per_day": 1})
    tree["models"].append({**tree["models"][0], "name": "n", "policy": {"on_input": "delay"}})
    document = simulate(events, tree)
    assert [(one["model"], one["changes"][0]["now"]) for one in document["models"]] == [("m", "deny"), ("n", "delay")]
    assert document["other_models"] == 1
    assert [one["model"] for one in simulate(events, tree, "--model", "n")["models"]] == ["n"]


# --- against what was done


RULES = {
    "detectors": [{"stage": "test_mean"}, {"stage": "test_broken", "on_error": "deny", "mode": "shadow"}],
    "monitors": [{"stage": "test_overlap"}, {"stage": "test_cluster"}],
    "outputs": [{"stage": "test_uniform"}],
    "policy": {"on_input": "degrade", "on_watch": "degrade", "on_suspect": "delay", "on_hostile": "deny"},
    "false_positive_rate": 0.1,
    "false_alarms_per_caller_month": 1e-12,
}


async def recorded(**rules: Any) -> list[Event]:
    """What a real engine with a real store makes of a calm caller, and of one who goes on in small steps."""
    fitted = {
        ("detector", "test_mean"): (MeanDetector(), np.linspace(0.0, 0.5, 99)),
        ("detector", "test_broken"): (BrokenDetector(), np.linspace(0.0, 0.5, 99)),
        ("monitor", "test_overlap"): (OverlapMonitor(), np.zeros(999)),
        ("monitor", "test_cluster"): (ClusterMonitor(), np.zeros(999)),
    }
    engine, store = Engine(model_of(**rules), profile_of(fitted), b"a secret of sixteen bytes"), MemoryStore()
    events, rng = [], np.random.default_rng(0)
    for i in range(60):
        caller = "probing" if i % 2 else "calm"
        x = np.full((1 + i % 3, 4), 0.9 if i % 6 == 0 else 0.2, np.float32)  # again and again: retries, no evidence
        if caller == "probing":
            x = (x + rng.uniform(-0.01, 0.01, x.shape)).astype(np.float32)
        asked = Query(x, caller, "m", f"d{i}", now=1e9 + i)
        sketches = engine.sketch(asked)
        history = await store.exchange("m", caller, (), sketches, asked.now)
        decision = engine.decide(asked, history, sketches)
        await store.credit("m", caller, (), decision.update, asked.now)
        made = engine.conclude(decision, Answer(np.full((len(x), 3), 1 / 3, np.float32)))
        await store.credit("m", caller, (), made.update, asked.now)
        events.append(event_of(made, time_unix=asked.now, model="m", version="", payload_sha256=""))
    return events


async def test_the_policy_in_force_gives_what_the_engine_did(simulate: Any) -> None:
    events = await recorded(**RULES)
    done = {event.action for event in events}
    assert done >= {Action.ALLOW, Action.DEGRADE, Action.DENY}
    document = simulate(events, settings(**RULES))
    assert changes(document) == set()
    assert {Action(one["what"]) for one in model(document)["received"]} == done
    part = {key: RULES[key] for key in ("policy", "outputs")}
    assert changes(simulate(events, part)) == set()
    stricter = {**part, "policy": {**RULES["policy"], "on_input": "deny"}}
    assert changes(simulate(events, stricter)) == {("degrade", "deny")}


async def test_a_trace_in_shadow_gives_what_would_be(simulate: Any) -> None:
    rules = {**RULES, "detectors": RULES["detectors"][:1], "mode": "shadow"}  # without the one that fails closed
    events = await recorded(**rules)
    assert {event.action for event in events} == {Action.ALLOW}
    document = simulate(events, {"policy": RULES["policy"]})
    expected = {action.value: sum(event.would_be is action for event in events) for action in Action}
    assert now(document) == {what: queries for what, queries in expected.items() if queries}
    assert len(now(document)) >= 3


async def test_the_policy_in_force_gives_what_a_real_server_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulate: Any
) -> None:
    """Through gRPC, with a throttle and a second of real time."""
    monkeypatch.setattr(registry, "_stages", registry._stages | world.STAGES)
    rules = {
        "name": "m",
        "profile": world.profile(tmp_path / "profile"),
        "mode": "enforce",
        "detectors": [{"stage": "test_mean"}],
        "outputs": [{"stage": "test_uniform"}],
        "policy": {"on_input": ["degrade", "throttle"], "throttle_rows_per_s": 0.001, "throttle_burst_rows": 3},
    }
    header = {"kind": "header", "header": "x-caller", "trusted_peers": ["127.0.0.0/8"]}
    audit = {"file": str(tmp_path / "audit"), "sample_allowed": 1.0}
    async with world.world(models=[rules], identity={"chain": [header]}, audit=audit) as (_, guarded):
        for i in range(16):
            x = world.FLAGGED if i % 2 else world.CLEAN
            await guarded.unary(world.request(x), metadata=(("x-caller", f"c{i // 12}"),))
    lines = (tmp_path / "audit").read_text().splitlines()
    tree = {"upstream": {"address": "127.0.0.1:1"}, "models": [rules]}
    document = simulate(lines, tree)
    assert now(document) == {"allow": 8, "degrade": 5, "throttle": 3}
    assert changes(document) == set()
    rules["policy"] = {**rules["policy"], "throttle_burst_rows": 1}
    assert changes(simulate(lines, tree)) == {("degrade", "throttle")}


def test_a_story_told_as_it_was(simulate: Any) -> None:
    """Levels rise, and the last query is denied: so it is with an alert in the trace, and not without."""
    events = [replace(one, findings=(*one.findings, alert(one.level))) for one in story()]
    assert now(simulate(events, {"policy": {}})) == {"allow": 4, "deny": 1}
    assert now(simulate(story(), {"policy": {}})) == {"allow": 5}
