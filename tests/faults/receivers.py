"""What takes spans and events is away, silent, or fails: calls go on, and what is lost is counted."""

from pathlib import Path
from typing import Any

from tests.faults.matrix import codes, model, row, told
from tests.proxy.world import FLAGGED, Guarded, eventually, request, world
from tests.receivers import receiving
from tests.servers.process import free_port

CALLS = 5
FINDS = {"stage": "test_mean"}


def _sent_to(url: str, **values: Any) -> dict[str, Any]:
    """Spans of all calls, and events to two sinks, all to one place."""
    to = {"url": url, "attempts": 1, "timeout_s": 1.0}
    sinks = [{"kind": "otlp", "to": to}, {"kind": "cloudevents", "to": to}]
    return {
        "tracing": {"to": to, "ratio": 1.0, **values},
        "audit": {"file": None, "sinks": sinks, "sample_allowed": 1.0, **values},
    }


def _lost(guarded: Guarded) -> tuple[float, float]:
    """Spans and events that failed or were dropped."""
    ends = ("failed", "dropped")
    spans = sum(guarded.count("guard_spans_total", outcome=end) for end in ends)
    return spans, sum(guarded.count("guard_audit_events_total", outcome=end) for end in ends)


async def _calls(guarded: Guarded) -> str:
    clean, flagged = await codes(guarded, CALLS), await codes(guarded, CALLS, request(FLAGGED))
    assert clean == {"OK": CALLS}
    assert flagged == {"PERMISSION_DENIED": CALLS}
    return f"{told(clean)} for clean, {told(flagged)} for flagged inputs"


@row(
    "receiver",
    "the collector is away",
    "`tracing`, two `audit.sinks`",
    "calls go on as before; what is lost is counted",
)
async def collector_away(at: Path) -> str:
    async with world(models=[model(at, FINDS)], **_sent_to(f"http://127.0.0.1:{free_port()}")) as (_, guarded):
        seen = await _calls(guarded)
        await eventually(lambda: min(_lost(guarded)) > 0 and _lost(guarded)[1] == 4 * CALLS)
    return f"{seen}; every event counted as failed, once a sink"


@row("receiver", "the collector answers 500", "`tracing`, two `audit.sinks`", "the same")
async def collector_fails(at: Path) -> str:
    with receiving(always=500) as receiver:
        async with world(models=[model(at, FINDS)], **_sent_to(receiver.url)) as (_, guarded):
            seen = await _calls(guarded)
            await eventually(lambda: min(_lost(guarded)) > 0 and _lost(guarded)[1] == 4 * CALLS)
    return f"{seen}; every event counted as failed, once a sink"


@row(
    "receiver", "the collector takes calls and says nothing", "queues of 2", "calls go on; queues stay bounded; counted"
)
async def collector_hangs(at: Path) -> str:
    with receiving(held=True) as receiver:
        async with world(models=[model(at, FINDS)], **_sent_to(receiver.url, max_queued=2)) as (_, guarded):
            seen = await _calls(guarded)
            await eventually(lambda: min(_lost(guarded)) > 0)
            receiver.go.set()
    return f"{seen}; what is lost is counted as dropped or failed"
