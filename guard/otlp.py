"""OTLP over HTTP, in protobuf: spans and log records as the OpenTelemetry protocol has them.

Source: https://opentelemetry.io/docs/specs/otlp/, whose statuses say what is tried again. The messages are
opentelemetry-proto's (extra `otel`); the SDK is not used: its exporters count nothing of what they drop.
Import this module only where it is asked for.
"""

import os
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import guard
from guard.events import Event, Exempted, Record, document_of
from guard.ocsf import ocsf_of
from guard.posting import Poster
from guard.settings import ConfigError, Form, Receiver
from guard.tracing import Kind, Span
from guard.types import Action, Level

try:
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
    from opentelemetry.proto.common.v1 import common_pb2 as common
    from opentelemetry.proto.logs.v1 import logs_pb2 as logs
    from opentelemetry.proto.resource.v1 import resource_pb2 as resources
    from opentelemetry.proto.trace.v1 import trace_pb2 as traces
except ImportError:
    raise ConfigError("", "needs the extra `otel`: pip install '.[otel]' in a clone") from None

RETRIED = frozenset({429, 502, 503, 504})
_HEADERS = {"content-type": "application/x-protobuf"}
_REMOTE_IS_KNOWN, _REMOTE = 0x100, 0x200
"""Of a span's flags: whether its parent is another process's."""


class SpanCarrier:
    """Spans to `/v1/traces`. Raises ConfigError."""

    def __init__(self, receiver: Receiver, service_name: str) -> None:
        self._poster = Poster(receiver, "otel", path="/v1/traces", retried=RETRIED)
        self._resource = resource_of(service_name)

    def carry(self, items: list[Span]) -> int:
        """Raises Undelivered."""
        spans = [span_of(item) for item in items]
        scoped = traces.ScopeSpans(scope=_scope(), spans=spans)
        request = trace_service.ExportTraceServiceRequest(
            resource_spans=[traces.ResourceSpans(resource=self._resource, scope_spans=[scoped])]
        )
        answer = self._poster.post(request.SerializeToString(), _HEADERS)
        said = _read(trace_service.ExportTraceServiceResponse, answer)
        return max(0, min(len(items), 0 if said is None else said.partial_success.rejected_spans))

    def hurry(self) -> None:
        """Try nothing again."""
        self._poster.hurry()

    def close(self) -> None:
        """Release the connection."""
        self._poster.close()


class LogCarrier:
    """Audit events as log records to `/v1/logs`. Raises ConfigError."""

    def __init__(self, receiver: Receiver, service_name: str, form: Form) -> None:
        self._poster = Poster(receiver, "otel", path="/v1/logs", retried=RETRIED)
        self._resource, self._form = resource_of(service_name), form

    def carry(self, items: list[Record]) -> int:
        """Raises Undelivered."""
        records = [log_of(item, self._form) for item in items]
        scoped = logs.ScopeLogs(scope=_scope(), log_records=records)
        request = logs_service.ExportLogsServiceRequest(
            resource_logs=[logs.ResourceLogs(resource=self._resource, scope_logs=[scoped])]
        )
        answer = self._poster.post(request.SerializeToString(), _HEADERS)
        said = _read(logs_service.ExportLogsServiceResponse, answer)
        return max(0, min(len(items), 0 if said is None else said.partial_success.rejected_log_records))

    def hurry(self) -> None:
        """Try nothing again."""
        self._poster.hurry()

    def close(self) -> None:
        """Release the connection."""
        self._poster.close()


def resource_of(service_name: str, environ: Mapping[str, str] = os.environ) -> resources.Resource:
    """Who sends: the settings' name, this host and process, and what OTEL_RESOURCE_ATTRIBUTES adds."""
    told = {}
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, equals, value = pair.partition("=")
        if equals and key.strip():
            told[key.strip()] = unquote(value.strip())
    own = {
        "service.name": service_name,
        "service.version": guard.__version__,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "process.pid": os.getpid(),
        "host.name": socket.gethostname(),
    }
    return resources.Resource(attributes=_pairs({**own, **told, "service.name": service_name}))


def span_of(span: Span) -> traces.Span:
    """One span."""
    status = traces.Status(code=traces.Status.STATUS_CODE_ERROR, message=span.error) if span.error else None
    flags = span.flags & 0xFF | _REMOTE_IS_KNOWN
    if span.kind is Kind.SERVER and span.parent_id:
        flags |= _REMOTE
    return traces.Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_id,
        trace_state=span.state,
        flags=flags,
        name=span.name,
        kind=traces.Span.SpanKind.ValueType(span.kind),
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_pairs(span.attributes),
        status=status,
    )


def log_of(record: Record, form: Form) -> logs.LogRecord:
    """One audit event; the body is its document."""
    plain = document_of(record)
    body = ocsf_of(record) if form == "ocsf" else plain
    number, text = _severity(record)
    trace_id, span_id = (record.trace_id, record.span_id) if isinstance(record, Event) else ("", "")
    attributes = {
        key: plain[key] for key in ("decision_id", "model", "action", "would_be", "enforced", "level") if key in plain
    }
    return logs.LogRecord(
        time_unix_nano=round(record.time_unix * 1e6) * 1000,
        observed_time_unix_nano=time.time_ns(),
        severity_number=logs.SeverityNumber.ValueType(number),
        severity_text=text,
        event_name=plain["event"],
        body=_value(body),
        attributes=_pairs({f"guard.{key}": value for key, value in attributes.items()}),
        trace_id=bytes.fromhex(trace_id),
        span_id=bytes.fromhex(span_id),
    )


def _severity(record: Record) -> tuple[int, str]:
    if not isinstance(record, Event):
        return (13, "WARN") if isinstance(record, Exempted) else (9, "INFO")
    if record.level is Level.HOSTILE or record.action is Action.DENY:
        return 17, "ERROR"
    return (9, "INFO") if record.plain and not record.rose else (13, "WARN")


def _scope() -> common.InstrumentationScope:
    return common.InstrumentationScope(name="guard", version=guard.__version__)


def _pairs(values: Mapping[str, Any]) -> list[common.KeyValue]:
    return [common.KeyValue(key=key, value=_value(value)) for key, value in values.items()]


def _value(value: Any) -> common.AnyValue:
    """Plain data; None is an empty value."""
    if isinstance(value, Mapping):
        return common.AnyValue(kvlist_value=common.KeyValueList(values=_pairs(value)))
    if isinstance(value, list | tuple):
        return common.AnyValue(array_value=common.ArrayValue(values=[_value(one) for one in value]))
    if isinstance(value, str):  # the one that may not be writable: text that is no Unicode
        return common.AnyValue(string_value=value.encode("utf-8", "replace").decode())
    made = common.AnyValue()
    for kind, field in _FIELDS:
        if isinstance(value, kind):
            setattr(made, field, value)
            break
    return made


_FIELDS: tuple[tuple[type, str], ...] = (
    (bool, "bool_value"),  # which is an int, too
    (int, "int_value"),
    (float, "double_value"),
)


def _read(kind: Any, answer: bytes) -> Any:
    """What the receiver says; None where that cannot be read: it has taken all."""
    try:
        return kind.FromString(answer)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, or anything that a hostile receiver makes it raise
        return None
