"""`python -m bench.detection`: every detector and purifier against every attack, on real data.

It goes on where it was stopped. The networks are those of `python -m bench.profiles`.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from adversary.data.cache import DataUnavailable, write_atomic
from bench.detection import run, table

DOCS = Path("docs/results/detection.md")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.detection", description="Detectors and purifiers, measured.")
    made.add_argument("data", nargs="*", metavar="DATA", help=f"of {', '.join(run.DATA)} (all)")
    made.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (2)")
    made.add_argument(
        "--quick", action="store_true", help="a small slice on MNIST; writes nothing unless it is told to"
    )
    made.add_argument("--hunted", type=int, metavar="N", help=f"images to attack ({run.FULL.hunted:,})")
    made.add_argument(
        "--detectors-only", action="store_true", help="no purifiers, no attackers who know Guard, no costs: minutes"
    )
    made.add_argument("--docs", type=Path, metavar="FILE.md", help=f"the page ({DOCS}), and the JSON beside it")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: every bar is held, or it was the quick slice, which has none; 1: some are not; 2: nothing was measured."""
    options = parser().parse_args(argv)
    unknown = sorted(set(options.data) - set(run.DATA))
    if unknown:
        print(f"bench.detection: no data is called {', '.join(unknown)}", file=sys.stderr)
        return 2
    scale = run.QUICK if options.quick else run.FULL
    if options.hunted is not None:
        scale = replace(scale, hunted=options.hunted)
    if options.detectors_only:
        scale = replace(scale, aware=0, purified=False)
    data = options.data or (["mnist"] if options.quick else list(run.DATA))
    try:
        found = run.measured(data, scale, options.jobs, _command(options))
    except DataUnavailable as error:
        print(f"bench.detection: {error}", file=sys.stderr)
        return 2
    text = table.markdown(found)
    page = options.docs or (None if options.quick else DOCS)
    if page is None:
        print(text)
    else:
        table.put(page, text)
        write_atomic(page.with_suffix(".json"), (json.dumps(found, indent=1) + "\n").encode())
    return 0 if options.quick or all(one["held"] for one in found["bars"]) else 1


def _command(options: argparse.Namespace) -> str:
    """What measures the same again."""
    words = ["python", "-m", "bench.detection", *options.data, *(["--quick"] if options.quick else [])]
    words += ["--detectors-only"] if options.detectors_only else []
    return shlex.join(words + ([] if options.hunted is None else ["--hunted", str(options.hunted)]))


if __name__ == "__main__":
    raise SystemExit(main())
