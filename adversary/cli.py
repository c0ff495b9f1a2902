"""The command line: `adversary list`, `attack NAME`; further commands are in files of their own."""

import argparse
import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from adversary import atlas, attack_cli, replay_cli, trace_cli
from adversary.catalogue import CATALOGUE
from adversary.data.cache import DataUnavailable
from adversary.oracle import OracleError
from adversary.pool import RayMissing
from adversary.processes import ChildFailed
from adversary.replay import EndpointAway
from adversary.shelf import Busy

_FAILURES = (OracleError, DataUnavailable, ChildFailed, EndpointAway, Busy, RayMissing, ValueError, OSError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        code: int = options.run(options)
    except _FAILURES as error:
        print(f"adversary: {error}", file=sys.stderr)  # noqa: T201 - a command line
        return 2
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="adversary", description="Replay published attacks against a served model.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="the attacks there are")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_list)
    attack_cli.add(commands)
    trace_cli.add(commands)
    replay_cli.add(commands)
    return parser


def _list(options: argparse.Namespace) -> int:
    if options.json:
        rows = [{"name": e.name, "family": e.family, "goal": e.goal, "access": e.access, "norm": e.norm,
                 "source": e.source, "origin": e.origin, "eps": e.eps or None, "budget": e.budget,
                 "atlas": [technique.id for technique in atlas.techniques(e)]} for e in CATALOGUE.values()]  # fmt: skip
        print(json.dumps(rows, indent=2))  # noqa: T201 - a command line
        return 0
    table = Table()
    for heading in ("attack", "family", "sees", "norm", "eps", "budget", "code"):
        table.add_column(heading, no_wrap=True)
    table.add_column("source", overflow="fold")
    for e in CATALOGUE.values():
        bound = (e.norm, f"{e.eps:g}") if e.eps else ("-", "-")
        table.add_row(e.name, e.family, e.access, *bound, str(e.budget), e.origin, e.source)
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
