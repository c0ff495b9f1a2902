"""`python -m bench.proxy`: Guard in its configurations beside nginx, Envoy, Envoy + ext_proc and grpc.aio.

Proxies on one core, the upstream and the client on another; processor time of the proxy a call, ratios round by round.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adversary.data.cache import DataUnavailable, write_atomic
from adversary.judge_document import machine
from bench import pages
from bench.proxy import peers, table
from bench.proxy.programs import Missing
from bench.proxy.rounds import How, measured
from bench.proxy.shapes import SHAPES

DOCS = Path("docs/results/speed.md")
QUICK = How(2, (8,), 0.1)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.proxy", description="What a proxy costs a call.")
    made.add_argument("--rounds", type=int, metavar="N", help="of everything (5)")
    made.add_argument(
        "--only", action="append", metavar="NAME", choices=list(peers.ALL), help="a peer; may be repeated"
    )
    made.add_argument("--share", type=float, metavar="S", help="of each round's calls (1; quick: 0.1)")
    made.add_argument("--quick", action="store_true", help="two short rounds at 3 KB; writes nothing unless told to")
    made.add_argument("--json", action="store_true", help="print the figures instead of the tables")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help=f"the page ({DOCS}), and the JSON beside it")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: every bar is held, or it was the quick slice; 1: some are not; 2: nothing was measured."""
    options = parser().parse_args(argv)
    base = QUICK if options.quick else How()
    how = How(
        options.rounds or base.rounds, base.at_once, options.share or base.share, tuple(options.only or base.names)
    )
    command = shlex.join(["python", "-m", "bench.proxy", *(sys.argv[1:] if argv is None else argv)])
    found: dict[str, Any] = {
        "made": {"command": command, "day": datetime.now(UTC).date().isoformat(), "machine": machine()}, "shapes": {},
    }  # fmt: skip
    page = options.docs or (None if options.quick or options.only else DOCS)
    try:
        for shape in SHAPES[:1] if options.quick else SHAPES:
            found["shapes"][shape.name] = measured(shape, how).plain()
            found["bars"] = table.bars(found)
            if page is not None:  # what is there so far
                pages.put(page, table.markdown(found), begin=table.BEGIN, end=table.END, title=table.TITLE)
                write_atomic(page.with_suffix(".json"), (json.dumps(found, indent=1) + "\n").encode())
    except (DataUnavailable, Missing) as error:
        print(f"bench.proxy: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=1) if options.json else table.markdown(found))
    return 0 if options.quick or all(one["held"] for one in found["bars"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
