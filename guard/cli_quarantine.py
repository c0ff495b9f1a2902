"""`guard quarantine list | check`: what is quarantined, and which rows of a data set are.

`check` reads .npy, .npz (every array whose rows could be meant) and, of models that take encoded images, .jpg and .png;
of a directory all such files. Arrays are read without pickle. Exit status of `check`: 1 where a row is quarantined.
"""

import argparse
import datetime as dt
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guard.cli_callers import safe, table
from guard.places import PlaceError, place_of
from guard.quarantine import Entry, Marks, Tally, entries, read
from guard.settings import ConfigError
from guard.types import Array

_ROWS_AT_ONCE = 1024
_ARRAYS, _IMAGES = frozenset({".npy", ".npz"}), frozenset({".jpg", ".jpeg", ".png"})


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `guard quarantine`."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="list|check")
    for name, text in (("list", "print what is quarantined"), ("check", "say which rows of a data set are")):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("url", metavar="URL", help="a directory, file:///PATH or s3://BUCKET/PREFIX")
        if name == "check":
            command.add_argument("data", type=Path, metavar="FILE.npz|FILE.npy|IMAGE|DIR")
        command.add_argument("--since", metavar="TIME", help="2026-11-26, or with a time and its zone; a day: in UTC")
        command.add_argument("--model", metavar="NAME", help="of this model only")
        command.add_argument("--endpoint-url", metavar="URL", help="of a server that speaks S3 and is not AWS's")
        command.add_argument("--json", action="store_true", help="print one JSON object a line")


def quarantine(args: argparse.Namespace) -> int:
    """Raises ConfigError where something cannot be read."""
    try:
        return (_list if args.what == "list" else _check)(args, _since(args.since))
    except PlaceError as error:
        raise ConfigError("URL", str(error)) from None
    except OSError as error:
        raise ConfigError("", f"cannot read {error.filename or args.url}: {error.strerror or error}") from None


def _since(text: str | None) -> dt.datetime | None:
    try:
        moment = None if text is None else dt.datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("--since", "is no time: 2026-11-26, or 2026-11-26T12:00:00Z") from None
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)


def _list(args: argparse.Namespace, since: dt.datetime | None) -> int:
    tally = Tally()
    found = entries(place_of(args.url, args.endpoint_url), tally, model=args.model, since=since)
    if args.json:
        for entry in found:
            sys.stdout.write(json.dumps(entry.document) + "\n")
    else:
        rows = [_row(entry) for entry in found]
        text = table(("TIME", "MODEL", "DECISION", "CALLER", "ROWS", "STAGES"), rows) if rows else "nothing"
        sys.stdout.write(text + "\n")
    _complain(tally.unreadable)
    return 0


def _row(entry: Entry) -> tuple[str, ...]:
    time = entry.time.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    stages = ", ".join(sorted({safe(stage) for row in entry.rows for stage in row.stages}))
    return time, safe(entry.model), safe(entry.decision_id), safe(entry.caller), str(len(entry.rows)), stages


def _complain(unreadable: int) -> None:
    if unreadable:
        sys.stderr.write(f"guard quarantine: {unreadable} lines or objects are no part of a quarantine\n")


# --- check


@dataclass(frozen=True, slots=True)
class Hit:
    """A quarantined row of a data set. where: the file, and the array in it."""

    where: str
    row: int
    entry: Entry

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        entry = self.entry
        return {
            "where": self.where,
            "row": self.row,
            "decision_id": entry.decision_id,
            "model": entry.model,
            "time": entry.time.isoformat(),
        }

    def text(self) -> str:
        """In one line."""
        return (
            f"{safe(self.where)}: row {self.row}, flagged in {safe(self.entry.decision_id)} ({safe(self.entry.model)})"
        )


@dataclass(slots=True)
class Checked:
    """How many rows were held against the quarantine, and what of the data could not be."""

    rows: int = 0
    hits: int = 0
    other: int = 0


def _check(args: argparse.Namespace, since: dt.datetime | None) -> int:
    marks = read(args.url, model=args.model, since=since, endpoint_url=args.endpoint_url)
    _complain(marks.unreadable)
    checked = Checked()
    for path in _files(args.data):
        for hit in _hits(path, marks, checked):
            checked.hits += 1
            sys.stdout.write((json.dumps(hit.plain()) if args.json else hit.text()) + "\n")
    sys.stderr.write(f"guard quarantine: {checked.hits} of {checked.rows} rows are quarantined\n")
    if checked.other:
        sys.stderr.write(
            f"guard quarantine: {checked.other} arrays have rows of another shape than those that were flagged\n"
        )
    return 1 if checked.hits else 0


def _files(data: Path) -> Sequence[Path]:
    if data.is_dir():
        return [path for path in sorted(data.rglob("*")) if path.suffix.lower() in _ARRAYS | _IMAGES and path.is_file()]
    if data.suffix.lower() not in _ARRAYS | _IMAGES:
        raise ConfigError("DATA", f"{data} is neither a directory nor {', '.join(sorted(_ARRAYS | _IMAGES))}")
    return [data]


def _hits(path: Path, marks: Marks, checked: Checked) -> Iterator[Hit]:
    if path.suffix.lower() in _IMAGES:
        checked.rows += 1
        found = marks.found_encoded([path.read_bytes()])
        yield from (Hit(str(path), 0, entry) for entry in found if entry is not None)
        return
    for where, x in _arrays(path):
        if x.ndim == 0 or x.dtype.kind not in "biuf" or not marks.fits(x):
            checked.other += 1
            continue
        checked.rows += len(x)
        for start in range(0, len(x), _ROWS_AT_ONCE):
            for i, entry in enumerate(marks.found(x[start : start + _ROWS_AT_ONCE])):
                if entry is not None:
                    yield Hit(where, start + i, entry)


def _arrays(path: Path) -> Iterator[tuple[str, Array]]:
    try:
        if path.suffix.lower() == ".npy":
            yield str(path), np.load(path, mmap_mode="r", allow_pickle=False)
            return
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                yield f"{path}[{name}]", arrays[name]
    except (ValueError, EOFError) as error:
        raise ConfigError("DATA", f"{path} holds no plain arrays: {type(error).__name__}") from None
