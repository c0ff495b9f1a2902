"""`python -m bench.growth`: what a query costs as callers, stored rows, batches, monitors and workers grow; memory."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adversary.data.cache import DataUnavailable, write_atomic
from bench import pages
from bench.detection.run import made
from bench.growth import table

DOCS = Path("docs/results/growth.md")
BOUNDS = {"rows": 50_000, "callers": 20_000}
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_IDLE = 0.5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.growth", description="What a query costs as Guard grows.")
    made.add_argument("--quick", action="store_true", help="small sizes, few rounds; writes nothing unless told to")
    made.add_argument("--json", action="store_true", help="print the figures instead of the tables")
    made.add_argument("--rounds", type=int, metavar="N", help="of queries (9)")
    made.add_argument("--no-workers", action="store_true", help="leave out what needs processes, and a Valkey")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help=f"the page ({DOCS}), and the JSON beside it")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: every bar is held, or it was the quick slice; 1: some are not; 2: nothing was measured."""
    options = parser().parse_args(argv)
    by = made(shlex.join(["python", "-m", "bench.growth", *(sys.argv[1:] if argv is None else argv)]))
    by["busy"] = os.getloadavg()[0] > _IDLE
    try:
        found = measured(options.quick, options.rounds, workers=not options.no_workers)
    except DataUnavailable as error:
        print(f"bench.growth: {error}", file=sys.stderr)
        return 2
    found["made"] = by
    found["bars"] = [one.plain() for one in table.judged(found)]
    text = table.markdown(found)
    page = options.docs or (None if options.quick else DOCS)
    if page is not None:
        pages.put(page, text, begin=table.BEGIN, end=table.END, title=table.TITLE)
        write_atomic(page.with_suffix(".json"), (json.dumps(found, indent=1) + "\n").encode())
    print(json.dumps(found, indent=1) if options.json else text)
    return 0 if options.quick or all(one["held"] for one in found["bars"]) else 1


def measured(quick: bool, rounds: int | None, *, workers: bool) -> dict[str, Any]:
    """Everything, as plain data."""
    import cv2  # noqa: PLC0415 - told of threads before anything else is

    from bench.growth import measure, memory  # noqa: PLC0415 - torch comes with them
    from bench.growth import workers as processes  # noqa: PLC0415

    cv2.setNumThreads(1)
    usual = measure.How()
    few = measure.How(5, 20, (1, 1_000, 10_000), (1_000, 10_000), (1, 16), (1, 4, 99))
    how = few if quick else usual
    if rounds is not None:
        how = measure.How(rounds, how.calls, how.callers, how.stored, how.rows, how.monitors)
    found: dict[str, Any] = {"memory": memory.measured({what: n // 5 if quick else n for what, n in BOUNDS.items()})}
    if workers:
        found["workers"] = processes.measured(processes.How(3, 200) if quick else processes.How())
    found["queries"] = measure.measured(how)
    return found


if __name__ == "__main__":
    if any(os.environ.get(name) != "1" for name in _ONE_THREAD):
        environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
        os.execve(sys.executable, [sys.executable, "-m", "bench.growth", *sys.argv[1:]], environment)
    raise SystemExit(main())
