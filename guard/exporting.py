"""`guard export`: an audit log as plain JSON lines, CloudEvents 1.0 or OCSF (one in JSON a line), or a Parquet table.

`guard.cloudevents` and `guard.ocsf` say what these hold. Parquet holds decisions, one a row, findings and links as
lists of structs; it needs the extra `parquet`.
What is no audit event is left out and counted.
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from guard.cloudevents import cloud_event
from guard.events import Event, Record, document_of, render
from guard.ocsf import ocsf_of
from guard.recorded import Tally, read
from guard.settings import ConfigError

_BATCH = 4096


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `guard export`."""
    parser.add_argument("log", type=Path, metavar="LOG", help="an audit log; -: standard input")
    parser.add_argument("--format", required=True, choices=sorted(_FORMATS))
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="written anew, readable by you alone")


def export(args: argparse.Namespace) -> int:
    """Write the events of the log. Raises ConfigError where a file cannot be read or written, or pyarrow is missing."""
    tally = Tally()
    write = _FORMATS[args.format](args.out)
    if args.out.exists() and args.log.exists() and args.out.samefile(args.log):
        raise ConfigError("--out", "is the log itself")
    try:
        with os.fdopen(os.open(args.out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            write(read(args.log, tally), out)
    except OSError as error:
        raise ConfigError("", f"cannot read {args.log}, or write {args.out}: {error.strerror or error}") from None
    left = tally.unreadable + tally.others
    sys.stderr.write(f"guard export: {tally.events} events" + (f", {left} lines left out\n" if left else "\n"))
    return 0


Events = Iterator[Record]
Writer = Callable[[Events, IO[bytes]], None]


def _lines(form: Callable[[Record], str]) -> Callable[[Path], Writer]:
    def write(events: Events, out: IO[bytes]) -> None:
        for event in events:
            out.write(form(event).encode("ascii") + b"\n")

    return lambda _: write


def _json_of(form: Callable[[Record], dict[str, Any]]) -> Callable[[Record], str]:
    return lambda event: json.dumps(form(event), ensure_ascii=True, allow_nan=False, separators=(",", ":"))


# --- Parquet


def _parquet(_: Path) -> Writer:
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError("--format", "parquet needs pyarrow: pip install '.[parquet]' in a clone") from None
    schema = _schema(arrow)

    def write(events: Events, out: IO[bytes]) -> None:
        with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
            batch: list[dict[str, Any]] = []
            for event in events:
                if isinstance(event, Event):
                    batch.append(_row(event))
                if len(batch) == _BATCH:
                    writer.write_table(arrow.Table.from_pylist(batch, schema))
                    batch = []
            if batch:
                writer.write_table(arrow.Table.from_pylist(batch, schema))

    return write


def _row(event: Event) -> dict[str, Any]:
    document = document_of(event)
    return {**document, "time": round(event.time_unix * 1e6)}


def _schema(arrow: Any) -> Any:
    text, whole, real, flag = arrow.string(), arrow.int64(), arrow.float64(), arrow.bool_()

    def structs(**fields: Any) -> Any:
        return arrow.list_(arrow.struct(fields))

    columns = {
        "time": arrow.timestamp("us", tz="UTC"),
        **dict.fromkeys(("decision_id", "caller", "model", "version", "action", "would_be"), text),
        "enforced": flag,
        "reason": text,
        "atlas_techniques": arrow.list_(text),
        **dict.fromkeys(("atlas_version", "payload_sha256", "level", "former_level"), text),
        "caller_rows": whole,
        "rows": whole,
        "kept_rows": arrow.list_(whole),
        "findings": structs(
            **dict.fromkeys(("stage", "kind", "mode"), text),
            fired=flag,
            threshold=real,
            scores=arrow.list_(real),
            p_values=arrow.list_(real),
            error=text,
        ),
        "links": structs(
            row=whole,
            number=whole,
            duplicate=flag,
            overlap=whole,
            neighbour=whole,
            owner=text,
            distance=real,
            unexplained=real,
            cluster=whole,
            joined=flag,
        ),
        "clusters": structs(number=whole, rows=whole, owners=whole),
        "evidence": structs(monitor=text, cluster=whole, rows=whole, p_values=arrow.list_(real), after=flag),
        "flagged_rows": structs(row=whole, sha256=text, stages=arrow.list_(text)),
    }
    return arrow.schema(list(columns.items()))


_FORMATS: dict[str, Callable[[Path], Writer]] = {
    "jsonl": _lines(render),
    "cloudevents": _lines(_json_of(cloud_event)),
    "ocsf": _lines(_json_of(ocsf_of)),
    "parquet": _parquet,
}
