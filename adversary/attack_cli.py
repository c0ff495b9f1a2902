"""`adversary attack NAME`: one attack against one endpoint, without a campaign around it."""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from adversary import attack_leaks, inputs, runner, scores, trace
from adversary.attack import Array
from adversary.campaign import Data
from adversary.catalogue import CATALOGUE, Entry
from adversary.drawing import OWN
from adversary.inputs import Inputs
from adversary.oracle import Oracle
from adversary.runner import Outcome, Tell
from adversary.targets import UsageError, add_target, as_callers, endpoint_of
from adversary.unit import options_of, wants
from adversary.work import torch_module

_DATASETS: tuple[Literal["mnist", "cifar10"], ...] = ("mnist", "cifar10")
_FEW, _MANY = 20, 1000  # inputs of an evasion or inversion; of the others, which are judged by rates
_COSTS = {"gradients": "gradients", "scores": "queries", "labels": "queries", "nothing": "queries"}


def add(commands: Any) -> None:
    """The command's parser."""
    parser = commands.add_parser("attack", help="run one attack against an endpoint")
    parser.add_argument("name", choices=sorted(CATALOGUE), metavar="NAME", help="see `adversary list`")
    add_target(parser)
    parser.add_argument("--dataset", choices=_DATASETS, default="mnist", help="what is sent (default mnist)")
    parser.add_argument("--data", type=Path, help="directory of the data set's files (default: fetched and cached)")
    parser.add_argument("--onnx", type=Path, help="the victim's ONNX file; white-box attacks need it")
    parser.add_argument(
        "--torch", metavar="MODULE:FUNCTION", help="makes a torch module of it (default: the data set's)"
    )
    parser.add_argument(
        "--n",
        type=int,
        help="inputs to attack, classes to rebuild (default 20); candidates, inputs to judge a copy by (default 1000)",
    )
    parser.add_argument("--members", type=int, metavar="N", help="the model learned from the data set's first N alone")
    parser.add_argument("--eps", type=float, help="the largest perturbation that counts (default: the attack's)")
    parser.add_argument("--budget", type=int, help="queries or gradients (default: the attack's)")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the attack's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--callers", type=int, default=0, metavar="N", help="call as so many made-up callers in turn")
    parser.add_argument(
        "--record", type=Path, metavar="FILE.jsonl", help="keep what was sent; `adversary trace` replays"
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """The command."""
    entry, given = _entry(options), _options(options)
    endpoint = as_callers(endpoint_of(options), options.identity_header, "attacker", options.callers)
    console = Console(stderr=True)
    data = inputs.load(Data(kind=options.dataset, directory=options.data, members=options.members), console.print)
    n = options.n or (_FEW if entry.goal in {"evasion", "inversion"} else _MANY)
    recorder = trace.Recorder()
    with Oracle(endpoint, _rows(entry, n)) as oracle, _progress(console) as bar:
        if options.record is not None:
            oracle.listeners.append(recorder)
        task = bar.add_task(entry.name, total=None, won=0)

        def tell(done: int, of: int, won: int) -> None:
            bar.update(task, completed=done, total=of, won=won)

        if entry.goal == "evasion":
            outcome = _evade(entry, oracle, data, options, n, given, tell)
            found, shown = scores.summary(outcome), _evaded(outcome)
        else:
            found = attack_leaks.run(entry, oracle, data, n=n, seed=options.seed, options=given, tell=tell)
            shown = attack_leaks.shown(found)
        told = {
            "attack": entry.name,
            **found,
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
    _report(told, shown, as_json=options.json)
    return 0


def _entry(options: argparse.Namespace) -> Entry:
    entry = CATALOGUE[options.name]
    inside = entry.access == "gradients" and entry.family != "transfer"
    if inside and options.onnx is None:
        raise UsageError(f"{entry.name} takes gradients of the victim: name its file by --onnx")
    if not inside and (options.onnx is not None or options.torch is not None):
        raise UsageError(f"{entry.name} does not see the victim's file: --onnx and --torch are of no use to it")
    if (options.n is not None and options.n < 1) or (options.budget is not None and options.budget < 1):
        raise UsageError("--n and --budget must be at least 1")
    if entry.goal != "evasion" and options.eps is not None:
        raise UsageError(f"{entry.name} perturbs nothing: --eps is of no use to it")
    if entry.goal != "membership" and options.members is not None:
        raise UsageError(f"{entry.name} does not ask who is a member: --members is of no use to it")
    eps = entry.eps if options.eps is None else options.eps
    if math.isnan(eps) or (eps <= 0 and entry.goal == "evasion"):
        raise UsageError("--eps must be above 0")
    return replace(entry, eps=eps, budget=options.budget or entry.budget)


def _options(options: argparse.Namespace) -> dict[str, Any]:
    """--option NAME=VALUE, the value as in YAML."""
    given = {}
    for item in options.option:
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--option {item}: write NAME=VALUE")
        given[name] = yaml.safe_load(value)
    known = options_of(CATALOGUE[options.name])
    for name in given.keys() - known:
        raise UsageError(f"--option {name}: {options.name} has no such option; it has {', '.join(sorted(known))}")
    return given


def _rows(entry: Entry, n: int) -> int:
    """The oracle's budget: the attack's, the judging queries and the question what the endpoint says of clean ones."""
    if entry.crafted:
        return 2 * n
    if entry.joint or entry.goal == "extraction":
        return entry.budget + 2 * n
    return n * (entry.budget + 2)


def _evade(
    entry: Entry,
    oracle: Oracle,
    data: Inputs,
    options: argparse.Namespace,
    n: int,
    given: Mapping[str, Any],
    tell: Tell,
) -> Outcome:
    x, y = data.x[:n], data.y[:n]
    own_x, own_y = data.clean[:OWN], data.clean_y[:OWN]
    known = {"own_x": own_x, "own_y": own_y, "classes": int(data.y.max()) + 1}
    asked = {**given, **{name: value for name, value in known.items() if name in wants(entry)}}
    told: dict[str, Any] = {"eps": entry.eps, "budget": entry.budget, "seed": options.seed, **asked}
    if entry.crafted:
        made = runner.craft(entry, _model(entry, options, own_x, own_y), x, y, **told)
        outcome = runner.judge(
            entry, oracle, x, y, x_adv=made.x_adv, eps=entry.eps, queries=made.queries, aim=made.aim
        )  # fmt: skip
    elif entry.joint:
        clean = runner.ask_singly(oracle, x)
        outcome = runner.hunt_together(entry, oracle, x, y, clean=clean, tell=tell, **told)
    else:
        outcome = runner.hunt(entry, oracle, x, y, tell=tell, **told)
    tell(n, n, int(outcome.success.sum()))
    return outcome


def _model(entry: Entry, options: argparse.Namespace, own_x: Array, own_y: Array) -> Any:
    """The victim's file as a torch module, or a network of the attacker's own; None for a trigger."""
    if entry.access == "nothing":
        return None
    if entry.family == "transfer":
        from adversary import surrogate  # noqa: PLC0415 - torch only where it is needed

        return surrogate.fit(own_x, own_y, 0)
    return torch_module(options.torch or f"adversary.victims.{options.dataset}:load", options.onnx)


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[won]} won"),
    )
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)


def _evaded(outcome: Outcome) -> dict[str, object]:
    told = scores.summary(outcome)
    bound = "" if outcome.norm == "none" else f" ({outcome.norm} <= {outcome.eps:g})"
    return {
        "clean accuracy": scores.rate(outcome.clean == outcome.y),
        f"attack success{bound}": scores.success_rate(outcome),
        "robust accuracy": scores.robust_accuracy(outcome),
        "detected (a query was refused)": scores.detection_rate(outcome),
        "median queries to detection": told["median_queries_to_detection"],
        "median l2 of successes": told["median_l2_of_successes"],
    }


def _report(told: Mapping[str, Any], shown: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(told, indent=2))  # noqa: T201 - a command line
        return
    table = Table(title=f"{told['attack']} against {told['target']}", show_header=False)
    for name, value in {**shown, "rows sent": np.int64(told["rows_sent"])}.items():
        table.add_row(name, "-" if value is None else str(value))
    Console().print(table)
