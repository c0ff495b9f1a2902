"""Logs replayed through other settings, and written in other forms."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from guard import cli, registry
from guard.backtest import filled
from guard.events import Forgiven, render
from guard.profile import save_profile
from guard.traces import Credit, Trace
from guard.types import Action, Finding, Level, Mode
from tests.core.helpers import STAGES, MeanDetector, OverlapMonitor, profile_of
from tests.forensics import ATTACKER, step, story

DETECTOR = Finding("test_mean", "detector", Mode.SHADOW, (0.49,), (0.04,), 0.01)


@pytest.fixture(autouse=True)
def stages(monkeypatch):
    monkeypatch.setattr(registry, "_stages", registry._stages | STAGES)


@pytest.fixture
def backtest(tmp_path, capsys):
    """backtest(events, **model) -> the document, or with text=True the text."""
    fitted = {
        ("detector", "test_mean"): (MeanDetector(), np.linspace(0.0, 0.5, 999)),
        ("monitor", "test_overlap"): (OverlapMonitor(), np.zeros(999)),
    }
    save_profile(profile_of(fitted), tmp_path / "profile")

    def run(events, *, text=False, **model):
        (tmp_path / "log").write_text("".join(render(event) + "\n" for event in events))
        tree = {"upstream": {"address": "127.0.0.1:1"}, "models": [{"name": "m", "mode": "enforce"} | model]}
        if {"detectors", "monitors"} & set(model):
            tree["models"][0]["profile"] = str(tmp_path / "profile")
        (tmp_path / "new.yaml").write_text(yaml.safe_dump(tree))
        args = ["backtest", str(tmp_path / "log"), "--config", str(tmp_path / "new.yaml")]
        assert cli.main([*args, *([] if text else ["--json"])]) == 0
        out = capsys.readouterr().out
        return out if text else json.loads(out)

    return run


def monitor(mode="enforce"):
    return {"monitors": [{"stage": "test_overlap", "mode": mode}]}


def attack(steps: int = 30, p: float = 0.002, caller: str = ATTACKER):
    return [
        step(1, caller=caller, decision_id=f"{caller} {i}", time_unix=1e9 + i, caller_rows=i, level=Level.CLEAR,
             former=Level.CLEAR, credits=(Credit("test_overlap", (p,), 1),))
        for i in range(steps)
    ]  # fmt: skip


def stage(document, name):
    return next(one for one in document["models"][0]["stages"] if one["stage"] == name)


def test_a_detector_fires_at_the_budget_of_the_new_settings(backtest):
    events = [step(0, findings=(DETECTOR,), decision_id=str(i)) for i in range(3)]
    for rate, fires in ((0.05, 3), (0.01, 0)):
        document = backtest(events, detectors=[{"stage": "test_mean", "mode": "enforce"}], false_positive_rate=rate)
        told = stage(document, "detector/test_mean")
        assert (told["fired_then"], told["fires_now"]) == (0, fires)
        assert document["actions"] == [{"then": "allow", "now": "deny" if fires else "allow", "decisions": 3}]


def test_what_is_asked_of_everybody_is_told_of_each(backtest):
    events = [step(0, findings=(DETECTOR,), decision_id=str(i)) for i in range(3)]
    model = {"detectors": [{"stage": "test_mean", "mode": "enforce"}], "policy": {"on_clear": "challenge"}}
    assert backtest(events, **model, false_positive_rate=0.01)["actions"] == [
        {"then": "allow", "now": "challenge", "decisions": 3}
    ]


def test_evidence_is_added_up_again(backtest):
    harmless = attack(30, 0.7, "calm")
    document = backtest([*attack(), *harmless], **monitor())
    model = document["models"][0]
    assert model["levels"]["hostile"] == {"then": 0, "now": 1}
    (shown,) = model["shown"]
    assert (shown["caller"], shown["now"], shown["first"]["monitor"]) == (ATTACKER, "hostile", "test_overlap")
    assert 0 < shown["first"]["caller_rows"] < 10
    denied = next(one["decisions"] for one in document["actions"] if one["now"] == "deny")
    assert denied == 30 - shown["first"]["caller_rows"]
    assert stage(document, "monitor/test_overlap")["fires_now"] == denied


def test_a_stricter_budget_fires_later(backtest):
    rows = [
        backtest(attack(), false_alarms_per_caller_month=budget, **monitor())["models"][0]["shown"][0]["first"]
        for budget in (0.1, 1e-9)
    ]
    assert rows[0]["caller_rows"] < rows[1]["caller_rows"]


def test_shadow_does_nothing(backtest):
    document = backtest(attack(), **monitor("shadow"))
    assert [one["now"] for one in document["actions"]] == ["allow"]
    assert document["models"][0]["levels"]["hostile"]["now"] == 1


def test_who_was_forgiven_begins_anew(backtest):
    events = attack(3)
    forgiven = [Forgiven(1e9 + 1, ATTACKER, "m")]
    both = [backtest([*events, *between, *attack(3)], **monitor()) for between in ([], forgiven)]
    assert [one["models"][0]["levels"]["hostile"]["now"] for one in both] == [1, 0]


def test_what_the_log_cannot_say_is_named(backtest):
    document = backtest(story(), detectors=[{"stage": "test_mean"}], **monitor())
    assert document["models"][0]["not_testable"] == ["detector/test_mean"]
    assert document["log"] == {"allowed": 2, "share": None, "complete": None}
    assert "`audit.sample_allowed: 1.0`" in backtest(story(), text=True, **monitor())


@pytest.mark.parametrize(("share", "complete"), [(1.0, True), (0.3, False)])
def test_an_incomplete_log_is_seen(backtest, share, complete):
    from guard.audit import sampled

    events = [event for event in attack(400, 0.7) if sampled(event.decision_id, share)]
    log = backtest(events, **monitor())["log"]
    assert log["complete"] is complete
    assert abs(log["share"] - share) < 0.05
    assert ("incomplete" in backtest(events, text=True, **monitor())) is not complete


def test_models_and_lines_that_do_not_count(backtest):
    document = backtest([step(1, model="other"), *reversed(story())], **monitor())
    assert (document["not_in_settings"], document["out_of_order"], document["decisions"]) == (1, 4, 5)


def test_p_values_that_were_left_out_lie_evenly():
    whole = tuple(np.linspace(0.005, 0.995, 100))
    np.testing.assert_allclose(filled(Credit("a", whole[:64], 100)), whole, atol=0.01)


# --- export


@pytest.fixture
def export(tmp_path):
    events = [*story(), Forgiven(1e9, ATTACKER, "m n")]
    (tmp_path / "log").write_text("".join(render(event) + "\n" for event in events) + "no event\n")

    def run(form):
        out = tmp_path / form
        assert cli.main(["export", str(tmp_path / "log"), "--format", form, "--out", str(out)]) == 0
        return out

    return run


def test_export_as_json_lines(export, capsys):
    lines = export("jsonl").read_text().splitlines()
    assert lines == [*map(render, story()), render(Forgiven(1e9, ATTACKER, "m n"))]
    assert "6 events, 1 lines left out" in capsys.readouterr().err


def test_export_as_cloud_events(export):
    events = [json.loads(line) for line in export("cloudevents").read_text().splitlines()]
    first, last = events[0], events[-1]
    assert set(first) == {"specversion", "type", "source", "id", "time", "subject", "datacontenttype", "data"}
    assert (first["specversion"], first["type"], first["id"]) == ("1.0", "io.guard.decision.v1", step(0).decision_id)
    assert (first["data"], first["subject"]) == (json.loads(render(step(0))), ATTACKER)
    assert (last["type"], last["source"]) == ("io.guard.forgiven.v1", "/guard/models/m%20n")
    assert len({event["id"] for event in events}) == 6


def test_export_as_parquet(export):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(export("parquet")).to_pylist()
    assert [row["decision_id"] for row in rows] == [event.decision_id for event in story()]
    assert rows[1]["links"][0]["neighbour"] == 100
    assert rows[1]["time"].timestamp() == story()[1].time_unix
    assert rows[4]["action"] == Action.DENY


def test_parquet_without_pyarrow_is_refused_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "log").touch()
    out = tmp_path / "out"
    assert cli.main(["export", str(tmp_path / "log"), "--format", "parquet", "--out", str(out)]) == 2
    assert ".[parquet]" in capsys.readouterr().err
    assert not out.exists()


def test_a_log_is_not_exported_onto_itself(tmp_path):
    log = tmp_path / "log"
    log.write_text(render(step(0)))
    assert cli.main(["export", str(log), "--format", "jsonl", "--out", str(log)]) == 2
    assert log.read_text() == render(step(0))
    assert replace(Trace(0), row=1).row == 1
