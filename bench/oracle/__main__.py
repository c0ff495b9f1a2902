"""`python -m bench.oracle`: the oracle's rate against that of a plain asynchronous client loop.

Against servers that answer with prepared bytes, as fast as grpc.aio can, and against a bare Guard with the MNIST victim
inside. Endpoints run in processes of their own.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from json import dumps
from pathlib import Path

from rich.console import Console

from adversary.data.cache import write_atomic
from adversary.judge_document import machine
from bench.oracle import attacks, clients, kinds, rounds, table
from bench.oracle.kinds import Kind
from bench.oracle.rounds import How, Measured, Setting

BATCHES = (1, 32, 128)
AT_ONCE = (1, 8)
_CALLS = {1: 200, 32: 40, 128: 15}  # of a whole batch, in one run of an attack
_QUICK = How(2, 0.01)
_PHOTOS = 32  # no attack is run on larger batches of photographs: its own arithmetic takes far longer than the wire


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.oracle", description="The oracle's rate.")
    made.add_argument("--quick", action="store_true", help="a few short rounds of the smallest inputs")
    made.add_argument("--rounds", type=int, default=15, metavar="N", help="pairs a sender and setting (default 15)")
    made.add_argument("--seconds", type=float, default=0.2, metavar="S", help="of each half of a pair (default 0.2)")
    made.add_argument("--rest", type=float, default=0.0, metavar="S", help="between pairs, for others on the machine")
    made.add_argument("--only", choices=("fast", "guard"), help="one endpoint")
    made.add_argument("--json", type=Path, metavar="FILE", help="the figures")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help="put the tables into this page")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: every sender of the oracle's is within the bar; 1: some are not."""
    options = parser().parse_args(argv)
    how = _QUICK if options.quick else How(options.rounds, options.seconds, options.rest)
    load = os.getloadavg()[0]
    console, found = Console(), []
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        for one in measured(Path(directory), options.only, how, quick=options.quick):
            found.append(one)
            console.print(table.line(one), highlight=False, soft_wrap=True)
    day, loads = datetime.now(UTC).date().isoformat(), (load, os.getloadavg()[0])
    made = table.Made(command(how, options.only), machine(), table.versions(), day, loads)
    console.print(table.verdict(found), highlight=False, soft_wrap=True)
    if options.json is not None:
        document = {"made": asdict(made), "measured": [asdict(one) for one in found]}
        write_atomic(options.json, (dumps(document, indent=1) + "\n").encode())
    if options.docs is not None:
        table.put(options.docs, table.markdown(found, made))
    return 0 if not table.short(found) else 1


def command(how: How, only: str | None) -> str:
    """What measures the same again."""
    asked = f"--rounds {how.rounds} --seconds {how.round_s:g} --rest {how.rest_s:g}"
    return f"python -m bench.oracle {asked}{f' --only {only}' if only else ''}"


def measured(directory: Path, only: str | None, how: How, *, quick: bool) -> Iterator[Measured]:
    """Everything, one setting after the other."""
    with ExitStack() as stack:
        if only != "guard":
            addresses = stack.enter_context(kinds.fast(directory))
            for kind in kinds.KINDS[:1] if quick else kinds.KINDS:
                yield from _at(kinds.FAST, addresses[kind.name], kind, how, quick=quick)
        if only != "fast":
            address = stack.enter_context(kinds.bare(directory))
            yield from _at(kinds.BARE, address, kinds.MNIST, how, quick=quick)


def _at(endpoint: str, address: str, kind: Kind, how: How, *, quick: bool) -> Iterator[Measured]:
    with clients.connected(address) as connected:
        for batch in BATCHES[:2] if quick else BATCHES:
            for at_once in AT_ONCE:
                yield from rounds.measure(connected, Setting(endpoint, kind, batch, at_once), how)
            if batch < _PHOTOS or kind is not kinds.PHOTO:
                calls = 4 if quick else _CALLS[batch]
                yield from attacks.measure(connected, Setting(endpoint, kind, batch, 1), how, calls)


if __name__ == "__main__":
    raise SystemExit(main())
