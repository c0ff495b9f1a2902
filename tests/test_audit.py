"""Writing events down, and what happens where that fails."""

import json
import os
import stat
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from guard import audit
from guard.audit import Audit, Event, Reason, render, sampled
from guard.metrics import Metrics
from guard.settings import Audit as Settings
from guard.types import Action

EVENT = Event(1_700_000_000.25, "d1", "peer:10.0.0.1", "m", "2", Action.DENY, Action.DENY, True, (), Reason.INPUT)
ALLOWED = replace(EVENT, action=Action.ALLOW, would_be=Action.ALLOW)


def test_sampling_is_the_same_for_the_same_decision():
    ids = [f"decision {i}" for i in range(2000)]
    first = [sampled(i, 0.25) for i in ids]
    assert first == [sampled(i, 0.25) for i in ids]
    assert 400 < sum(first) < 600
    assert not any(sampled(i, 0.0) for i in ids)
    assert all(sampled(i, 1.0) for i in ids)
    assert all(sampled(i, 0.5) for i in ids if sampled(i, 0.25))


def counts(metrics: Metrics) -> dict[str, float]:
    samples = metrics.audit_events.collect()[0].samples
    return {one.labels["outcome"]: one.value for one in samples if one.name.endswith("_total") and one.value}


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


WRITER = """
import sys
from pathlib import Path
from guard.sinks import StdoutSink, TurnSink

sink = TurnSink(StdoutSink(), Path(sys.argv[1]))
for _ in range(20):
    sink.write(sys.argv[2].encode() * 200_000 + b"\\n")  # more than a pipe holds
sink.close()
"""


def test_lines_of_several_processes_stay_whole(tmp_path):
    reading, writing = os.pipe()
    words = [sys.executable, "-c", WRITER, str(tmp_path / "turn")]
    writers = [subprocess.Popen([*words, letter], stdout=writing) for letter in "abc"]
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().splitlines()
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert sorted(lines) == [letter * 200_000 for letter in (b"a", b"b", b"c") for _ in range(20)]
