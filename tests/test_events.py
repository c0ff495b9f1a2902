"""What is recorded of a decision, and what is not."""

import datetime as dt
import hashlib
import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard import events
from guard.events import Event, Reason, event_of, render
from guard.types import Action, Conclusion, Decision, Finding, Mode, Query

INPUT = Finding("feature_squeezing", "detector", Mode.ENFORCE, (1.5,), (0.001,), 0.01)
CALLER = Finding("fingerprint", "monitor", Mode.ENFORCE, (7.0,), (0.0001,), 0.001)
QUIET = Finding("feature_squeezing", "detector", Mode.ENFORCE, (0.1,), (0.5,), 0.01)
FAILED = Finding("median", "purifier", Mode.ENFORCE, error="ValueError")
EVENT = Event(1_700_000_000.25, "d1", "peer:10.0.0.1", "m", "2", Action.DENY, Action.DENY, True, (INPUT,), Reason.INPUT)


def shadow(finding: Finding) -> Finding:
    return replace(finding, mode=Mode.SHADOW)


def conclude(*findings: Finding) -> Conclusion:
    query = Query(np.full((1, 4), 0.123456789, np.float32), "jwt:alice", "m", "d7")
    decision = Decision(query, Action.DENY, Action.DENY, enforced=True, findings=findings)
    return Conclusion(decision, Action.DENY, Action.DENY, findings)


def test_event_of_a_conclusion():
    digest = hashlib.sha256(b"payload").hexdigest()
    event = event_of(conclude(INPUT, CALLER), time_unix=1.5, model="m", version="2", payload_sha256=digest)
    document = json.loads(render(event))
    assert document == {
        "time": "1970-01-01T00:00:01.500000Z",
        "event": "guard.decision",
        "decision_id": "d7",
        "caller": "jwt:alice",
        "model": "m",
        "version": "2",
        "action": "deny",
        "would_be": "deny",
        "enforced": True,
        "reason": "caller",
        "atlas_techniques": ["AML.T0015", "AML.T0043.001"],
        "atlas_version": events.ATLAS_VERSION,
        "payload_sha256": digest,
        "rows": 1,
        "kept_rows": [],
        "findings": [
            {
                "stage": "feature_squeezing",
                "kind": "detector",
                "mode": "enforce",
                "fired": True,
                "threshold": 0.01,
                "scores": [1.5],
                "p_values": [0.001],
                "error": None,
            },
            {
                "stage": "fingerprint",
                "kind": "monitor",
                "mode": "enforce",
                "fired": True,
                "threshold": 0.001,
                "scores": [7.0],
                "p_values": [0.0001],
                "error": None,
            },
        ],
        "level": "clear",
        "former_level": "clear",
        "caller_rows": 0,
        "links": [],
        "clusters": [],
        "evidence": [],
        "flagged_rows": [],
    }


def test_the_payload_is_not_in_the_event():
    line = render(event_of(conclude(INPUT), time_unix=1.0, model="m", version="", payload_sha256=""))
    assert "0.1234" not in line
    assert not {"x", "payload", "body"} & {field.name for field in fields(Event)}


@pytest.mark.parametrize(
    ("findings", "reason", "techniques"),
    [
        ((), None, ()),
        ((QUIET,), None, ()),
        ((INPUT,), Reason.INPUT, ("AML.T0015",)),
        ((CALLER,), Reason.CALLER, ("AML.T0043.001",)),
        ((INPUT, shadow(CALLER)), Reason.INPUT, ("AML.T0015", "AML.T0043.001")),
        ((shadow(INPUT), CALLER), Reason.CALLER, ("AML.T0015", "AML.T0043.001")),
        ((shadow(CALLER), shadow(INPUT)), Reason.CALLER, ("AML.T0015", "AML.T0043.001")),
        ((QUIET, FAILED), Reason.ERROR, ()),
        ((INPUT, FAILED), Reason.INPUT, ("AML.T0015",)),
    ],
)
def test_reason_and_techniques(findings, reason, techniques):
    assert events.reason_of(findings) == reason
    assert events.techniques_of(findings) == techniques


def test_invalid_values_in_shadow_are_no_technique():
    finding = Finding("validation", "detector", Mode.SHADOW, p_values=(0.0,))
    assert events.reason_of((finding,)) is Reason.INPUT
    assert events.techniques_of((finding,)) == ()


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        ("ValueError", "ValueError"),
        ("ValueError: could not parse 'alice@example.com'", "ValueError"),
        ("returned shape (2, 3) for (2, 4)", "returned shape 2 3 for 2 4"),
        ("a\nb\x1b[31m", "ab31m"),
        (": x", "error"),
        ("e" * 1000, "e" * events.MAX_NAME),
        (None, None),
    ],
)
def test_of_an_error_the_name_is_kept(error, recorded):
    assert events.error_name(error) == recorded


@given(st.text(), st.text(), st.text())
def test_one_line_of_ascii_whatever_the_names(caller, model, version):
    event = replace(EVENT, caller=caller, model=model, version=version)
    line = render(event)
    assert all(" " <= character <= "~" for character in line)
    document = json.loads(line)
    assert (document["caller"], document["model"], document["version"]) == (caller, model, version)
    assert set(document) == set(json.loads(render(EVENT)))


def test_names_are_bounded():
    query = Query(np.zeros((1, 4), np.float32), "c" * 999, "m", "d")
    decision = Decision(query, Action.DENY, Action.DENY, enforced=True)
    conclusion = Conclusion(decision, Action.DENY, Action.DENY, ())
    event = event_of(conclusion, time_unix=0.0, model="m" * 999, version="v" * 999, payload_sha256="")
    assert {len(event.caller), len(event.model), len(event.version)} == {events.MAX_NAME}


def test_numbers_that_json_lacks_are_null():
    finding = Finding("s", "detector", Mode.SHADOW, (float("nan"), float("inf"), 1.0), (0.5, 0.5, float("nan")), 0.1)
    document = json.loads(render(replace(EVENT, findings=(finding,))))["findings"][0]
    assert document["scores"] == [None, None, 1.0]
    assert document["p_values"] == [0.5, 0.5, None]


def of_rows(rows: int, *findings: Finding) -> Event:
    query = Query(np.zeros((rows, 4), np.float32), "c", "m", "d")
    decision = Decision(query, Action.DENY, Action.DENY, enforced=True)
    conclusion = Conclusion(decision, Action.DENY, Action.DENY, findings)
    return event_of(conclusion, time_unix=0.0, model="m", version="", payload_sha256="")


def test_of_many_rows_the_most_suspicious_are_kept():
    p_values = tuple(1.0 - row / 1000 for row in range(1000))
    scores = tuple(float(row) for row in range(1000))
    detector = Finding("s", "detector", Mode.ENFORCE, scores, p_values, 0.01)
    monitor = Finding("t", "monitor", Mode.ENFORCE, scores, (0.5,), 0.01)
    failed = Finding("u", "detector", Mode.ENFORCE, error="ValueError")
    event = of_rows(1000, detector, monitor, failed)
    assert (event.rows, event.kept_rows) == (1000, tuple(range(1000 - events.MAX_ROWS, 1000)))
    assert event.findings[0].scores == event.findings[1].scores == tuple(float(row) for row in event.kept_rows)
    assert event.findings[0].p_values[-1] == p_values[-1]
    assert event.findings[1].p_values == (0.5,)
    assert event.findings[2] == failed


def test_what_fired_is_never_cut_away():
    loud = Finding("a", "detector", Mode.ENFORCE, (1.0,) * 1000, (0.001,) * 999 + (1.0,), 0.01)
    single = Finding("b", "detector", Mode.ENFORCE, (1.0,) * 1000, (1.0,) * 999 + (0.004,), 0.005)
    event = of_rows(1000, loud, single)
    assert all(finding.fired for finding in event.findings)
    assert len(event.kept_rows) <= events.MAX_ROWS + 2


@pytest.mark.parametrize("rows", [1, events.MAX_ROWS])
def test_of_few_rows_all_are_kept(rows):
    finding = Finding("a", "detector", Mode.ENFORCE, (1.0,) * rows, (0.5,) * rows, 0.01)
    event = of_rows(rows, finding)
    assert (event.rows, event.kept_rows, event.findings) == (rows, (), (finding,))


def test_many_rows_without_p_values():
    event = of_rows(1000, Finding("u", "detector", Mode.ENFORCE, error="ValueError"))
    assert len(event.kept_rows) == events.MAX_ROWS


def test_time_is_rfc_3339_utc():
    text = json.loads(render(EVENT))["time"]
    assert text.endswith("Z")
    assert dt.datetime.fromisoformat(text).timestamp() == EVENT.time_unix
