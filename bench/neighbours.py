"""`python -m bench.neighbours`: what monitors must do for a query, on a machine whose cores have other work.

The array libraries as they come (as many threads as there are cores), and as `guard serve` has them (`guard.threads`):
a process each, in turn, that sketches one row after the other; beside it as many busy processes as there are cores, or
none. Time on the clock, and processor time.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from adversary.judge_document import machine
from bench import pages
from guard import threads
from guard.sketching import Sketcher

BEGIN, END = "<!-- bench.neighbours: begin -->", "<!-- bench.neighbours: end -->"
TITLE = "Beside a busy model server, measured"
ARMS = {"as they come": "all", "on the thread that asks": "alone"}
_SECRET = b"a bench needs none that is secret"
_SHAPES = ((28, 28, 1), (32, 32, 3), (224, 224, 3))
_PAUSE_S = 0.002
_SAID = frozenset({"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"})
"""What would have the libraries come otherwise."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.neighbours", description="A query beside busy neighbours.")
    made.add_argument("--rounds", type=int, default=5, metavar="N", help="of everything (5)")
    made.add_argument("--queries", type=int, default=100, metavar="N", help="of each process (100)")
    made.add_argument("--json", action="store_true", help="print the figures instead of the table")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help="put the table into this page")
    made.add_argument("--asked", nargs=2, metavar=("ARM", "SHAPE"), help=argparse.SUPPRESS)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0."""
    options = parser().parse_args(argv)
    if options.asked:
        print(json.dumps(asked(options.asked[0], tuple(map(int, options.asked[1].split("x"))), options.queries)))
        return 0
    cores = len(os.sched_getaffinity(0))
    found = measured(options.rounds, options.queries, (0, cores))
    text = table(found, options.rounds, options.queries)
    print(json.dumps(found, indent=1) if options.json else text)
    if options.docs is not None:
        pages.put(options.docs, text, begin=BEGIN, end=END, title=TITLE)
    return 0


def measured(rounds: int, queries: int, neighbours: Sequence[int]) -> list[dict[str, Any]]:
    """One entry for each shape, number of neighbours and arm: ms on the clock, query by query, and CPU ms a query."""
    found: dict[tuple[str, int, str], dict[str, Any]] = {}
    for number in range(rounds):
        for shape in map(_words, _SHAPES):
            for count in neighbours:
                for arm in list(ARMS)[:: 1 if number % 2 else -1]:
                    key = shape, count, arm
                    one = found.setdefault(
                        key, {"shape": shape, "neighbours": count, "arm": arm, "ms": [], "cpu_ms": []}
                    )
                    with busy(count):
                        told = _told(ARMS[arm], shape, queries)
                    one["ms"] += told["ms"]
                    one["cpu_ms"].append(told["cpu_ms"])
    return [found[key] for key in sorted(found, key=lambda key: (key[1], list(map(_words, _SHAPES)).index(key[0])))]


def _told(arm: str, shape: str, queries: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.neighbours", "--queries", str(queries), "--asked", arm, shape]
    plain = {name: value for name, value in os.environ.items() if name not in _SAID}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@contextmanager
def busy(count: int) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """So many processes that do nothing but that."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield running
    finally:
        for one in running:
            one.kill()
            one.wait()


def asked(arm: str, shape: tuple[int, ...], queries: int) -> dict[str, Any]:
    """In this process."""
    if arm == "alone":
        threads.alone()
    x, sketcher = np.random.default_rng(0).random((1, *shape), dtype=np.float32), Sketcher(_SECRET)
    sketcher(x)
    times, spent = [], 0.0
    for _ in range(queries):
        began, before = time.perf_counter(), time.process_time()
        sketcher(x)
        times.append(1e3 * (time.perf_counter() - began))
        spent += 1e3 * (time.process_time() - before)
        time.sleep(_PAUSE_S)
    return {"ms": times, "cpu_ms": spent / queries}


def table(found: Sequence[dict[str, Any]], rounds: int, queries: int) -> str:
    """Markdown: over all queries; CPU: the median of rounds, least to most."""
    lines = [
        "| rows | busy neighbours | BLAS and OpenCV | p50 ms | p99 ms | CPU ms a query |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        p50, p99 = np.quantile(one["ms"], (0.5, 0.99))
        cpu = one["cpu_ms"]
        lines.append(
            f"| {one['shape']} | {one['neighbours']} | {one['arm']} | {p50:.2f} | {p99:.2f} | "
            f"{np.median(cpu):.2f} ({min(cpu):.2f} to {max(cpu):.2f}) |"
        )
    day = datetime.now(UTC).date().isoformat()
    made = f"`python -m bench.neighbours`, {rounds} rounds of {queries} queries, seed 0, {day}: {machine()}."
    return "\n".join(lines) + f"\n\n{made}\n"


def _words(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


if __name__ == "__main__":
    raise SystemExit(main())
