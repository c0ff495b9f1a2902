"""Files that are bounded, and events on their way to several places at a time."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_binary, from_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from guard.audit import Audit
from guard.events import Exempted, Forgiven, render
from guard.metrics import Metrics
from guard.settings import Audit as Settings
from guard.settings import ConfigError
from guard.sinks import FileSink, TurnSink
from tests.receivers import Receiver, receiving
from tests.servers.process import free_port
from tests.test_ocsf import EVENT, held

LINE = b"x" * 99 + b"\n"
FORGIVEN = Forgiven(1_700_000_001.0, "c1", "m")


@pytest.fixture
def receiver():
    with receiving() as made:
        yield made


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def audit_of(metrics: Metrics, *sinks: dict[str, Any], **values: Any) -> Audit:
    return Audit(Settings.model_validate({"sinks": sinks, **values}), metrics)


def delivered(metrics: Metrics) -> dict[tuple[str, str], float]:
    samples = [s for s in metrics.audit_deliveries.collect()[0].samples if s.name.endswith("_total")]
    return {(s.labels["sink"], s.labels["outcome"]): s.value for s in samples}


# --- files


def test_a_full_file_becomes_a_predecessor(tmp_path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = FileSink(path, max_bytes=250, keep=2)
    for _ in range(9):
        sink.write(LINE)
    sink.close()
    sizes = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    assert sizes == {"audit.jsonl": 100, "audit.jsonl.1": 200, "audit.jsonl.2": 200}
    assert {oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()} == {"0o600"}


def test_one_write_larger_than_the_bound_has_a_file_of_its_own(tmp_path) -> None:
    sink = FileSink(tmp_path / "a", max_bytes=150, keep=1)
    sink.write(LINE * 3)
    sink.write(LINE)
    assert ((tmp_path / "a").stat().st_size, (tmp_path / "a.1").stat().st_size) == (100, 300)


def test_what_is_no_file_is_not_rotated(tmp_path) -> None:
    sink = FileSink(Path(os.devnull), max_bytes=50)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    sink = FileSink(fifo, max_bytes=50)
    sink.write(LINE)
    sink.write(LINE)
    assert os.read(reading, 1000) == LINE * 2
    os.close(reading)
    assert [file.name for file in tmp_path.iterdir()] == ["fifo"]


def test_writers_in_turn_lose_nothing_as_they_rotate(tmp_path) -> None:
    """Each has opened the file for itself, as workers do."""
    path, turn = tmp_path / "audit.jsonl", tmp_path / "turn"

    def write(letter: bytes) -> None:
        sink = TurnSink(FileSink(path, max_bytes=1000, keep=1000), turn)
        for number in range(100):
            sink.write(letter + b" %d\n" % number)
        sink.close()

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = [file for file in tmp_path.iterdir() if file.name != "turn"]
    lines = [line for file in files for line in file.read_bytes().splitlines()]
    assert sorted(lines) == sorted(letter + b" %d" % n for letter in (b"a", b"b", b"c") for n in range(100))
    assert all(file.stat().st_size <= 1000 for file in files)
    assert len(files) > 1


TORN = """
import os, signal, sys
from pathlib import Path
from guard.sinks import FileSink

write = os.write
os.write = lambda fd, data: write(fd, data[:7]) + os.kill(os.getpid(), signal.SIGKILL)
FileSink(Path(sys.argv[1])).write(b"of another one\\n")
"""


def killed_as_it_writes(path) -> None:
    ended = subprocess.run([sys.executable, "-c", TORN, str(path)], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL


def test_a_line_that_anothers_end_has_torn_swallows_no_other(tmp_path) -> None:
    path = tmp_path / "a"
    sink = FileSink(path)
    sink.write(b"one\n")
    killed_as_it_writes(path)
    assert path.read_bytes() == b"one\nof anot"  # the control
    sink.write(b"two\n")
    assert path.read_bytes() == b"one\nof anot\ntwo\n"
    sink.close()
    killed_as_it_writes(path)
    sink = FileSink(path)  # the next life
    sink.write(b"three\n")
    sink.write(b"four\n")
    assert path.read_bytes() == b"one\nof anot\ntwo\nof anot\nthree\nfour\n"


def test_a_torn_line_in_a_file_that_came_by_rotation(tmp_path) -> None:
    path = tmp_path / "a"
    sink = FileSink(path)
    sink.write(b"one\n")
    path.rename(tmp_path / "a.1")
    killed_as_it_writes(path)
    sink.write(b"two\n")
    assert path.read_bytes() == b"of anot\ntwo\n"


def test_the_end_of_a_torn_line_counts_towards_the_bound(tmp_path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 6)
    sink = FileSink(path, max_bytes=10)
    sink.write(b"two\n")
    assert ((tmp_path / "a.1").read_bytes(), path.read_bytes()) == (b"x" * 6, b"two\n")


# --- several


def test_each_sink_has_every_event(receiver: Receiver, metrics: Metrics, tmp_path, capsys) -> None:
    to = {"to": {"url": receiver.url}}
    log = audit_of(
        metrics,
        {"kind": "stdout"},
        {"kind": "file", "path": tmp_path / "a", "form": "ocsf"},
        {"kind": "otlp", **to},
        {"kind": "cloudevents", "name": "siem", **to},
    )
    log.record(EVENT)
    log.record(FORGIVEN)
    log.close(30.0)
    assert capsys.readouterr().out == render(EVENT) + "\n" + render(FORGIVEN) + "\n"
    documents = [held(json.loads(line)) for line in (tmp_path / "a").read_text().splitlines()]
    assert [document["class_uid"] for document in documents] == [2004, 3004]
    assert len(receiver.logs) == 2
    assert len([request for request in receiver.requests if request.path == "/"]) == 2
    assert delivered(metrics) == {(name, "written"): 2.0 for name in ("stdout", "file", "otlp", "siem")}
    assert metrics._registry.get_sample_value("guard_audit_events_total", {"outcome": "written"}) == 8.0


def test_a_stuck_receiver_holds_up_no_other_sink_and_nobody_who_records(metrics: Metrics, tmp_path) -> None:
    with receiving(held=True) as stuck:
        away = {"kind": "cloudevents", "to": {"url": f"http://127.0.0.1:{free_port()}", "attempts": 1}}
        sinks = ({"kind": "file", "path": tmp_path / "a"}, {"kind": "otlp", "to": {"url": stuck.url}}, away)
        log = audit_of(metrics, *sinks, max_queued=300)
        log.record(EVENT)
        stuck.until(lambda r: len(r.requests) == 1)  # its thread waits for an answer that does not come
        for _ in range(1000):
            log.record(EVENT)
        log.close(1.0)
    found = delivered(metrics)
    assert found["otlp", "failed"] == 1.0  # under way at the end
    assert found["otlp", "dropped"] == 1000.0  # 700 that found no place, 300 that were left
    assert found["cloudevents", "failed"] + found.get(("cloudevents", "dropped"), 0.0) == 1001.0
    written = (tmp_path / "a").read_text().splitlines()
    assert found["file", "written"] == len(written)
    assert found["file", "written"] + found.get(("file", "dropped"), 0.0) == 1001.0


def test_a_receiver_that_fails_is_told_once_and_counted(receiver: Receiver, metrics: Metrics, caplog) -> None:
    receiver.answers = [500, 401, 500, 200, 413]
    log = audit_of(metrics, {"kind": "otlp", "to": {"url": receiver.url}})
    for number in range(1, 6):
        log.record(EVENT)
        receiver.until(lambda r, n=number: len(r.requests) == n)
    log.close(30.0)
    assert delivered(metrics) == {("otlp", "failed"): 4.0, ("otlp", "written"): 1.0}
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "audit events for otlp cannot be written: status 500",
        "audit events for otlp are written again: 3 could not be",
        "audit events for otlp cannot be written: status 413",
        "audit events for otlp: 1 could not be written until the end",
    ]


def test_what_cannot_be_opened_names_its_sink(metrics: Metrics, tmp_path) -> None:
    missing = {"kind": "file", "name": "b", "path": tmp_path / "no" / "such"}
    with pytest.raises(ConfigError, match=r"audit\.sinks\.1: .*cannot open"):
        audit_of(metrics, {"kind": "file", "path": tmp_path / "a"}, missing)
    to = {"url": "https://127.0.0.1:1", "token_file": tmp_path / "missing"}
    with pytest.raises(ConfigError, match=r"^audit\.sinks\.0\.to\.token_file: cannot use .*missing: No such"):
        audit_of(metrics, {"kind": "cloudevents", "to": to})


# --- OTLP


def test_log_records(receiver: Receiver, metrics: Metrics) -> None:
    log = audit_of(metrics, {"kind": "otlp", "to": {"url": receiver.url}})
    log.record(EVENT)
    log.record(Exempted(1.0, "c1", "m", 2.0, "no Unicode: \ud800", ("someone",)))
    log.close(30.0)
    first, second = receiver.logs
    assert (first.event_name, first.severity_text) == ("guard.decision", "ERROR")
    assert (first.trace_id.hex(), first.span_id.hex()) == (EVENT.trace_id, EVENT.span_id)
    assert first.time_unix_nano == 1_700_000_000_250_000_000
    body = {pair.key: pair.value for pair in first.body.kvlist_value.values}
    assert body["action"].string_value == "deny"
    assert body["enforced"].bool_value is True
    assert body["rows"].int_value == 1
    (squeezing, *_) = body["findings"].array_value.values
    values = {pair.key: pair.value for pair in squeezing.kvlist_value.values}
    assert values["scores"].array_value.values[0].double_value == 1.5
    attributes = {pair.key: pair.value.string_value for pair in first.attributes}
    assert attributes["guard.model"] == "m"
    assert (second.event_name, second.severity_text) == ("guard.exempt", "WARN")


def test_what_a_collector_refuses_has_failed(receiver: Receiver, metrics: Metrics) -> None:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse as Response

    receiver.body = Response(partial_success={"rejected_log_records": 1}).SerializeToString()
    log = audit_of(metrics, {"kind": "otlp", "to": {"url": receiver.url}, "form": "ocsf"})
    log.record(EVENT)
    log.close(30.0)
    assert delivered(metrics) == {("otlp", "failed"): 1.0}
    (record,) = receiver.logs
    body = {pair.key: pair.value for pair in record.body.kvlist_value.values}
    assert body["class_uid"].int_value == 2004


# --- CloudEvents


def received(receiver: Receiver) -> list[CloudEvent]:
    """What the official library makes of the requests."""
    found: list[Any] = []
    for request in receiver.requests:
        message = HTTPMessage(request.headers, request.body)
        if request.headers["content-type"] == "application/cloudevents-batch+json":
            parts = [HTTPMessage({}, json.dumps(one).encode()) for one in json.loads(request.body)]
            found += [from_structured(part, JSONFormat(), CloudEvent) for part in parts]
        elif request.headers["content-type"] == "application/cloudevents+json":
            found.append(from_structured(message, JSONFormat(), CloudEvent))
        else:
            found.append(from_binary(message, JSONFormat(), CloudEvent))
    return found


@pytest.mark.parametrize(("content", "requests"), [("structured", 3), ("binary", 3), ("batch", 2)])
def test_cloud_events(receiver: Receiver, metrics: Metrics, content: str, requests: int) -> None:
    receiver.held = True
    log = audit_of(metrics, {"kind": "cloudevents", "to": {"url": receiver.url}, "content": content})
    log.record(EVENT)
    receiver.until(lambda r: len(r.requests) == 1)
    log.record(replace(EVENT, model='é "m"\n%'))  # these two are there together
    log.record(FORGIVEN)
    receiver.go.set()
    log.close(30.0)
    assert len(receiver.requests) == requests
    _, *found = received(receiver)
    assert [one.get_type() for one in found] == ["io.guard.decision.v1", "io.guard.forgiven.v1"]
    decision = found[0]
    assert decision.get_id() == "d1"
    assert decision.get_subject() == EVENT.caller
    assert decision.get_source() == "/guard/models/%C3%A9%20%22m%22%0A%25"
    assert decision.get_extension("traceparent") == f"00-{EVENT.trace_id}-{EVENT.span_id}-01"
    data = decision.get_data()
    assert (data["action"], data["model"]) == ("deny", 'é "m"\n%')
    assert delivered(metrics) == {("cloudevents", "written"): 3.0}


def test_ocsf_as_cloud_events(receiver: Receiver, metrics: Metrics) -> None:
    log = audit_of(metrics, {"kind": "cloudevents", "to": {"url": receiver.url}, "form": "ocsf"})
    log.record(EVENT)
    log.close(30.0)
    (event,) = received(receiver)
    assert event.get_type() == "io.guard.decision.v1.ocsf"
    held(event.get_data())


@pytest.mark.parametrize("content", ["binary", "batch"])
def test_kserves_events_without_payloads(receiver: Receiver, metrics: Metrics, content: str) -> None:
    sink = {"kind": "cloudevents", "to": {"url": receiver.url}, "form": "kserve", "content": content}
    log = audit_of(metrics, {**sink, "namespace": "team-a"})
    log.record(EVENT)
    log.record(FORGIVEN)  # no inference: nothing to tell
    log.close(30.0)
    asked, answered = received(receiver)
    assert [asked.get_type(), answered.get_type()] == [
        "org.kubeflow.serving.inference.request",
        "org.kubeflow.serving.inference.response",
    ]
    assert asked.get_id() == answered.get_id() == "d1"
    for event in (asked, answered):
        assert event.get_extension("inferenceservicename") == "m"
        assert event.get_extension("namespace") == "team-a"
    assert asked.get_data()["payload_sha256"] == EVENT.payload_sha256
    assert (asked.get_data()["inputs"], answered.get_data()["outputs"]) == ([], [])
    assert answered.get_data()["guard"]["action"] == "deny"


def test_one_event_that_is_refused_costs_no_other(receiver: Receiver, metrics: Metrics) -> None:
    receiver.answers, receiver.held = [200, 200, 413, 200], True
    log = audit_of(metrics, {"kind": "cloudevents", "to": {"url": receiver.url}})
    log.record(EVENT)
    receiver.until(lambda r: len(r.requests) == 1)
    for _ in range(3):
        log.record(EVENT)
    receiver.go.set()
    log.close(30.0)
    assert delivered(metrics) == {("cloudevents", "written"): 3.0, ("cloudevents", "failed"): 1.0}
    assert len(receiver.requests) == 4


def test_others_of_a_batch_do_not_wait_for_a_receiver_that_is_away(receiver: Receiver, metrics: Metrics) -> None:
    receiver.answers, receiver.held = [200, 500], True
    sink = {"kind": "cloudevents", "to": {"url": receiver.url, "attempts": 1}}
    log = audit_of(metrics, sink)
    log.record(EVENT)
    receiver.until(lambda r: len(r.requests) == 1)
    for _ in range(50):
        log.record(EVENT)
    receiver.go.set()
    receiver.until(lambda r: len(r.requests) == 2)
    log.close(30.0)
    assert delivered(metrics) == {("cloudevents", "written"): 1.0, ("cloudevents", "failed"): 50.0}
    assert len(receiver.requests) == 2


def test_a_rotation_that_fails_takes_no_predecessor(tmp_path, monkeypatch):
    sink = FileSink(tmp_path / "a", max_bytes=4, keep=3)
    for line in (b"one\n", b"two\n", b"three\n"):
        sink.write(line)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real = type(tmp_path).replace

    def stuck(self, target):
        if self.name == "a":
            raise PermissionError
        return real(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", stuck)
    for _ in range(4):
        with pytest.raises(PermissionError):
            sink.write(b"four\n")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    sink.close()


def test_two_sinks_of_a_process_lose_nothing_where_both_rotate(tmp_path: Path) -> None:
    """As after a reload, while the former one ends."""
    sinks = [FileSink(tmp_path / "log", max_bytes=400, keep=2000) for _ in range(2)]

    def write(number: int) -> None:
        for line in range(500):
            sinks[number].write(b"%d %04d\n" % (number, line))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [line for file in tmp_path.iterdir() for line in file.read_bytes().splitlines()]
    assert sorted(lines) == sorted(b"%d %04d" % (number, line) for number in range(2) for line in range(500))
    for sink in sinks:
        sink.close()
