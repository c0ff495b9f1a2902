"""Audit events as OCSF 1.6: Detection Findings (class 2004) with MITRE ATLAS techniques; tests hold them to its schema.

Source: https://schema.ocsf.io/1.6.0/classes/detection_finding. A decision is a finding, its stages that fired are its
evidences; what OCSF has no word for is under `unmapped`. That a caller was forgiven or exempted is an Entity
Management event (class 3004). The caller is the audit log's: a hash or a name, as `identity` has it. No payloads.
"""

from typing import Any

import guard
from guard.events import Event, Exempted, Forgiven, Record, document_of
from guard.techniques import ATLAS_VERSION, NAMES
from guard.types import Action, Level

VERSION = "1.6.0"
_UNMAPPED = (
    *("would_be", "enforced", "reason", "rows", "kept_rows", "level", "former_level"),
    *("caller_rows", "payload_sha256", "flagged_rows"),
)
_INFORMATIONAL, _LOW, _MEDIUM, _HIGH = 1, 2, 3, 4
_SEVERITIES = {_INFORMATIONAL: "Informational", _LOW: "Low", _MEDIUM: "Medium", _HIGH: "High"}
_ACTIONS = {  # action_id, disposition_id
    Action.ALLOW: (1, "Allowed", 1, "Allowed"),
    Action.PURIFY: (4, "Modified", 11, "Corrected"),
    Action.DEGRADE: (4, "Modified", 99, "Degraded"),
    Action.DELAY: (1, "Allowed", 14, "Delayed"),
    Action.THROTTLE: (2, "Denied", 99, "Throttled"),
    Action.CHALLENGE: (2, "Denied", 23, "Challenge"),
    Action.DENY: (2, "Denied", 2, "Blocked"),
}


def ocsf_of(record: Record) -> dict[str, Any]:
    """One event as plain data."""
    return _finding(record) if isinstance(record, Event) else _caller(record)


def _base(record: Record, class_uid: int, activity: int, severity: int) -> dict[str, Any]:
    return {
        "class_uid": class_uid,
        "category_uid": class_uid // 1000,
        "activity_id": activity,
        "type_uid": class_uid * 100 + activity,
        "time": round(record.time_unix * 1000),
        "severity_id": severity,
        "severity": _SEVERITIES[severity],
        "metadata": {
            "version": VERSION,
            "product": {"name": "Guard", "vendor_name": "Guard", "version": guard.__version__},
        },
    }


def _severity(event: Event) -> int:
    """What would have been done counts, too: shadow mode changes nothing of what was found."""
    if event.level is Level.HOSTILE:
        return _HIGH
    if Action.DENY in {event.action, event.would_be} or event.level is Level.SUSPECT:
        return _MEDIUM
    return _INFORMATIONAL if event.plain and not event.rose else _LOW


def _finding(event: Event) -> dict[str, Any]:
    document, base = document_of(event), _base(event, 2004, 1, _severity(event))
    base["metadata"] |= {"uid": event.decision_id, "profiles": ["security_control"]}
    if event.trace_id:
        base["metadata"]["correlation_uid"] = event.trace_id
    action_id, action, disposition_id, disposition = _ACTIONS[event.action]
    fired = [finding for finding in document["findings"] if finding["fired"]]
    return {
        **base,
        "message": f"{event.model}: {action}",
        "action_id": action_id,
        "action": action,
        "disposition_id": disposition_id,
        "disposition": disposition,
        "is_alert": not event.plain,
        "status_id": 1,
        "status": "New",
        "finding_info": {
            "uid": event.decision_id or "unknown",
            "title": f"{'Suspicious inference' if fired else 'Inference'} request to {event.model}",
            "created_time": base["time"],
            "types": [NAMES.get(technique, technique) for technique in event.techniques],
            "attacks": [_attack(technique) for technique in event.techniques],
            **({"analytic": _analytic(fired[0])} if fired else {}),
            "product": base["metadata"]["product"],
        },
        "evidences": [_evidence(event, finding) for finding in fired],
        "resources": [{"name": event.model or "unknown", "type": "ML Model", "version": event.version}],
        "unmapped": {key: document[key] for key in _UNMAPPED},
    }


def _attack(technique: str) -> dict[str, Any]:
    whole = ".".join(technique.split(".")[:2])
    made = {"version": ATLAS_VERSION, "technique": _named(whole)}
    return made if technique == whole else {**made, "sub_technique": _named(technique)}


def _named(technique: str) -> dict[str, str]:
    name = {"name": NAMES[technique]} if technique in NAMES else {}
    return {"uid": technique, **name, "src_url": f"https://atlas.mitre.org/techniques/{technique}"}


def _analytic(finding: dict[str, Any]) -> dict[str, Any]:
    kinds = {"monitor": (2, "Behavioral"), "detector": (3, "Statistical")}
    type_id, kind = kinds.get(finding["kind"], (99, finding["kind"]))
    return {"uid": finding["stage"], "name": finding["stage"], "type_id": type_id, "type": kind}


def _evidence(event: Event, finding: dict[str, Any]) -> dict[str, Any]:
    made = {"name": finding["stage"], "data": finding}
    if event.caller:
        made["actor"] = {"user": {"uid": event.caller}}
    return made


def _caller(record: Forgiven | Exempted) -> dict[str, Any]:
    base, document = _base(record, 3004, 3, _INFORMATIONAL), document_of(record)
    base["metadata"]["event_code"] = document["event"]
    return {
        **base,
        "message": document["event"],
        "entity": {"uid": record.caller or "unknown", "type": "caller", "type_id": 99},
        "status_id": 1,
        "status": "Success",
        "unmapped": {key: value for key, value in document.items() if key not in {"time", "event", "caller"}},
    }
