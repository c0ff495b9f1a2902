import datetime as dt
import hashlib
import json
import os
import stat
import sys
import threading
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard import audit
from guard.audit import Audit, Broadcast, Event, Reason, TooManyReaders, event_of, render, sampled
from guard.metrics import Metrics
from guard.settings import Audit as Settings
from guard.types import Action, Conclusion, Decision, Finding, Mode, Query

INPUT = Finding("feature_squeezing", "detector", Mode.ENFORCE, (1.5,), (0.001,), 0.01)
CALLER = Finding("fingerprint", "monitor", Mode.ENFORCE, (7.0,), (0.0001,), 0.001)
QUIET = Finding("feature_squeezing", "detector", Mode.ENFORCE, (0.1,), (0.5,), 0.01)
FAILED = Finding("median", "purifier", Mode.ENFORCE, error="ValueError")
EVENT = Event(1_700_000_000.25, "d1", "peer:10.0.0.1", "m", "2", Action.DENY, Action.DENY, True, (INPUT,), Reason.INPUT)
ALLOWED = replace(EVENT, action=Action.ALLOW, would_be=Action.ALLOW, findings=())


def shadow(finding: Finding) -> Finding:
    return replace(finding, mode=Mode.SHADOW)


def conclude(*findings: Finding) -> Conclusion:
    query = Query(np.full((1, 4), 0.123456789, np.float32), "jwt:alice", "m", "d7")
    decision = Decision(query, Action.DENY, Action.DENY, enforced=True, findings=findings)
    return Conclusion(decision, Action.DENY, Action.DENY, findings)


# --- the event


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
        "atlas_version": audit.ATLAS_VERSION,
        "payload_sha256": digest,
        "findings": [
            {
                "stage": "feature_squeezing",
                "kind": "detector",
                "mode": "enforce",
                "fired": True,
                "threshold": 0.01,
                "rows": 1,
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
                "rows": 1,
                "scores": [7.0],
                "p_values": [0.0001],
                "error": None,
            },
        ],
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
    assert audit.reason_of(findings) == reason
    assert audit.techniques_of(findings) == techniques


def test_invalid_values_in_shadow_are_no_technique():
    finding = Finding("validation", "detector", Mode.SHADOW, p_values=(0.0,))
    assert audit.reason_of((finding,)) is Reason.INPUT
    assert audit.techniques_of((finding,)) == ()


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        ("ValueError", "ValueError"),
        ("ValueError: could not parse 'alice@example.com'", "ValueError"),
        ("returned shape (2, 3) for (2, 4)", "returned shape 2 3 for 2 4"),
        ("a\nb\x1b[31m", "ab31m"),
        (": x", "error"),
        ("e" * 1000, "e" * audit.MAX_NAME),
        (None, None),
    ],
)
def test_of_an_error_the_name_is_kept(error, recorded):
    assert audit.error_name(error) == recorded


@given(st.text(), st.text(), st.text())
def test_one_line_of_ascii_whatever_the_names(caller, model, version):
    line = render(replace(EVENT, caller=caller, model=model, version=version))
    assert all(" " <= character <= "~" for character in line)
    document = json.loads(line)
    assert document["caller"] == caller[: audit.MAX_NAME]
    assert document["model"] == model[: audit.MAX_NAME]
    assert set(document) == set(json.loads(render(EVENT)))


def test_numbers_that_json_lacks_are_null():
    finding = Finding("s", "detector", Mode.SHADOW, (float("nan"), float("inf"), 1.0), (0.5, 0.5, float("nan")), 0.1)
    document = json.loads(render(replace(EVENT, findings=(finding,))))["findings"][0]
    assert document["scores"] == [None, None, 1.0]
    assert document["p_values"] == [0.5, 0.5, None]


def test_of_many_rows_the_most_suspicious_are_kept():
    p_values = tuple(1.0 - row / 1000 for row in range(1000))
    finding = Finding("s", "detector", Mode.ENFORCE, tuple(float(row) for row in range(1000)), p_values, 0.01)
    document = json.loads(render(replace(EVENT, findings=(finding,))))["findings"][0]
    assert document["rows"] == 1000
    assert document["kept_rows"] == list(range(1000 - audit.MAX_ROWS, 1000))
    assert document["scores"] == document["kept_rows"]
    assert document["p_values"][-1] == p_values[-1]


def test_time_is_rfc_3339_utc():
    text = json.loads(render(EVENT))["time"]
    assert text.endswith("Z")
    assert dt.datetime.fromisoformat(text).timestamp() == EVENT.time_unix


def test_sampling_is_the_same_for_the_same_decision():
    ids = [f"decision {i}" for i in range(2000)]
    first = [sampled(i, 0.25) for i in ids]
    assert first == [sampled(i, 0.25) for i in ids]
    assert 400 < sum(first) < 600
    assert not any(sampled(i, 0.0) for i in ids)
    assert all(sampled(i, 1.0) for i in ids)
    assert all(sampled(i, 0.5) for i in ids if sampled(i, 0.25))


# --- writing


def counts(metrics: Metrics) -> dict[str, float]:
    samples = metrics.audit_events.collect()[0].samples
    return {sample.labels["outcome"]: sample.value for sample in samples if sample.name.endswith("_total")}


@pytest.fixture
def metrics():
    return Metrics()


def ids(path) -> list[str]:
    return [json.loads(line)["decision_id"] for line in path.read_text().splitlines()]


def test_events_are_appended_to_a_private_file(tmp_path, metrics):
    path = tmp_path / "audit.jsonl"
    for batch in (["a", "b"], ["c"]):
        log = Audit(Settings(file=path), metrics)
        for decision_id in batch:
            log.record(replace(EVENT, decision_id=decision_id))
        log.close()
    assert ids(path) == ["a", "b", "c"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert counts(metrics) == {"written": 3.0}


def test_events_go_to_standard_output_by_default(capsys, metrics):
    log = Audit(Settings(), metrics)
    log.record(EVENT)
    log.close()
    assert capsys.readouterr().out == render(EVENT) + "\n"


def test_shadow_decisions_are_recorded_and_plain_ones_are_not(tmp_path, metrics):
    path = tmp_path / "audit.jsonl"
    log = Audit(Settings(file=path), metrics)
    log.record(replace(ALLOWED, decision_id="plain"))
    log.record(replace(ALLOWED, decision_id="shadow", would_be=Action.DENY))
    log.close()
    assert ids(path) == ["shadow"]


def test_allowed_ones_are_sampled(tmp_path, metrics):
    path = tmp_path / "audit.jsonl"
    log = Audit(Settings(file=path, sample_allowed=0.5), metrics)
    names = [str(i) for i in range(200)]
    for decision_id in names:
        log.record(replace(ALLOWED, decision_id=decision_id))
    log.close()
    assert ids(path) == [name for name in names if sampled(name, 0.5)]
    assert 0 < len(ids(path)) < 200


def test_a_rotated_file_is_opened_anew(tmp_path, metrics):
    path, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    log = Audit(Settings(file=path), metrics)
    log.record(replace(EVENT, decision_id="a"))
    wait_for(lambda: path.stat().st_size > 0)
    path.rename(old)
    log.record(replace(EVENT, decision_id="b"))
    log.close()
    assert (ids(old), ids(path)) == (["a"], ["b"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def wait_for(condition, seconds: float = 10.0) -> None:
    ended = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        ended.wait(0.01)
    pytest.fail("it did not happen in time")


class StuckSink:
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        self.entered, self.go, self.lines = threading.Event(), threading.Event(), []

    def write(self, data: bytes) -> None:
        self.entered.set()
        self.go.wait(30)
        self.lines += data.decode().splitlines()

    def close(self) -> None:
        self.lines.append("closed")


@pytest.fixture
def stuck(monkeypatch):
    sink = StuckSink()
    monkeypatch.setattr(audit, "StdoutSink", lambda: sink)
    yield sink
    sink.go.set()


def test_what_does_not_fit_is_dropped_and_counted(stuck, metrics):
    log = Audit(Settings(max_queued=3), metrics)
    log.record(EVENT)
    assert stuck.entered.wait(10)  # the writer holds one
    for _ in range(5):
        log.record(EVENT)
    assert counts(metrics) == {"dropped": 2.0}
    stuck.go.set()
    log.close()
    assert counts(metrics) == {"dropped": 2.0, "written": 4.0}
    assert stuck.lines == [render(EVENT)] * 4 + ["closed"]


@pytest.mark.parametrize("max_queued", [2, 9])
def test_closing_does_not_wait_for_a_stuck_sink(stuck, metrics, max_queued):
    log = Audit(Settings(max_queued=max_queued), metrics)
    log.record(EVENT)
    assert stuck.entered.wait(10)
    log.record(EVENT)
    log.record(EVENT)
    log.close(timeout_s=0.05)
    assert counts(metrics)["dropped"] == 2.0


def test_after_closing_nothing_is_taken(tmp_path, metrics):
    log = Audit(Settings(file=tmp_path / "a"), metrics)
    log.close()
    log.close()
    log.record(EVENT)
    assert counts(metrics) == {"dropped": 1.0}


class FullDisk:
    """os.write that takes half, then nothing, until there is room."""

    def __init__(self, monkeypatch) -> None:
        self.calls, self.room, self.real = 0, False, os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, fd: int, data) -> int:
        if threading.current_thread().name != "guard-audit" or self.room:
            return self.real(fd, data)
        self.calls += 1
        if self.calls == 1:
            return self.real(fd, data[: len(data) // 2])
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_counted_and_tears_no_further_line(tmp_path, metrics, monkeypatch, caplog):
    path = tmp_path / "audit.jsonl"
    disk = FullDisk(monkeypatch)
    log = Audit(Settings(file=path), metrics)
    log.record(replace(EVENT, decision_id="torn"))
    wait_for(lambda: counts(metrics).get("failed") == 1.0)
    log.record(replace(EVENT, decision_id="lost"))
    wait_for(lambda: counts(metrics).get("failed") == 2.0)
    disk.room = True
    log.record(replace(EVENT, decision_id="kept"))
    log.close()
    torn, kept = path.read_text().splitlines()
    assert render(replace(EVENT, decision_id="torn")).startswith(torn)
    assert json.loads(kept)["decision_id"] == "kept"
    assert counts(metrics) == {"failed": 2.0, "written": 1.0}
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1


def test_a_closed_standard_output_is_counted(monkeypatch, metrics, tmp_path):
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
    log = Audit(Settings(), metrics)
    log.record(EVENT)
    log.close()
    assert counts(metrics) == {"failed": 1.0}


def test_a_file_that_cannot_be_opened(tmp_path, metrics):
    with pytest.raises(OSError):
        Audit(Settings(file=tmp_path / "no" / "such"), metrics)


# --- watching


async def test_every_reader_gets_every_event(metrics):
    cast: Broadcast[Event] = Broadcast(metrics)
    cast.publish(replace(EVENT, decision_id="before"))
    readers = [cast.subscribe(), cast.subscribe()]
    for decision_id in ("a", "b"):
        cast.publish(replace(EVENT, decision_id=decision_id))
    cast.close()
    for reader in readers:
        assert [(event.decision_id, lost) async for event, lost in reader] == [("a", 0), ("b", 0)]


async def test_a_slow_reader_loses_the_oldest_and_is_told(metrics):
    cast: Broadcast[str] = Broadcast(metrics)
    slow, quick = cast.subscribe(2), cast.subscribe(10)
    for event in "abcde":
        cast.publish(event)
    cast.close()
    assert [item async for item in slow] == [("d", 3), ("e", 3)]
    assert [event async for event, _ in quick] == list("abcde")
    assert metrics.watch_lost.collect()[0].samples[0].value == 3.0


async def test_readers_are_bounded_and_a_place_is_given_back(metrics):
    cast: Broadcast[str] = Broadcast(metrics, max_readers=1)
    reader = cast.subscribe()
    with pytest.raises(TooManyReaders):
        cast.subscribe()
    reader.close()
    reader.close()
    cast.subscribe()


async def test_a_waiting_reader_ends_when_closed(metrics):
    import asyncio

    cast: Broadcast[str] = Broadcast(metrics)
    reader = cast.subscribe()
    waiting = asyncio.ensure_future(anext(reader, None))
    await asyncio.sleep(0)
    cast.publish("a")
    assert await waiting == ("a", 0)
    waiting = asyncio.ensure_future(anext(reader, None))
    await asyncio.sleep(0)
    reader.close()
    assert await waiting is None
