"""Trace contexts: what counts as one, who is traced, what travels on, and what a span says."""

import importlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.settings import ConfigError, Receiver
from guard.tracing import Kind, Live, Span, Tracer, address_of, parent_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


class Kept:
    def __init__(self) -> None:
        self.spans: list[Span] = []

    def put(self, span: Span) -> None:
        self.spans.append(span)

    def close(self, timeout_s: float) -> None:
        pass


@pytest.fixture
def kept() -> Kept:
    return Kept()


def begun(kept: Kept, *metadata: tuple[str, str | bytes], ratio: float = 1.0, parents="follow") -> Live | None:
    return Tracer(kept, ratio, parents, draw=lambda: 0.5).begin("p.S/M", metadata)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n",
        b"\x00",
    ],
)
def test_what_is_no_traceparent(value: str | bytes) -> None:
    assert parent_of((("traceparent", value),)) is None


def test_what_is_one() -> None:
    parent = parent_of((("tracestate", "a=1"), ("traceparent", SAMPLED), ("tracestate", "b=2")))
    assert parent is not None
    assert (parent.trace_id.hex(), parent.span_id.hex(), parent.state) == (TRACE, SPAN, "a=1,b=2")
    assert parent.sampled
    later = parent_of((("traceparent", f"01-{TRACE}-{SPAN}-02-more"),))  # a later version may say more
    assert later is not None
    assert not later.sampled
    assert parent_of((("traceparent", SAMPLED), ("traceparent", SAMPLED))) is None


def test_callers_decide_for_their_calls_and_the_ratio_for_others(kept: Kept) -> None:
    assert begun(kept, ("traceparent", SAMPLED), ratio=0.0)
    assert begun(kept, ("traceparent", UNSAMPLED), ratio=1.0) is None
    assert begun(kept, ratio=0.4) is None
    assert begun(kept, ratio=0.6)
    assert begun(kept, ("traceparent", "broken"), ratio=0.6)


def test_callers_need_not_be_followed(kept: Kept) -> None:
    assert begun(kept, ("traceparent", SAMPLED), ratio=0.0, parents="join") is None
    joined = begun(kept, ("traceparent", UNSAMPLED), parents="join")
    assert joined is not None
    assert joined.trace_id.hex() == TRACE
    own = begun(kept, ("traceparent", SAMPLED), parents="ignore")
    assert own is not None
    assert own.trace_id.hex() != TRACE
    assert begun(kept, ("traceparent", SAMPLED), ratio=0.0, parents="ignore") is None


def test_no_caller_has_more_traced_than_the_limit(kept: Kept) -> None:
    now, limited = [0.5], []
    tracer = Tracer(kept, 0.0, "follow", max_per_s=2, on_limited=lambda: limited.append(1), clock=lambda: now[0])
    asked = (("traceparent", SAMPLED),)
    first = tracer.begin("p.S/M", asked)
    assert first is not None
    assert tracer.message(first, 1)
    assert tracer.begin("p.S/M", asked) is None
    assert tracer.message(first, 2) is None
    assert tracer.begin("p.S/M", ()) is None  # not chosen: nothing was limited
    assert len(limited) == 2
    now[0] = 1.0
    assert tracer.begin("p.S/M", asked)


def test_the_span_stands_in_what_travels_on(kept: Kept) -> None:
    metadata = (("x", "1"), ("traceparent", f"00-{TRACE}-{SPAN}-03"), ("tracestate", "a=1"))
    live = begun(kept, *metadata)
    assert live is not None
    below = live.call("p.S/M", "host:8001", "original")
    sent = dict(below.onto(metadata))
    assert sent == {"x": "1", "tracestate": "a=1", "traceparent": f"00-{TRACE}-{below.span_id.hex()}-03"}


def test_a_state_without_its_parent_goes(kept: Kept) -> None:
    metadata = (("traceparent", "broken"), ("tracestate", "a=1"))
    live = begun(kept, *metadata)
    assert live is not None
    assert [key for key, _ in live.onto(metadata)] == ["traceparent"]


def test_spans_end_once_and_hang_together(kept: Kept) -> None:
    live = begun(kept, ("traceparent", SAMPLED))
    assert live is not None
    with live.stage("detector", "one"):
        pass
    with pytest.raises(KeyError), live.stage("detector", "two"):
        raise KeyError("what a caller sent")
    below = live.call("p.S/M", "unix:/run/x", "view")
    below.end_rpc("NOT_FOUND")
    below.end_rpc("OK")
    live.end_rpc("NOT_FOUND")  # its caller's mistake is no error of a server
    one, two, call, whole = kept.spans
    assert [span.name for span in kept.spans] == ["detector one", "detector two", "p.S/M", "p.S/M"]
    assert {span.trace_id.hex() for span in kept.spans} == {TRACE}
    assert whole.parent_id.hex() == SPAN
    assert {one.parent_id, two.parent_id, call.parent_id} == {whole.span_id}
    assert (whole.kind, call.kind, one.kind) == (Kind.SERVER, Kind.CLIENT, Kind.INTERNAL)
    assert (one.error, two.error, call.error, whole.error) == ("", "KeyError", "NOT_FOUND", "")
    assert two.attributes == {"guard.stage": "two", "guard.stage.kind": "detector", "error.type": "KeyError"}
    assert call.attributes == {
        "guard.purpose": "view",
        "rpc.system.name": "grpc",
        "rpc.method": "p.S/M",
        "rpc.response.status_code": "NOT_FOUND",
        "error.type": "NOT_FOUND",
        "server.address": "/run/x",
    }
    assert all(span.start_ns <= span.end_ns for span in kept.spans)
    assert "what a caller sent" not in repr(kept.spans)


@pytest.mark.parametrize(("code", "is_error"), [("OK", False), ("PERMISSION_DENIED", False), ("INTERNAL", True)])
def test_which_statuses_are_a_servers_errors(kept: Kept, code: str, is_error: bool) -> None:
    live = begun(kept)
    assert live is not None
    live.end_rpc(code)
    (span,) = kept.spans
    assert (span.error != "") is is_error
    assert span.attributes["rpc.response.status_code"] == code


@pytest.mark.parametrize(
    ("server", "found"),
    [
        ("host:8001", {"server.address": "host", "server.port": 8001}),
        ("[::1]:8001", {"server.address": "::1", "server.port": 8001}),
        ("unix:/a", {"server.address": "/a"}),
        ("mnist", {}),
    ],
)
def test_addresses(server: str, found: dict[str, object]) -> None:
    assert address_of(server) == found


def test_serving_without_it_imports_nothing_for_it() -> None:
    code = "import sys; import guard.proxy.app, guard.proxy.worker, guard.cli; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "guard.tracing" in loaded
    assert not {"opentelemetry", "urllib3", "guard.otlp"} & set(loaded)


@pytest.mark.parametrize(("missing", "extra"), [("opentelemetry.proto.trace.v1", "otel"), ("urllib3", "otel")])
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, missing: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "guard.otlp", raising=False)
    with pytest.raises(ConfigError, match=rf"'\.\[{extra}\]'"):
        importlib.import_module("guard.otlp").SpanCarrier(Receiver(url="http://127.0.0.1:1"), "guard")


@given(st.one_of(st.text(), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.*")))
def test_whatever_callers_send_travels_on_well_formed(value: str) -> None:
    kept = Kept()
    live = begun(kept, ("traceparent", value), parents="join")
    assert live is not None
    ((_, sent),) = live.onto((("traceparent", value),))
    assert isinstance(sent, str)
    parent = parent_of((("traceparent", sent),))
    assert parent is not None
    assert parent.sampled
    live.end()
    assert (len(kept.spans[0].trace_id), len(kept.spans[0].span_id)) == (16, 8)
