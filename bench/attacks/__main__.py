"""`python -m bench.attacks`: our attacks beside well-known libraries', on the bare model of a campaign.

The libraries come with the extra `peers`; `make bench-attacks` installs it.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from adversary import campaign
from adversary.campaign import Overrides
from adversary.data.cache import write_atomic
from adversary.progress import Screen
from bench.attacks import run, table

QUICK = 5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.attacks", description="Our attacks beside other libraries'.")
    made.add_argument("campaign", nargs="?", default="standard", help="a YAML file, or a shipped one (standard)")
    made.add_argument(
        "--ours", type=Path, metavar="DIR", help="the --out of an `adversary replay` of it; what it lacks is run there"
    )
    made.add_argument("--only", action="append", default=[], metavar="NAME", help="this attack; may be repeated")
    made.add_argument("--victims", type=int, metavar="N", help="at most so many an attack")
    made.add_argument("--quick", action="store_true", help=f"at most {QUICK} victims an attack")
    made.add_argument("--json", type=Path, metavar="FILE", help="the figures")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help="put the table into this page")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: all within the bar; 1: some are not; 2: nothing was measured."""
    options = parser().parse_args(argv)
    victims = QUICK if options.quick else options.victims
    written = campaign.load(options.campaign, Overrides(victims=victims))
    chosen = run.pairs(written.campaign, options.only)
    if not chosen:
        print("bench.attacks: no library has any of these attacks", file=sys.stderr)
        return 2
    directory = options.ours or Path("build/bench-attacks") / written.campaign.name
    try:
        with Screen(Console(stderr=True)) as screen:
            document = run.run(written, directory, chosen, screen, _command(options, victims))
    except (run.NotMeasured, ImportError) as error:
        print(f"bench.attacks: {error}", file=sys.stderr)
        return 2
    table.show(document, Console())
    if options.json is not None:
        write_atomic(options.json, (document.model_dump_json(indent=1) + "\n").encode())
    if options.docs is not None:
        table.put(options.docs, document.campaign, table.markdown(document))
    return 0 if all(one.within for one in document.attacks) else 1


def _command(options: argparse.Namespace, victims: int | None) -> str:
    """What measures the same again, wherever the results lie."""
    only = [word for name in options.only for word in ("--only", name)]
    fewer = [] if victims is None else ["--victims", str(victims)]
    return shlex.join(["python", "-m", "bench.attacks", options.campaign, *only, *fewer])


if __name__ == "__main__":
    raise SystemExit(main())
