import json

from adversary.oracle import Record
from adversary.runner import NEVER
from demo import verdicts


def event(decision, action="allow", fired=False, looked=True):
    findings = [{"stage": "fingerprint", "fired": fired, "scores": [0.5], "p_values": [0.1]}]
    if looked:
        findings.append({"stage": "feature_squeezing", "fired": False, "scores": [0.2, 0.9], "p_values": [0.3, 0.01]})
    return {"event": "guard.decision", "decision_id": decision, "action": action, "reason": None, "findings": findings}


def record(rows, decision):
    return Record(rows, "", 0.0, 0.0, "OK", decision, 0)


def test_the_audit_log_is_read_by_decision(tmp_path):
    path = tmp_path / "audit.jsonl"
    lines = [event("a"), event("b", "deny", fired=True, looked=False), {"event": "other"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = verdicts.read(path)
    assert set(found) == {"a", "b"}
    assert (found["a"].score, found["a"].p_value, found["a"].caller_flagged) == (0.2, 0.3, False)
    assert (found["b"].score, found["b"].action, found["b"].caller_flagged) == (None, "deny", True)
    records = [record(5, "a"), record(3, "unknown"), record(2, "b"), record(7, "a")]
    assert verdicts.rows_until_flagged(records, found) == 10
    assert verdicts.rows_until_flagged(records[:2], found) == NEVER
