"""`python -m bench.ladder`: what the whole ladder of responses takes from copies of CIFAR-10's victim.

It goes on where it was stopped.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adversary.data.cache import DataUnavailable, write_atomic
from bench.detection.run import made
from bench.detection.work import run
from bench.ladder import arms, bars, document, table
from bench.ladder.document import FULL, Scale
from bench.monitors.ground import DATA
from bench.monitors.guarded import DEFAULT

DOCS = Path("docs/results/ladder.md")
QUICK = Scale(
    data="mnist", main=300, own=300, side=100, small=80, made=(), accounts=(10,), honest=("natural",), blocks=1,
    most=400, photos="noise",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.ladder", description="Copies behind the ladder, measured.")
    made.add_argument("--data", choices=DATA, help=f"the victim ({FULL.data})")
    made.add_argument("--main", type=int, metavar="N", help=f"rows of the main thieves ({FULL.main:,})")
    made.add_argument("--seeds", type=int, metavar="N", help=f"of the main thieves ({FULL.seeds})")
    made.add_argument("--done", action="store_true", help="run nothing, tell of what has been run")
    made.add_argument("--quick", action="store_true", help="a small slice on MNIST; writes nothing unless told to")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help=f"the page ({DOCS}), and the JSON beside it")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: every bar is held, or it was the quick slice; 1: some are not; 2: nothing was measured."""
    options = parser().parse_args(argv)
    scale = QUICK if options.quick else FULL
    given = {name: getattr(options, name) for name in ("data", "main", "seeds")}
    scale = replace(scale, **{name: value for name, value in given.items() if value is not None})
    command = shlex.join(["python", "-m", "bench.ladder", *(sys.argv[1:] if argv is None else argv)])
    try:
        found = measured(scale, command, done=options.done)
    except DataUnavailable as error:
        print(f"bench.ladder: {error}", file=sys.stderr)
        return 2
    page = options.docs or (None if options.quick else DOCS)
    if page is None:
        print(table.markdown(found))
    else:
        table.put(page, table.markdown(found))
        write_atomic(page.with_suffix(".json"), (json.dumps(found, indent=1) + "\n").encode())
    return 0 if options.quick or all(one["held"] for one in found["bars"]) else 1


def measured(scale: Scale, command: str, *, done: bool = False) -> dict[str, Any]:
    """Do what is not done, then tell all of it. done: tell alone. Raises DataUnavailable."""
    if not done:
        arms.make(scale.data)
        run(document.units(scale), 1)
    found = document.figures(scale, done=done)
    found["made"] = {**made(command), "monitors": list(DEFAULT.named)}
    found["bars"] = [one.plain() for one in bars.judged(found)]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
