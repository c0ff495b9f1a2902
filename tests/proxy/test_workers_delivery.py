"""Two workers that trace, and that write to one bounded file: nothing is lost, and counts are of both."""

import json
from pathlib import Path

from tests.proxy.test_app import process
from tests.proxy.test_workers import anew, both_ready, sample, soon, two
from tests.proxy.world import FLAGGED, profile, request, serving
from tests.receivers import receiving

CALLS = 20


async def test_spans_and_rotated_events_of_two_workers(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    with receiving() as receiver:
        to = {"url": receiver.url}
        file = {"kind": "file", "path": str(log / "audit.jsonl"), "max_bytes": 4096, "keep": 100}
        settings = {
            "tracing": {"to": to, "ratio": 1.0},
            "audit": {"sample_allowed": 1.0, "sinks": [file, {"kind": "cloudevents", "to": to, "content": "batch"}]},
            "models": [{"name": "m", "profile": profile(tmp_path / "p")}],
        }
        async with serving() as server, process(tmp_path, two(server.address, **settings)) as guard:
            await both_ready(guard)
            for _ in range(CALLS):
                assert (await anew(guard, request(FLAGGED))).body
            await soon(lambda: sample(guard, 'guard_spans_total{outcome="written"}') == 2 * CALLS)
            await soon(lambda: sample(guard, 'guard_audit_deliveries_total{outcome="written",sink="file"}') == CALLS)
        spans = receiver.spans
        events = [
            event
            for one in receiver.requests
            if one.headers["content-type"] == "application/cloudevents-batch+json"
            for event in json.loads(one.body)
        ]
    files = [path for path in log.iterdir() if path.name.startswith("audit.jsonl")]
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert len(files) > 2
    assert all(path.stat().st_size <= 4096 for path in files)
    decisions = {line["decision_id"] for line in lines}
    assert len(lines) == len(decisions) == CALLS
    assert {event["id"] for event in events} == decisions
    calls = [span for span in spans if span.kind == 2]
    assert {span.trace_id.hex() for span in calls} == {line["trace_id"] for line in lines}
    assert len(calls) == CALLS
