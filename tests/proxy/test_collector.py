"""A real collector (Rotel, with a parser of its own) between Guard and a receiver passes on what Guard sent."""

import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.proxy.world import profile, request, world
from tests.receivers import Receiver, receiving
from tests.servers.process import free_port, running

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[tuple[str, Receiver]]:
    """The collector's address, and what it passes on to."""
    spec = find_spec("rotel")
    assert spec is not None
    assert spec.origin is not None
    agent, port = Path(spec.origin).with_name("rotel-agent"), free_port()
    with receiving() as receiver:
        command = [str(agent), "start", "--exporter", "otlp", "--otlp-exporter-endpoint", receiver.url]
        command += ["--otlp-exporter-protocol", "http", "--otlp-exporter-compression", "none"]
        command += ["--otlp-http-endpoint", f"127.0.0.1:{port}", "--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}"]
        with running(command, tmp_path / "rotel.log", lambda: _listens(port)):
            yield f"http://127.0.0.1:{port}", receiver


@pytest.mark.usefixtures("world_stages")
async def test_spans_and_log_records_through_a_collector(collector: tuple[str, Receiver], tmp_path: Path) -> None:
    url, receiver = collector
    sinks = [{"kind": "otlp", "to": {"url": url}}]
    audit = {"file": None, "sinks": sinks, "sample_allowed": 1.0}
    tracing = {"to": {"url": url}, "ratio": 0.0}
    models = [{"name": "m", "profile": profile(tmp_path / "p"), "detectors": [{"stage": "test_mean"}]}]
    async with world(tracing=tracing, audit=audit, models=models) as (server, guarded):
        await guarded.unary(request(), metadata=(("traceparent", PARENT), ("tracestate", "a=1")))
        (seen,) = server.calls()
    receiver.until(lambda r: len(r.spans) == 3 and len(r.logs) == 1)
    client, call, detector = sorted(receiver.spans, key=lambda span: -span.kind)
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (PARENT[3:35], PARENT[36:52])
    assert client.parent_span_id == detector.parent_span_id == call.span_id
    assert call.trace_state == client.trace_state == "a=1"
    assert dict(seen.metadata)["traceparent"] == f"{PARENT[:36]}{client.span_id.hex()}-01"
    (record,) = receiver.logs
    assert (record.event_name, record.trace_id) == ("guard.decision", call.trace_id)
    body = {pair.key: pair.value for pair in record.body.kvlist_value.values}
    assert body["decision_id"].string_value
    assert [len(one.kvlist_value.values) > 0 for one in body["findings"].array_value.values] == [True]
