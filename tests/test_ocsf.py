"""OCSF: every event holds against the schema of its class, and says what was found."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import ocsf_json_schema
import pytest

from guard.events import Event, Exempted, Forgiven, Reason
from guard.ocsf import VERSION, ocsf_of
from guard.techniques import BLACK_BOX_OPTIMIZATION, EVADE_MODEL, EXTRACT_MODEL
from guard.types import Action, Finding, Flagged, Level, Mode

FINDING = Finding("feature_squeezing", "detector", Mode.ENFORCE, (1.5,), (0.001,), 0.01)
MONITOR = Finding("prada", "monitor", Mode.SHADOW, (0.1,), (0.0001,), 0.01)
BROKEN = Finding("jpeg", "purifier", Mode.ENFORCE, error="StageError")
EVENT = Event(
    1_700_000_000.25,
    "d1",
    "c" * 32,
    "m",
    "2",
    Action.DENY,
    Action.DENY,
    True,
    (FINDING, MONITOR, BROKEN),
    Reason.INPUT,
    (EVADE_MODEL, BLACK_BOX_OPTIMIZATION, EXTRACT_MODEL),
    "ab" * 32,
    rows=1,
    level=Level.SUSPECT,
    flagged=(Flagged(0, "cd" * 32, ("feature_squeezing",)),),
    trace_id="0a" * 16,
    span_id="0b" * 8,
)
PLAIN = replace(EVENT, action=Action.ALLOW, would_be=Action.ALLOW, findings=(), reason=None, techniques=(), caller="")
PLAIN = replace(PLAIN, level=Level.CLEAR, version="", trace_id="")


@cache
def schemas() -> Any:
    file = Path(ocsf_json_schema.__file__).parent / "ocsf" / f"{VERSION}.json"
    return ocsf_json_schema.OcsfJsonSchemaEmbedded(json.loads(file.read_text(encoding="utf-8")))


@cache
def validator(class_uid: int, profiles: tuple[str, ...]) -> Any:
    name = schemas().lookup_class_name_from_uid(class_uid)
    return jsonschema.Draft202012Validator(schemas().get_class_schema(class_name=name, profiles=list(profiles)))


def held(document: dict[str, Any]) -> dict[str, Any]:
    """The event, once the schema of its class has found nothing wrong."""
    document = json.loads(json.dumps(document, allow_nan=False))
    validator(document["class_uid"], tuple(document["metadata"].get("profiles", ()))).validate(document)
    return document


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("level", Level)
def test_every_decision_is_a_detection_finding(action: Action, level: Level) -> None:
    document = held(ocsf_of(replace(EVENT, action=action, level=level)))
    assert (document["class_uid"], document["type_uid"], document["time"]) == (2004, 200401, 1_700_000_000_250)
    assert document["is_alert"]


def test_a_finding_says_what_fired_and_which_techniques() -> None:
    document = held(ocsf_of(EVENT))
    assert [evidence["name"] for evidence in document["evidences"]] == ["feature_squeezing", "prada"]
    attacks = document["finding_info"]["attacks"]
    assert [(one["technique"]["uid"], one.get("sub_technique", {}).get("uid")) for one in attacks] == [
        ("AML.T0015", None),
        ("AML.T0043", "AML.T0043.001"),
        ("AML.T0024", "AML.T0024.002"),
    ]
    assert (document["action"], document["disposition"], document["severity"]) == ("Denied", "Blocked", "Medium")
    assert document["metadata"]["correlation_uid"] == EVENT.trace_id
    assert document["unmapped"]["flagged_rows"][0]["sha256"] == "cd" * 32


def test_what_is_plain_is_no_alert() -> None:
    document = held(ocsf_of(PLAIN))
    assert not document["is_alert"]
    assert document["severity"] == "Informational"
    assert document["evidences"] == []


def test_shadow_findings_count() -> None:
    assert held(ocsf_of(replace(PLAIN, would_be=Action.DENY)))["severity"] == "Medium"
    assert held(ocsf_of(replace(PLAIN, level=Level.HOSTILE)))["severity"] == "High"
    assert held(ocsf_of(replace(PLAIN, would_be=Action.PURIFY)))["severity"] == "Low"


def test_a_technique_of_a_stage_of_ones_own() -> None:
    (attack,) = held(ocsf_of(replace(EVENT, techniques=("AML.T0029",))))["finding_info"]["attacks"]
    assert attack["technique"]["uid"] == "AML.T0029"


@pytest.mark.parametrize(
    "record",
    [Forgiven(1.0, "c1", "m"), Forgiven(1.0, "", ""), Exempted(1.0, "c1", "m", 2.0, "a test", ("someone",))],
)
def test_what_operators_did_for_a_caller(record: Forgiven | Exempted) -> None:
    document = held(ocsf_of(record))
    assert document["class_uid"] == 3004
    assert document["entity"]["uid"] == (record.caller or "unknown")


def test_the_schema_sees_a_fault() -> None:
    with pytest.raises(jsonschema.ValidationError):
        held({**ocsf_of(EVENT), "severity_id": 42})
    with pytest.raises(jsonschema.ValidationError):
        held({**ocsf_of(EVENT), "unknown": 1})
