"""`python -m bench.stages`: what each stage costs, beside the same method of adversarial-robustness-toolbox.

The library comes with the extra `peers`; without it ours are timed alone.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from json import dumps
from pathlib import Path

import cv2
from rich.console import Console
from rich.progress import Progress

from adversary.data.cache import write_atomic
from adversary.judge_document import machine
from bench.stages import inputs, peers, ready, rounds, table
from bench.stages.ready import Unserved
from bench.stages.rounds import How, Task
from bench.stages.table import Found, Made

BATCHES = (1, 32)
_QUICK = How(2, 0.002, 5.0)
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.stages", description="What stages cost.")
    made.add_argument("--quick", action="store_true", help="two short rounds")
    made.add_argument("--rounds", type=int, default=9, metavar="N", help="of everything (default 9)")
    made.add_argument("--seconds", type=float, default=0.05, metavar="S", help="CPU time of each half (default 0.05)")
    made.add_argument("--most", type=float, default=60.0, metavar="S", help="CPU time of one method (default 60)")
    made.add_argument("--size", action="append", choices=list(inputs.SIZES), help="this size; may be repeated")
    made.add_argument("--only", action="append", default=[], metavar="WORD", help="stages named so; may be repeated")
    made.add_argument("--json", type=Path, metavar="FILE", help="the figures")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help="put the tables into this page")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: every method with a peer is within its bar; 1: some are not, or answer otherwise."""
    words = sys.argv[1:] if argv is None else list(argv)
    options = parser().parse_args(words)
    how = _QUICK if options.quick else How(options.rounds, options.seconds, options.most)
    load, console = os.getloadavg()[0], Console()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, _one_thread():
        found = measured(options.size or list(inputs.SIZES), tuple(options.only), how, Path(directory))
    command = " ".join(["python -m bench.stages", *_measuring(words)])
    day = datetime.now(UTC).date().isoformat()
    made = Made(command, machine(), table.versions(), day, (load, os.getloadavg()[0]), how)
    table.show(found, console)
    if options.json is not None:
        write_atomic(options.json, (dumps(document(found, made), indent=1) + "\n").encode())
    if options.docs is not None:
        table.put(options.docs, table.markdown(found, made))
    return 1 if table.short(found) or table.unequal(found) else 0


def _measuring(words: Sequence[str]) -> Iterator[str]:
    """What of a command line decides the figures."""
    skip = False
    for word in words:
        if not skip and word not in {"--json", "--docs"}:
            yield word
        skip = word in {"--json", "--docs"}


@contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV's too; the others' are set by the environment before they are imported."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def measured(sizes: Sequence[str], only: tuple[str, ...], how: How, directory: Path) -> Found:
    """Everything, in one interleaved run."""
    tasks: list[Task] = []
    agreements, unserved = {}, {}
    with Progress(console=Console(stderr=True)) as progress:
        setting_up = progress.add_task("stages and networks", total=len(sizes))
        for size in sizes:
            images = inputs.SIZES[size](max(BATCHES))
            stages = ready.stages(images, directory, only)
            unserved[size] = [one for one in stages if isinstance(one, Unserved)]
            for one in stages:
                if not isinstance(one, Unserved):
                    peer = peers.PEERS.get(one.key) if peers.installed() else None
                    theirs = None if peer is None else peers.use(peer)
                    if peer is not None and theirs is not None:
                        agreements[one.key, size] = peer.compare(one.use, theirs, images)
                    tasks += _tasks(one, theirs, images)
            progress.advance(setting_up)
        bar = progress.add_task("rounds", total=1)
        rounds.measure(tasks, how, lambda done, total: progress.update(bar, completed=done, total=total))
    return Found([rounds.told(task) for task in tasks], agreements, unserved)


def _tasks(one: ready.Ready, theirs: peers.Use | None, images: inputs.Images) -> Iterator[Task]:
    for batch in BATCHES:
        x = images.noisy[:batch]
        other = None if theirs is None else partial(theirs, x)
        yield Task(one.key, images.name, batch, partial(one.use, x), other, one.further)


def document(found: Found, made: Made) -> dict[str, object]:
    """As JSON."""
    return {
        "made": asdict(made),
        "measured": [asdict(one) for one in found.measured],
        "answers": [
            {"key": key, "size": size, "peer": peers.PEERS[key].name, **asdict(agreement)}
            for (key, size), agreement in found.agreements.items()
        ],
        "unserved": {size: [asdict(one) for one in stages] for size, stages in found.unserved.items()},
    }


if __name__ == "__main__":
    if any(os.environ.get(name) != "1" for name in _ONE_THREAD):
        environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
        os.execve(sys.executable, [sys.executable, "-m", "bench.stages", *sys.argv[1:]], environment)
    raise SystemExit(main())
