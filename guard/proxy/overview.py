"""What the page and `guard top` show, as one JSON document: from one process, or from several workers together.

Counts are those of the metrics, of all processes; every EVERY_S they are noted, KEPT times, for the curve of traffic.
The document is made once in FRESH_S however many look on, and not at all while nobody does.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from grpc import aio
from prometheus_client import Metric

from guard import lately
from guard.metrics import Metrics
from guard.proxy import admin_messages, record
from guard.proxy.gathering import TIMEOUT_S, Link, joined_status
from guard.settings import Settings
from guard.types import Action, Mode
from guard.wire.guard.v1 import guard_pb2 as pb

EVERY_S, KEPT = 5.0, 360
FRESH_S = 1.0
DECISIONS, CALLERS = 60, 40
PICTURED = 1000
_MODES = {named: mode.value for mode, named in admin_messages.MODES.items()}
_log = logging.getLogger(__name__)


class Away(Exception):
    """Nobody answers who could tell."""


class Source(Protocol):
    """Who answers calls. Raises Away."""

    async def status(self) -> pb.StatusResponse:
        """Models, profiles, stages, drift."""
        ...

    async def lately(self) -> dict[str, Any]:
        """What was noticed (`guard.lately`)."""
        ...


class Runtime(record.Runtime, Protocol):
    """What a single process tells of itself."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        ...

    @property
    def models(self) -> Any:
        """The guarded models by name."""
        ...

    @property
    def started(self) -> float:
        """Seconds since 1970."""
        ...


class Own:
    """This process."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    async def status(self) -> pb.StatusResponse:
        """As Guard's own API tells it."""
        runtime = self._runtime()
        return admin_messages.status(runtime.settings, runtime.models, runtime.started)

    async def lately(self) -> dict[str, Any]:
        """Of this process alone."""
        return lately.merged([self._runtime().lately.document(DECISIONS, CALLERS)], DECISIONS, CALLERS)


class Workers:
    """All workers; one that does not answer is passed over as long as another does."""

    def __init__(self, links: Sequence[Link], started: float) -> None:
        self._links, self._started = links, started

    async def _all(self, ask: Callable[[Link], Any]) -> list[Any]:
        told = await asyncio.gather(*(ask(link) for link in self._links), return_exceptions=True)
        for one in told:
            if isinstance(one, BaseException) and not isinstance(one, aio.AioRpcError):
                raise one
        good = [one for one in told if not isinstance(one, BaseException)]
        if not good:
            raise Away
        return good

    async def status(self) -> pb.StatusResponse:
        """Ready where all are."""
        response = joined_status(await self._all(lambda link: link.api.Status(pb.StatusRequest(), timeout=TIMEOUT_S)))
        response.started.FromMicroseconds(round(self._started * 1e6))
        return response

    async def lately(self) -> dict[str, Any]:
        """Of all of them."""
        told = await self._all(lambda link: link.own.lately(DECISIONS, CALLERS))
        return lately.merged(told, DECISIONS, CALLERS)


class Overview:
    """The document. settings, metrics, ready: of the process that shows it."""

    def __init__(
        self,
        source: Source,
        settings: Callable[[], Settings],
        metrics: Callable[[], Metrics],
        ready: Callable[[], bool],
    ) -> None:
        self._source, self._settings, self._metrics, self._ready = source, settings, metrics, ready
        self._traffic: deque[list[float]] = deque(maxlen=KEPT)
        self._made: tuple[float, bytes] = (-FRESH_S, b"")
        self._making = asyncio.Lock()
        self.pictures: dict[str, tuple[float, dict[str, Any]]] = {}
        """Of the PICTURED decisions shown last: when each was taken, and how its rows are drawn."""

    async def run(self) -> None:
        """Note counts, for as long as Guard runs."""
        while True:
            try:
                self._traffic.append(point(await asyncio.to_thread(self._counts)))
            except Exception:  # noqa: BLE001 - who looks on must not end
                _log.exception("counts could not be noted")
            await asyncio.sleep(EVERY_S)

    def _counts(self) -> dict[str, Any]:
        return counts(self._metrics().families())

    async def document(self) -> bytes:
        """JSON. Raises Away."""
        async with self._making:
            if time.monotonic() - self._made[0] >= FRESH_S:
                told = await self._tell()
                self._made = time.monotonic(), json.dumps(told, allow_nan=False, separators=(",", ":")).encode()
            return self._made[1]

    def _note_pictures(self, decisions: Iterable[dict[str, Any]]) -> None:
        """Who was shown a decision may ask for its pictures, though later ones have taken its place by then."""
        for one in decisions:
            if one["pictures"]:
                self.pictures.pop(one["decision_id"], None)
                self.pictures[one["decision_id"]] = one["time"], one["pictures"]
        while len(self.pictures) > PICTURED:
            del self.pictures[next(iter(self.pictures))]

    async def _tell(self) -> dict[str, Any]:
        status, noticed = await asyncio.gather(self._source.status(), self._source.lately())
        counted = await asyncio.to_thread(self._counts)
        self._note_pictures(noticed["decisions"])
        settings = self._settings()
        shown = [{**one, "pictures": (one["pictures"] or {}).get("rows", [])} for one in noticed["decisions"]]
        return {
            "time": round(time.time(), 3),
            "version": status.version,
            "config_digest": status.config_digest,
            "started": status.started.ToMicroseconds() / 1e6,
            "ready": self._ready(),
            "models": [_model(model) for model in status.models],
            "counts": counted,
            "limits": {
                "workers": settings.workers,
                "in_flight": settings.limits.max_concurrent_calls * settings.workers,
                "queued": settings.limits.max_queued_calls * settings.workers,
                "store_entries": settings.history.max_entries,
                "store": settings.history.store,
            },
            "traffic": {"every_s": EVERY_S, "points": [*self._traffic, point(counted)]},
            **noticed,
            "decisions": shown[::-1],
        }


def _model(model: pb.ModelStatus) -> dict[str, Any]:
    return {
        "name": model.name,
        "upstream": model.upstream,
        "mode": _MODES.get(model.mode, Mode.OFF.value),
        "ready": model.ready,
        "reason": model.reason,
        "false_positive_rate": model.false_positive_rate,
        "stages": [
            {
                "name": stage.name,
                "kind": stage.kind,
                "mode": _MODES.get(stage.mode, Mode.OFF.value),
                "drift": _drift(stage.drift) if stage.HasField("drift") else None,
            }
            for stage in model.stages
        ],
    }


def _drift(seen: pb.Drift) -> dict[str, Any]:
    return {
        "rows": seen.rows,
        "distance": seen.distance,
        "expected_rate": seen.expected_rate,
        "observed_rate": seen.observed_rate,
        "alarm": seen.alarm,
    }


# --- counts


def counts(families: Iterable[Metric]) -> dict[str, Any]:
    """Of the metrics what is shown: totals since the start, and gauges."""
    known = {family.name: family for family in families}

    def rows(name: str) -> Iterator[tuple[dict[str, str], str, float]]:
        family = known.get(name)
        for sample in () if family is None else family.samples:
            yield sample.labels, sample.name, float(sample.value)

    def by(name: str, label: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for labels, _, value in rows(name):
            found[labels[label]] = found.get(labels[label], 0.0) + value
        return found

    def total(name: str, suffix: str = "") -> float:
        return sum(value for _, sample, value in rows(name) if sample.endswith(suffix))

    def listed(name: str) -> list[dict[str, Any]]:
        return [{**labels, "count": value} for labels, _, value in rows(name)]

    return {
        "calls": by("grpc_server_handled", "grpc_code"),
        "calls_s": total("grpc_server_handling_seconds", "_sum"),
        "inspected": total("guard_inspection_seconds", "_count"),
        "inspection_s": total("guard_inspection_seconds", "_sum"),
        "decisions": listed("guard_decisions"),
        "findings": listed("guard_findings"),
        "stage_errors": listed("guard_stage_errors"),
        "uninspected": by("guard_uninspected", "reason"),
        "rejected": by("guard_rejected_calls", "reason"),
        "upstream_calls": by("guard_upstream_calls", "grpc_code"),
        "upstream_s": total("guard_upstream_seconds", "_sum"),
        "audit_events": by("guard_audit_events", "outcome"),
        "quarantined": listed("guard_quarantined_rows"),
        "evicted": by("guard_store_evicted", "what"),
        "in_flight": total("guard_calls_in_flight"),
        "queued": total("guard_calls_queued"),
        "store_entries": total("guard_store_entries"),
        "store_away": total("guard_store_away") > 0,
        "workers": by("guard_workers", "state"),
    }


def point(counted: dict[str, Any]) -> list[float]:
    """One moment of the curve: its time, calls, decisions that would have been no plain allow, and that were none."""
    plain = Action.ALLOW.value
    decided = counted["decisions"]
    return [
        round(time.time(), 2),
        sum(counted["calls"].values()),
        sum(one["count"] for one in decided if one["would_be"] != plain),
        sum(one["count"] for one in decided if one["action"] != plain),
    ]
