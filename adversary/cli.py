"""The command line: `adversary list`, `attack NAME`; further commands are in files of their own."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from adversary import replay_cli, runner, scores, trace, trace_cli
from adversary.catalogue import CATALOGUE, Entry
from adversary.data import mnist
from adversary.data.cache import DataUnavailable
from adversary.oracle import Oracle, OracleError
from adversary.plan import OWN
from adversary.pool import RayMissing
from adversary.processes import ChildFailed
from adversary.replay import EndpointAway
from adversary.shelf import Busy
from adversary.targets import UsageError, add_target, as_callers, endpoint_of

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
    attack = commands.add_parser("attack", help="run one attack on MNIST test images against an endpoint")
    attack.add_argument("name", choices=sorted(CATALOGUE), metavar="NAME")
    add_target(attack)
    attack.add_argument("--onnx", type=Path, help="the victim's ONNX file; white-box attacks need it")
    attack.add_argument("--data", type=Path, help="directory of IDX files (default: MNIST, fetched and cached)")
    attack.add_argument("--n", type=int, default=20, help="how many test images to attack (default 20)")
    attack.add_argument("--eps", type=float, help="the largest perturbation that counts (default: the attack's)")
    attack.add_argument("--budget", type=int, help="queries or gradients a victim (default: the attack's)")
    attack.add_argument("--seed", type=int, default=0)
    attack.add_argument("--callers", type=int, default=0, metavar="N", help="call as so many made-up callers in turn")
    attack.add_argument(
        "--record", type=Path, metavar="FILE.jsonl", help="keep what was sent; `adversary trace` replays"
    )
    attack.add_argument("--json", action="store_true", help="the result as JSON on standard output")
    attack.set_defaults(run=_attack)
    trace_cli.add(commands)
    replay_cli.add(commands)
    return parser


def _list(options: argparse.Namespace) -> int:
    if options.json:
        rows = [{"name": e.name, "family": e.family, "access": e.access, "norm": e.norm, "source": e.source,
                 "origin": e.origin, "eps": e.eps, "budget": e.budget} for e in CATALOGUE.values()]  # fmt: skip
        print(json.dumps(rows, indent=2))  # noqa: T201 - a command line
        return 0
    table = Table()
    for heading in ("attack", "family", "sees", "norm", "eps", "budget", "code"):
        table.add_column(heading, no_wrap=True)
    table.add_column("source", overflow="fold")
    for e in CATALOGUE.values():
        table.add_row(e.name, e.family, e.access, e.norm, f"{e.eps:g}", str(e.budget), e.origin, e.source)
    Console().print(table)
    return 0


def _entry(options: argparse.Namespace) -> Entry:
    entry = CATALOGUE[options.name]
    inside = entry.access == "gradients" and entry.family != "transfer"
    if inside and options.onnx is None:
        raise UsageError(f"{entry.name} takes gradients of the victim: name its file by --onnx")
    if not inside and options.onnx is not None:
        raise UsageError(f"{entry.name} does not see the victim's file: --onnx is of no use to it")
    if options.n < 1 or (options.budget is not None and options.budget < 1):
        raise UsageError("--n and --budget must be at least 1")
    eps = entry.eps if options.eps is None else options.eps
    if math.isnan(eps) or eps <= 0:
        raise UsageError("--eps must be above 0")
    return replace(entry, eps=eps, budget=options.budget or entry.budget)


def _attack(options: argparse.Namespace) -> int:
    entry = _entry(options)
    endpoint = as_callers(endpoint_of(options), options.identity_header, "attacker", options.callers)
    console = Console(stderr=True)
    data = mnist.load(options.data, console.print)
    x, y = mnist.unit(data.test.images[: options.n]), data.test.labels[: options.n]
    rows = len(x) * (2 if entry.access == "gradients" else entry.budget + 2)
    recorder = trace.Recorder()
    with Oracle(endpoint, rows) as oracle, _progress(console) as bar:
        if options.record is not None:
            oracle.listeners.append(recorder)
        task = bar.add_task(entry.name, total=len(x), won=0)

        def tell(done: int, of: int, won: int) -> None:
            bar.update(task, completed=done, total=of, won=won)

        if entry.access == "gradients":
            outcome = _send(entry, oracle, data, options, x, y)
        else:
            outcome = runner.hunt(entry, oracle, x, y, eps=entry.eps, budget=entry.budget, seed=options.seed, tell=tell)
        tell(len(x), len(x), int(outcome.success.sum()))
        told = {
            **scores.summary(outcome),
            "target": options.target,
            "data": data.source,
            "data_digest": data.digest,
            "seed": options.seed,
            "budget": entry.budget,
            "rows_sent": oracle.spent,
            "calls": len(oracle.records),
            "calls_not_recorded": recorder.lost,
        }
    if options.record is not None:
        trace.save(recorder.trace(), options.record)
    _report(told, outcome, as_json=options.json)
    return 0


def _send(
    entry: Entry, oracle: Oracle, data: mnist.Mnist, options: argparse.Namespace, x: Any, y: Any
) -> runner.Outcome:
    """Craft on the victim's file, or on a network of the attacker's own, then send."""
    from adversary import surrogate  # noqa: PLC0415 - torch only where it is needed
    from adversary.victims import mnist as victim  # noqa: PLC0415

    own = data.clean.part(slice(0, OWN))
    model: Any = victim.load(options.onnx) if options.onnx else surrogate.fit(mnist.unit(own.images), own.labels, 0)
    crafted = runner.craft(entry, model, x, y, eps=entry.eps, budget=entry.budget, seed=options.seed)
    return runner.judge(
        entry, oracle, x, y, x_adv=crafted.x_adv, eps=entry.eps, queries=crafted.queries, aim=crafted.aim
    )


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[won]} won"),
    )
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)


def _report(told: dict[str, Any], outcome: runner.Outcome, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(told, indent=2))  # noqa: T201 - a command line
        return
    table = Table(title=f"{told['attack']} against {told['target']}", show_header=False)
    for name, value in (
        ("clean accuracy", scores.rate(outcome.attacked)),
        (f"attack success ({outcome.norm} <= {outcome.eps:g})", scores.success_rate(outcome)),
        ("robust accuracy", scores.robust_accuracy(outcome)),
        ("detected (a query was refused)", scores.detection_rate(outcome)),
        ("median queries to detection", told["median_queries_to_detection"]),
        ("median l2 of successes", told["median_l2_of_successes"]),
        ("rows sent", np.int64(told["rows_sent"])),
    ):
        table.add_row(name, "-" if value is None else str(value))
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
