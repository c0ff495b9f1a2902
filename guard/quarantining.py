"""The quarantine's writer: flagged rows of a query become a line of a manifest and, if asked, objects beside it.

`record` costs a queue's put; a thread writes what gathers in GATHER_S. Where the place is away it tries again a few
times, then gives up; what is given up, does not fit in the queue or is past a day's limit is counted. Kept rows are
given up before digests are. A manifest is written after the rows that it names (`guard.quarantine`: its form).
"""

import datetime as dt
import io
import json
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from guard.events import Event, instant
from guard.flagging import Flags
from guard.metrics import Metrics
from guard.places import Directory, Place, PlaceError, place_of
from guard.quarantine import EVENT, MANIFESTS, PAYLOADS
from guard.settings import ConfigError
from guard.settings import Quarantine as QuarantineSettings
from guard.types import Action

GATHER_S = 1.0
FIRST_WAIT_S = 0.5
MAX_BATCH = 256
MAX_BATCH_ROWS = 65_536
_JPEG_START = b"\xff\xd8"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One query's part."""

    event: Event
    flags: Flags

    @property
    def rows(self) -> int:
        """How many are flagged."""
        return len(self.flags.rows)

    def bare(self) -> "Item":
        """Without the rows themselves."""
        return replace(self, flags=replace(self.flags, kept=(), x=None, encoded=()))


@dataclass(slots=True)
class Today:
    """What was written on a day."""

    day: str = ""
    rows: int = 0
    nbytes: int = 0


def open_place(settings: QuarantineSettings) -> Place | None:
    """None where there is no quarantine. Raises ConfigError; S3 is not asked yet, a directory is made."""
    if settings.url is None:
        return None
    s3 = settings.s3
    encryption = {"ServerSideEncryption": s3.server_side_encryption, "SSEKMSKeyId": s3.kms_key_id}
    try:
        place = place_of(settings.url, s3.endpoint_url, {key: value for key, value in encryption.items() if value})
        if isinstance(place, Directory):
            place.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except PlaceError as error:
        raise ConfigError("quarantine.url", str(error)) from None
    except OSError as error:
        raise ConfigError("quarantine.url", f"cannot make {settings.url}: {error.strerror}") from None
    return place


class Quarantine:
    """Writes flagged rows to a place; without one it takes them and does nothing."""

    def __init__(
        self,
        settings: QuarantineSettings,
        place: Place | None,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
        first_wait_s: float = FIRST_WAIT_S,
        gather_s: float = GATHER_S,
    ) -> None:
        self._settings, self._place, self._metrics, self._clock = settings, place, metrics, clock
        self._first_wait_s, self._gather_s = first_wait_s, gather_s
        self._writer, self._written = secrets.token_hex(4), 0
        self._queue: deque[Item] = deque()
        self._nbytes = 0
        self._today = Today()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._given_up = False
        self._failing = False
        self._thread = threading.Thread(target=self._write_all, name="guard-quarantine", daemon=True)
        if place is not None:
            self._thread.start()

    @property
    def keeps(self) -> bool:
        """Whether the rows themselves are wanted."""
        return self._place is not None and self._settings.payload

    def record(self, event: Event, flags: Flags) -> None:
        """Queue the flagged rows of a query. Never blocks on the place, never raises."""
        if self._place is None or not flags.rows or not self._wanted(event):
            return
        item = Item(event, flags)
        with self._changed:
            if self._closing.is_set() or len(self._queue) >= self._settings.max_queued:
                self._count(item, "dropped")
                return
            if self._nbytes + flags.nbytes > self._settings.max_queued_bytes:
                self._count_kept(item, "dropped")
                item = item.bare()
            self._queue.append(item)
            self._nbytes += item.flags.nbytes
            self._changed.notify()

    def _wanted(self, event: Event) -> bool:
        if self._settings.what == "flagged":
            return True
        return Action.DENY in {event.action, event.would_be if self._settings.shadow else event.action}

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued, then stop; what the place does not take in time is dropped and counted."""
        if self._place is None or self._closing.is_set():
            return
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join(timeout_s)
        with self._changed:
            self._given_up = True
            while self._queue:
                self._count(self._queue.popleft(), "dropped")

    def _count(self, item: Item, outcome: str) -> None:
        self._metrics.quarantined.labels("digest", outcome).inc(item.rows)
        self._count_kept(item, outcome)

    def _count_kept(self, item: Item, outcome: str) -> None:
        if item.flags.kept:
            self._metrics.quarantined.labels("row", outcome).inc(len(item.flags.kept))

    # --- in the thread

    def _write_all(self) -> None:
        while batch := self._next():
            within = [item for item in map(self._limited, batch) if item is not None]
            try:
                self._write(within)
            except Exception:  # noqa: BLE001 - whatever failed, later ones are to be written
                _log.exception("flagged rows of %d queries are lost", len(within))
                for item in within:
                    self._metrics.quarantined.labels("digest", "failed").inc(item.rows)

    def _next(self) -> list[Item]:
        """What has gathered; empty once there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing.is_set())
            self._changed.wait_for(lambda: len(self._queue) >= MAX_BATCH or self._closing.is_set(), self._gather_s)
            batch: list[Item] = []
            rows = 0
            while self._queue and len(batch) < MAX_BATCH and rows < MAX_BATCH_ROWS:
                batch.append(self._queue.popleft())
                rows += batch[-1].rows
                self._nbytes -= batch[-1].flags.nbytes
            return batch

    def _limited(self, item: Item) -> Item | None:
        """What the day's limits leave of it."""
        day = self._day()
        if self._today.day != day:
            self._today = Today(day)
        today, settings = self._today, self._settings
        if today.rows + item.rows > settings.rows_per_day:
            self._count(item, "limited")
            return None
        if today.nbytes + item.flags.nbytes > settings.bytes_per_day:
            self._count_kept(item, "limited")
            item = item.bare()
        today.rows += item.rows
        today.nbytes += item.flags.nbytes
        lacking = item.rows - len(item.flags.kept)
        if item.flags.kept and lacking:
            self._metrics.quarantined.labels("row", "limited").inc(lacking)
        return item

    def _day(self) -> str:
        return dt.datetime.fromtimestamp(self._clock(), dt.UTC).date().isoformat()

    def _write(self, batch: list[Item]) -> None:
        """Rows, then the manifest; where rows cannot be written, their digests are written all the same."""
        if not batch:
            return
        day, away = self._day(), False
        lines: list[dict[str, Any]] = []
        for item in batch:
            objects = _objects(item, day)
            kept = not away and all(self._put(name, data) for name, data in objects.items())
            away = not kept  # the place has had its attempts: the batch's other rows do not wait for more
            self._count_kept(item, "written" if kept else "failed")
            lines.append(manifest_of(item, tuple(objects) if kept else ()))
        self._written += 1
        moment = dt.datetime.fromtimestamp(self._clock(), dt.UTC).strftime("%H%M%S.%f")
        name = f"{MANIFESTS}/{day}/{moment}-{self._writer}-{self._written}.jsonl"
        done = self._put(name, "".join(_line(line) for line in lines).encode("ascii"))
        for item in batch:
            self._metrics.quarantined.labels("digest", "written" if done else "failed").inc(item.rows)

    def _put(self, name: str, data: bytes) -> bool:
        assert self._place is not None  # noqa: S101 - or there is no thread
        for attempt in range(self._settings.attempts):
            if self._given_up:
                return False
            try:
                self._place.write(name, data)
            except OSError as error:
                self._metrics.quarantine_failures.inc()
                if not self._failing:
                    _log.error("the quarantine cannot be written: %s", error.strerror or error)
                self._failing = True
                last = attempt + 1 == self._settings.attempts
                if not last:
                    self._pause(self._first_wait_s * 2.0**attempt)
            else:
                self._failing = False
                return True
        return False

    def _pause(self, wait_s: float) -> None:
        """Less where Guard is about to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._given_up or self._closing.is_set(), wait_s)
        if self._closing.is_set():
            time.sleep(min(wait_s, self._first_wait_s))


def _objects(item: Item, day: str) -> dict[str, bytes]:
    """The kept rows, by the name that they get."""
    flags, stem = item.flags, f"{PAYLOADS}/{day}/{item.event.decision_id}"
    if flags.x is not None:
        buffer = io.BytesIO()
        np.save(buffer, flags.x, allow_pickle=False)
        return {f"{stem}.npy": buffer.getvalue()}
    return {
        f"{stem}-{row}.{'jpg' if image.startswith(_JPEG_START) else 'png'}": image
        for row, image in zip(flags.kept, flags.encoded, strict=True)
    }


def manifest_of(item: Item, objects: tuple[str, ...]) -> dict[str, Any]:
    """One query's line as plain data; objects: the names of its kept rows."""
    event, flags = item.event, item.flags
    return {
        "time": instant(event.time_unix),
        "event": EVENT,
        "decision_id": event.decision_id,
        "caller": event.caller,
        "model": event.model,
        "version": event.version,
        "action": event.action.value,
        "would_be": event.would_be.value,
        "enforced": event.enforced,
        "atlas_techniques": list(event.techniques),
        "payload_sha256": event.payload_sha256,
        "query_rows": event.rows,
        "datatype": flags.datatype,
        "layout": flags.layout,
        "shape": list(flags.shape),
        "rows": [{"row": one.row, "sha256": one.sha256, "stages": list(one.stages)} for one in flags.rows],
        "kept": {"rows": list(flags.kept), "objects": list(objects)} if objects else None,
    }


def _line(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"
