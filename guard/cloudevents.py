"""Audit events as CloudEvents 1.0, and over HTTP: structured, binary or batched.

Source: https://github.com/cloudevents/spec (JSON event format, HTTP protocol binding). Type `io.guard.decision.v1`,
`io.guard.forgiven.v1` or `io.guard.exempt.v1` (`.ocsf` behind it where the data is OCSF), source `/guard/models/NAME`,
subject the caller, id the decision's, data the event.

KServe's form: two events a decision under its id, typed and attributed as KServe's payload logger does for HTTP. There
the data is the payload; here it is what may be told of one: names, rows, the message's digest, and what was decided.
"""

import hashlib
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

from guard.delivering import Undelivered
from guard.events import Event, Record, document_of, instant, render
from guard.ocsf import ocsf_of
from guard.posting import Poster
from guard.settings import ToCloudEvents

_REQUEST, _RESPONSE = "org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response"
_JSON = "application/json"
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def cloud_event(event: Record) -> dict[str, Any]:
    """One event in CloudEvents' JSON form."""
    data = document_of(event)
    return _envelope(event, f"io.{data['event']}.v1", data)


def _envelope(event: Record, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(event, Event):
        identity = event.decision_id
    else:
        identity = hashlib.sha256(render(event).encode()).hexdigest()[:32]
    return {
        "specversion": "1.0",
        "type": kind,
        "source": f"/guard/models/{urllib.parse.quote(event.model, safe='', errors='replace')}",
        "id": identity or "unknown",
        "time": instant(event.time_unix),
        **({"subject": event.caller} if event.caller else {}),
        **_traced(event),
        "datacontenttype": _JSON,
        "data": data,
    }


def _traced(event: Record) -> dict[str, str]:
    """The extension for distributed tracing, where the call is traced."""
    if not isinstance(event, Event) or not event.trace_id:
        return {}
    return {"traceparent": f"00-{event.trace_id}-{event.span_id}-01"}


def _of_ocsf(event: Record) -> dict[str, Any]:
    return _envelope(event, f"{cloud_event(event)['type']}.ocsf", ocsf_of(event))


def _of_kserve(event: Record, settings: ToCloudEvents) -> list[dict[str, Any]]:
    """A request and its response; nothing of what is no decision."""
    if not isinstance(event, Event):
        return []
    document = document_of(event)
    names = {"model_name": event.model, "model_version": event.version, "id": event.decision_id}
    where = {
        "inferenceservicename": settings.service or event.model or "unknown",
        "component": "predictor",
        "endpoint": "default",
        **({"namespace": settings.namespace} if settings.namespace else {}),
    }
    asked = {**names, "rows": event.rows, "payload_sha256": event.payload_sha256, "inputs": []}
    told = ("action", "would_be", "enforced", "reason", "level", "atlas_techniques")
    answered = {**names, "outputs": [], "guard": {key: document[key] for key in told}}
    return [{**_envelope(event, kind, data), **where} for kind, data in ((_REQUEST, asked), (_RESPONSE, answered))]


class CloudEventsCarrier:
    """Audit events to one receiver. Raises ConfigError."""

    def __init__(self, settings: ToCloudEvents) -> None:
        self._settings = settings
        self._poster = Poster(settings.to, "events")

    def carry(self, items: list[Record]) -> int:
        """A receiver that is away has had its attempts: others do not wait for more. Raises Undelivered."""
        if self._settings.content == "batch":
            events = [event for item in items for event in self._events(item)]
            if events:
                self._poster.post(_json(events), {"content-type": "application/cloudevents-batch+json"})
            return 0
        failed = 0
        for done, item in enumerate(items):
            try:
                for event in self._events(item):
                    self._poster.post(*self._message(event))
            except Undelivered as error:
                if len(items) == 1:
                    raise
                if error.away:
                    return failed + len(items) - done
                failed += 1
        return failed

    def _events(self, record: Record) -> list[dict[str, Any]]:
        if self._settings.form == "kserve":
            return _of_kserve(record, self._settings)
        return [_of_ocsf(record) if self._settings.form == "ocsf" else cloud_event(record)]

    def _message(self, event: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        if self._settings.content == "structured":
            return _json(event), {"content-type": "application/cloudevents+json"}
        attributes = {key: value for key, value in event.items() if key not in {"data", "datacontenttype"}}
        headers = {
            f"ce-{key}": urllib.parse.quote(str(value), safe=_SAFE, errors="replace")
            for key, value in attributes.items()
        }
        return _json(event["data"]), {"content-type": _JSON, **headers}

    def hurry(self) -> None:
        """Try nothing again."""
        self._poster.hurry()

    def close(self) -> None:
        """Release the connection."""
        self._poster.close()


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
