"""What lies in the quarantine, for whoever is about to train: which rows of a data set Guard has flagged.

    from guard.quarantine import read

    marks = read("s3://bucket/prefix", model="mnist")
    x, y = x[~marks.quarantined(x)], y[~marks.quarantined(x)]

Rows are found by their content (`guard.content`): exact copies, as they were sent to the model, whatever their layout.
Needs the standard library and numpy, and for S3 s3fs.

Layout of a quarantine. `manifests/DAY/*.jsonl` (DAY: YYYY-MM-DD in UTC, of the write) has one line a query, JSON:

    {"time": "2026-11-26T19:30:00.123456Z", "event": "guard.quarantine", "decision_id": "...", "caller": "...",
     "model": "mnist", "version": "", "action": "allow", "would_be": "deny", "enforced": false,
     "atlas_techniques": ["AML.T0015"], "payload_sha256": "of the whole message", "query_rows": 8,
     "datatype": "FP32", "layout": "nchw", "shape": [28, 28, 1],          # of a row, channel last; []: encoded images
     "rows": [{"row": 3, "sha256": "of its content", "stages": ["pid"]}],
     "kept": {"rows": [3], "objects": ["payloads/2026-11-26/ID.npy"]}}      # null where no row was kept

`payloads/DAY/ID.npy` has the kept rows as the model takes them; of encoded images `ID-ROW.jpg` or `.png`, one a row.
What lies there is data from elsewhere: lines that are none of this are counted, and left out.
"""

import datetime as dt
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guard.content import digests, encoded_digests
from guard.places import Place, place_of
from guard.types import Array, Bools

EVENT = "guard.quarantine"
MANIFESTS, PAYLOADS = "manifests", "payloads"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DAY = re.compile(MANIFESTS + r"/(\d{4}-\d{2}-\d{2})/[^/]+\.jsonl")
_IMAGE_AXES = 3


@dataclass(frozen=True, slots=True)
class Row:
    """A flagged row of a query."""

    row: int
    sha256: str
    stages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A query with flagged rows. `document`: the whole line."""

    time: dt.datetime
    decision_id: str
    caller: str
    model: str
    datatype: str
    shape: tuple[int, ...]
    rows: tuple[Row, ...]
    document: Mapping[str, Any]


@dataclass(slots=True)
class Tally:
    """What came of the lines. unreadable: lines, or whole objects, that are no part of a quarantine."""

    entries: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Everything that is quarantined, to be asked about data sets.

    entries: by digest, the latest query that had the row. shapes: of rows, channel last. unreadable: see Tally.
    """

    entries: Mapping[str, Entry]
    shapes: frozenset[tuple[int, ...]]
    datatypes: frozenset[str]
    unreadable: int = 0

    def quarantined(self, x: Array) -> Bools:
        """(N, ...) rows -> (N,) which of them are. Raises ValueError where x holds no numbers."""
        return np.array([entry is not None for entry in self.found(x)], dtype=np.bool_)

    def found(self, x: Array) -> list[Entry | None]:
        """The same, with the query that each row was flagged in."""
        ways = self._ways(x)
        found: list[Entry | None] = [None] * len(x)
        for first in ways:
            for i, digest in enumerate(digests(x, channels_first=first)):
                found[i] = found[i] or self.entries.get(digest)
        return found

    def found_encoded(self, images: Sequence[bytes]) -> list[Entry | None]:
        """The same of encoded images."""
        return [self.entries.get(digest) for digest in encoded_digests(images)]

    def fits(self, x: Array) -> bool:
        """Whether rows of that shape could be quarantined at all; else they belong to another model."""
        return bool(self._ways(x))

    def _ways(self, x: Array) -> list[bool]:
        """Whether channels come first, for each order in which the rows may lie."""
        size, shape = math.prod(x.shape[1:]), x.shape[1:]
        last = any(math.prod(known) == size for known in self.shapes)
        first = len(shape) == _IMAGE_AXES and (*shape[1:], shape[0]) in self.shapes and shape[0] != 1
        return [way for way, may in ((False, last), (True, first)) if may]


def read(
    url: str, *, model: str | None = None, since: dt.datetime | None = None, endpoint_url: str | None = None
) -> Marks:
    """What is quarantined: of one model, since a time (with its zone). Raises PlaceError (a ValueError), OSError."""
    tally, found = Tally(), dict[str, Entry]()
    for entry in entries(place_of(url, endpoint_url), tally, model=model, since=since):
        for row in entry.rows:
            found[row.sha256] = entry
    all_of = tuple(found.values())
    shapes, datatypes = frozenset(e.shape for e in all_of if e.shape), frozenset(e.datatype for e in all_of)
    return Marks(found, shapes, datatypes, tally.unreadable)


def entries(
    place: Place, tally: Tally, *, model: str | None = None, since: dt.datetime | None = None
) -> Iterator[Entry]:
    """One after the other, in the order in which they were written. Raises OSError."""
    day = "" if since is None else since.astimezone(dt.UTC).date().isoformat()
    for name in place.names(MANIFESTS):
        match = _DAY.fullmatch(name)
        if match is None:
            tally.unreadable += 1
            continue
        if match[1] < day:
            continue
        for line in place.read(name).splitlines():
            try:
                entry = parse(line)
            except ValueError:
                tally.unreadable += 1
                continue
            tally.entries += 1
            if (model is None or entry.model == model) and (since is None or entry.time >= since):
                yield entry


def parse(line: bytes) -> Entry:
    """One line of a manifest. Raises ValueError."""
    try:
        document = json.loads(line)
        if document["event"] != EVENT:
            raise ValueError("not an entry of a quarantine")
        time = dt.datetime.fromisoformat(document["time"])
        if time.tzinfo is None:
            raise ValueError("a time without its zone")
        return Entry(
            time=time,
            decision_id=str(document["decision_id"]),
            caller=str(document["caller"]),
            model=str(document["model"]),
            datatype=str(document["datatype"]),
            shape=tuple(map(int, document["shape"])),
            rows=tuple(map(_row, document["rows"])),
            document=document,
        )
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not an entry of a quarantine: {type(error).__name__}") from None


def _row(document: Mapping[str, Any]) -> Row:
    sha256 = str(document["sha256"])
    if _SHA256.fullmatch(sha256) is None:
        raise ValueError("no digest")
    return Row(int(document["row"]), sha256, tuple(map(str, document["stages"])))
