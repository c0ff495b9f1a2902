"""Explaining decisions and callers: the journal, a log on disk, the API, the client and the command line."""

import asyncio
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard import cli, explaining, registry
from guard.cli_callers import safe
from guard.client import GuardClient, UnknownModel
from guard.events import Exempted, Forgiven, event_of, render
from guard.journal import Journal
from guard.recorded import Tally, parse, read
from guard.techniques import technique_of, techniques_of
from guard.traces import MAX_TRACES, Cluster, Credit, Trace
from guard.types import (
    Action,
    Alert,
    Component,
    Conclusion,
    Decision,
    Finding,
    Level,
    Link,
    Match,
    Mode,
    Neighbour,
    Past,
    Query,
    Seen,
    Sketch,
    Update,
)
from tests.core.helpers import STAGES
from tests.forensics import ATTACKER, decision_id, step, story
from tests.proxy.admin import TOKEN, FakeModel, serving


def write(tmp_path, events):
    path = tmp_path / "audit.jsonl"
    path.write_text("".join(render(event) + "\n" for event in events))
    return path


# --- what is recorded


def decide(rows: int = 1, **update) -> Conclusion:
    neighbour = Neighbour(7, 20, np.zeros(2, np.float32), 5, 1, bytes(8))
    linked = Seen(Sketch(b"d", np.zeros(1, np.uint64)), Match(20, number=9), Link(neighbour, 0.25, 0.5))
    seen = (linked, *(Seen(linked.sketch, Match(0, number=10 + i)) for i in range(rows - 1)))
    query = Query(np.zeros((rows, 4), np.float32), "c", "m", "d")
    decision = Decision(
        query, Action.ALLOW, Action.ALLOW, enforced=True, seen=seen, past=Past(alert=Alert(Level.WATCH), rows=3),
        update=Update(joins={9: 5}, **update), level=Level.SUSPECT, components={5: Component(rows=4, owners=2)},
    )  # fmt: skip
    return Conclusion(decision, Action.ALLOW, Action.ALLOW, (), update=Update(evidence={"late": (0.5,)}))


def test_links_levels_and_evidence_are_recorded():
    conclusion = decide(
        evidence={"fingerprint": (0.01,)}, judged={"prada": (64, 0.2)}, components={5: (0.02,)},
        alert=Alert(Level.SUSPECT),
    )  # fmt: skip
    event = event_of(conclusion, time_unix=0.0, model="m", version="", payload_sha256="")
    assert event.traces == (Trace(0, 9, False, 7, "00" * 8, 20, 0.25, 0.5, 5, True),)
    assert event.credits == (
        Credit("fingerprint", (0.01,), 1),
        Credit("prada", (0.2,), 1),
        Credit("", (0.02,), 1, 5),
        Credit("late", (0.5,), 1, after=True),
    )
    assert event.clusters == (Cluster(5, 4, 2),)
    assert (event.level, event.former, event.caller_rows, event.rose) == (Level.SUSPECT, Level.WATCH, 3, True)


def test_the_level_that_did_not_change_did_not_rise():
    event = event_of(decide(), time_unix=0.0, model="m", version="", payload_sha256="")
    assert (event.former, event.rose) == (Level.SUSPECT, False)


def test_of_many_rows_the_nearest_and_most_suspicious_are_recorded():
    p_values = tuple(1.0 - i / 1000 for i in range(200))
    event = event_of(decide(200, evidence={"a": p_values}), time_unix=0.0, model="m", version="", payload_sha256="")
    assert len(event.traces) == MAX_TRACES
    assert event.traces[0].neighbour == 7
    assert event.credits[0] == Credit("a", p_values[-MAX_TRACES:], 200)
    assert len(render(event)) < 20_000


@pytest.mark.parametrize("i", range(5))
def test_a_line_is_read_back(i):
    event = step(i)
    back = parse(render(event))
    assert replace(back, traces=()) == replace(event, traces=())
    for mine, its in zip(event.traces, back.traces, strict=True):
        assert repr(mine) == repr(its)  # NaN is not equal to itself
    assert parse(render(Forgiven(1.5, "a", "m"))) == Forgiven(1.5, "a", "m")
    exempt = Exempted(1.5, "a", "m", 9.5, "a \n test", ("ann", "bob"))
    assert parse(render(exempt)) == exempt


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_whatever_a_field_holds_a_line_is_an_event_or_refused(value):
    document = json.loads(render(step(1)))
    for key in document:
        line = json.dumps(document | {key: value})
        try:
            event = parse(line)
        except ValueError:
            continue
        assert event is None or render(event)


def test_lines_that_are_no_events_are_counted(tmp_path):
    path = write(tmp_path, story()[:2])
    path.write_text(path.read_text() + 'torn {"\n\n{"event":"other"}\n[1]\n')
    tally = Tally()
    assert len(list(read(path, tally))) == 2
    assert (tally.events, tally.unreadable, tally.others) == (2, 1, 2)


# --- techniques


def test_techniques_by_monitor():
    def fired(stage, p=1e-4, kind="monitor"):
        return Finding(stage, kind, Mode.ENFORCE, (1.0,), (p,), 0.001)

    assert technique_of("cohort global") is None
    assert technique_of("prada") == "AML.T0024.002"
    assert techniques_of([fired("prada"), fired("x", kind="detector")]) == ("AML.T0015", "AML.T0024.002")
    alert = Finding("alert", "monitor", Mode.ENFORCE, (1.0,), (0.3,), 1.0)
    assert techniques_of([fired("prada", 0.01), fired("fingerprint", 0.5), alert]) == ("AML.T0024.002",)
    assert techniques_of([alert]) == ("AML.T0043.001",)


# --- the journal


def test_the_journal_keeps_what_monitors_found():
    journal = Journal(10)
    for event in story():
        journal.record(event)
    assert [event.decision_id for event in journal.events] == [decision_id(i) for i in (1, 2, 3, 4)]
    assert journal.origin("m", 100) == (decision_id(0), 0)  # the first query alarmed nobody
    assert journal.origin("n", 100) is None
    assert journal.origin("m", -1) is None
    assert journal.find(decision_id(0)) is None


def test_the_journal_is_bounded():
    journal = Journal(4)
    for i in range(50):
        journal.record(step(1, decision_id=str(i)))
    assert [event.decision_id for event in journal.events] == ["46", "47", "48", "49"]
    for i in range(8):
        rows = tuple(Trace(row, 1000 * i + row) for row in range(8))
        journal.record(step(1, decision_id=f"many {i}", traces=rows))
    assert len(journal) == 2
    assert journal.origin("m", 100) is None


def test_a_level_that_is_raised_by_a_measure_is_kept_once():
    journal = Journal(10)
    quiet = (Credit("a", (0.5,), 1),)
    for i in range(3):
        journal.record(step(3, decision_id=str(i), former=Level.SUSPECT, credits=quiet))
    assert [event.decision_id for event in journal.events] == ["0"]
    journal.forgive("m", ATTACKER)
    journal.record(step(3, decision_id="again", former=Level.SUSPECT, credits=quiet))
    assert len(journal) == 2


# --- explaining


def explained(tmp_path, how, **subject):
    if how == "log":
        return explaining.from_log(write(tmp_path, story()), Tally(), **subject)
    journal = Journal(10)
    for event in story():
        journal.record(event)
    return explaining.from_journal(journal, **subject)


@pytest.mark.parametrize("how", ["journal", "log"])
def test_a_decision_is_explained(tmp_path, how):
    found = explained(tmp_path, how, decision_id=decision_id(1))
    (one,) = found.decisions
    assert (found.caller, one.monitor, one.clusters[0].number) == (ATTACKER, "test_overlap", 100)
    (link,) = one.links
    assert (link.decision_id, link.decision_row, link.trace.neighbour) == (decision_id(0), 0, 100)
    assert [(c.level, c.caller_rows, c.decision_id) for c in found.crossings] == [
        (Level.WATCH, 2, decision_id(2)),
        (Level.SUSPECT, 3, decision_id(3)),
        (Level.HOSTILE, 4, decision_id(4)),
    ]
    assert found.crossings[0].technique == "AML.T0043.001"


@pytest.mark.parametrize("how", ["journal", "log"])
def test_a_caller_is_explained(tmp_path, how):
    found = explained(tmp_path, how, caller=ATTACKER, limit=2)
    assert [one.decision_id for one in found.decisions] == [decision_id(3), decision_id(4)]
    assert found.left_out == 2
    for nothing in ({"caller": "nobody"}, {"decision_id": "f" * 32}, {"caller": ATTACKER, "model": "n"}):
        assert explained(tmp_path, how, **nothing) is None


# --- the API, the client and the command line


@pytest.fixture
async def guard(tmp_path, monkeypatch):
    """A Guard that has seen the story, and `await guard(function, ...)`, which runs it in a thread."""
    monkeypatch.setattr(registry, "_stages", registry._stages | STAGES)
    monkeypatch.setenv("GUARD_ADMIN_TOKEN", TOKEN)
    async with serving(tmp_path / "audit", m=FakeModel.of(), n=FakeModel.of()) as (runtime, address):
        for event in story():
            runtime.journal.record(event)
        update = Update(evidence={"test_overlap": (1e-6,) * 3}, alert=Alert(Level.HOSTILE, 2e9))
        await runtime.store.credit("m", ATTACKER, (), update, 1_700_000_000.0)
        await runtime.store.credit("m", "calm", (), Update(evidence={"test_overlap": (0.5,)}), 1_700_000_001.0)

        async def call(function, *args, **options):
            return await asyncio.to_thread(function, *args, **options)

        call.runtime, call.address = runtime, address
        with GuardClient(address, TOKEN) as call.client:
            yield call


async def test_callers_are_listed_the_most_alarming_first(guard):
    first, second = await guard(guard.client.callers)
    assert (first.caller, first.model, first.level, second.caller) == (ATTACKER, "m", Level.HOSTILE, "calm")
    assert first.evidence[0].log_value > 10 > second.evidence[0].log_value
    assert (first.until is not None, second.until, first.since.year) == (True, None, 2023)
    assert len(await guard(guard.client.callers, limit=1)) == 1
    assert len(await guard(guard.client.callers, min_level=Level.WATCH)) == 1
    assert await guard(guard.client.callers, "n") == ()
    with pytest.raises(UnknownModel):
        await guard(guard.client.callers, "absent")


async def test_the_client_gets_the_journals_explanation(guard):
    got = await guard(guard.client.explain, decision_id=decision_id(1))
    own = explaining.from_journal(guard.runtime.journal, decision_id=decision_id(1))
    assert replace(got, state=()) == own
    assert got.state[0].level is Level.HOSTILE
    known = await guard(guard.client.explain, caller="calm")
    assert (known.decisions, known.state[0].caller) == ((), "calm")
    with pytest.raises(UnknownModel):
        await guard(guard.client.explain, caller="nobody")


async def test_who_is_forgiven_begins_anew_and_that_is_recorded(guard, tmp_path):
    assert await guard(guard.client.forgive, "m", ATTACKER)
    assert [caller.caller for caller in await guard(guard.client.callers)] == ["calm"]
    assert not await guard(guard.client.forgive, "m", ATTACKER)
    guard.runtime.audit.close()
    (line,) = (tmp_path / "audit").read_text().splitlines()
    event = parse(line)
    assert isinstance(event, Forgiven)
    assert (event.caller, event.model) == (ATTACKER, "m")


async def test_the_command_line(guard, capsys):
    admin = ["--admin", guard.address]
    assert await guard(cli.main, ["callers", *admin]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert (head.split()[0], first.split()[:3], second.split()[0]) == ("CALLER", [ATTACKER, "m", "hostile"], "calm")
    assert await guard(cli.main, ["callers", "--json", *admin]) == 0
    assert json.loads(capsys.readouterr().out)[0]["level"] == "hostile"
    assert await guard(cli.main, ["explain", decision_id(1), *admin]) == 0
    out = capsys.readouterr().out
    assert f"follows 100 (decision {decision_id(0)}, row 0)" in out
    assert "AML.T0043.001" in out
    assert await guard(cli.main, ["explain", ATTACKER, "--json", *admin]) == 0
    assert len(json.loads(capsys.readouterr().out)["decisions"]) == 4
    assert await guard(cli.main, ["explain", "nobody", *admin]) == 1
    assert "nothing is kept of it" in capsys.readouterr().err
    assert await guard(cli.main, ["forgive", ATTACKER, "--model", "m", *admin]) == 0
    assert await guard(cli.main, ["forgive", ATTACKER, "--model", "m", *admin]) == 1


def test_the_command_line_wants_a_token(monkeypatch, capsys):
    monkeypatch.delenv("GUARD_ADMIN_TOKEN", raising=False)
    assert cli.main(["callers"]) == 2
    assert "the admin token is needed" in capsys.readouterr().err


def test_the_command_line_explains_from_a_log(tmp_path, capsys):
    log = str(write(tmp_path, story()))
    assert cli.main(["explain", ATTACKER, "--log", log]) == 0
    assert "hostile" in capsys.readouterr().out
    assert cli.main(["explain", "nobody", "--log", log]) == 1
    assert cli.main(["explain", "nobody", "--log", str(tmp_path / "absent")]) == 2


def test_names_cannot_command_a_terminal():
    assert safe("a\x1b[31m\n") == "a\\u001b[31m\\n"
    assert math.isnan(Trace(0).distance)
