"""What Guard itself said of each query: its audit log, read after it has ended."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adversary.oracle import Record
from adversary.runner import NEVER

DETECTOR = "feature_squeezing"
MONITOR = "fingerprint"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision.

    score, p_value:  the detector's on the first row; None where it did not look (the caller was refused before).
    caller_flagged:  the monitor held enough evidence against the caller.
    """

    action: str
    reason: str | None
    score: float | None
    p_value: float | None
    caller_flagged: bool


def read(audit: Path) -> dict[str, Verdict]:
    """Decision id -> verdict."""
    with audit.open(encoding="utf-8") as lines:
        events = map(json.loads, lines)
        return {event["decision_id"]: _verdict(event) for event in events if event["event"] == "guard.decision"}


def _verdict(event: Mapping[str, Any]) -> Verdict:
    stages = {finding["stage"]: finding for finding in event["findings"]}
    detector, monitor = stages.get(DETECTOR, {}), stages.get(MONITOR, {})
    return Verdict(
        event["action"],
        event["reason"],
        next(iter(detector.get("scores", ())), None),
        next(iter(detector.get("p_values", ())), None),
        bool(monitor.get("fired")),
    )


def rows_until_flagged(records: Sequence[Record], verdicts: Mapping[str, Verdict]) -> int:
    """Rows that a caller sent until the monitor flagged him; NEVER where it did not."""
    rows = 0
    for record in records:
        rows += record.rows
        verdict = verdicts.get(record.decision_id)
        if verdict is not None and verdict.caller_flagged:
            return rows
    return NEVER
