"""`python -m bench.extraction`: copies made through the wire beside copies made without it.

The same attack, seed and inputs, once against `guard serve` with the victim inside and no stage (gRPC, protobuf, ONNX
Runtime), once against the torch victim in this process. Agreement is with the torch victim on all test inputs.
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from adversary import campaign, inputs, judge, report_compare, report_text, runner_extraction, serving
from adversary.attack import Array
from adversary.campaign import Campaign
from adversary.catalogue import CATALOGUE, Entry
from adversary.data.cache import write_atomic
from adversary.gradients import one_thread, predict
from adversary.inputs import Inputs
from adversary.oracle import Endpoint, Oracle
from adversary.report import Share
from adversary.tensors import LocalOracle
from adversary.unit import wants
from adversary.work import torch_model

WITHIN = 0.02
QUICK = 600
_SECRET = "a bench needs none that is secret"


@dataclass(frozen=True, slots=True)
class Case:
    """An attack, the campaign whose victim and pool it takes, its budget, its seeds, its options."""

    attack: str
    source: str
    budget: int
    seeds: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


CASES = (
    Case("jbda", "extraction", 6400, (0, 1, 2)),
    Case("knockoff-random", "extraction-cifar10", 20_000, (0,), {"epochs": 6}),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """One seed's copies: how they agree with the victim, and how often they are right. theirs: without the wire."""

    attack: str
    budget: int
    seed: int
    ours: Share
    theirs: Share
    right: Share
    right_without: Share

    @property
    def within(self) -> bool:
        """Whether the two agree equally often, to 2 points."""
        return abs((self.ours.rate or 0.0) - (self.theirs.rate or 0.0)) <= WITHIN

    @property
    def cells(self) -> tuple[str, ...]:
        """Of a table."""
        shares = map(report_text.per_cent, (self.ours, self.theirs))
        rights = map(report_text.per_cent, (self.right, self.right_without))
        difference = report_compare.difference(self.theirs, self.ours)
        name = f"{self.attack}, {self.budget:,} queries, seed {self.seed}"
        return (name, *shares, difference, *rights, "yes" if self.within else "no")


HEADINGS = ("attack", "agreement", "without the wire", "points", "task accuracy", "without", "within 2 points")


def measure(case: Case, seed: int, budget: int, console: Console) -> Pair:
    """Both runs of one seed."""
    made = campaign.load(case.source).campaign
    data = inputs.load(made.data, console.print)
    entry, model = CATALOGUE[case.attack], torch_model(made.model)
    with one_thread():
        truth = predict(model, data.x)
        options = {**case.options, **_given(entry, data)}
        ours = _through(entry, made, data, budget, seed, options)
        theirs = _without(entry, model, data, budget, seed, options)
    shares = [judge.share(labels == of) for of in (truth, data.y) for labels in (ours, theirs)]
    return Pair(case.attack, budget, seed, *shares)


def _given(entry: Entry, data: Inputs) -> dict[str, Any]:
    known = {"own_x": data.clean, "own_y": data.clean_y, "classes": int(data.y.max()) + 1}
    return {name: value for name, value in known.items() if name in wants(entry)}


def _through(entry: Entry, made: Campaign, data: Inputs, budget: int, seed: int, options: Mapping[str, Any]) -> Array:
    serve = made.targets.control.serve
    if serve is None:
        raise ValueError(f"{made.name} does not serve its control")
    settings = serving.settings_of(serve, made.model, None)
    with (
        tempfile.TemporaryDirectory() as directory,
        serving.served(settings, _SECRET, Path(directory)) as (address, _),
        Oracle(Endpoint(address, made.model.name), budget) as oracle,
    ):
        theft = runner_extraction.steal(
            entry, oracle, data.pool[:], data.pool_y, judged=data.x, budget=budget, seed=seed, **options
        )
    return np.asarray(theft.labels[-1])


def _without(entry: Entry, model: Any, data: Inputs, budget: int, seed: int, options: Mapping[str, Any]) -> Array:
    *_, copy = entry.load_extraction()(
        LocalOracle(model), data.pool[:], data.pool_y, budget=budget, rng=np.random.default_rng(seed), **options
    )
    return np.asarray(copy(data.x))


def main(argv: Sequence[str] | None = None) -> int:
    """0: all within 2 points; 1: some are not."""
    parser = argparse.ArgumentParser(prog="python -m bench.extraction", description="Copies with and without the wire.")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this attack; may be repeated")
    parser.add_argument("--quick", action="store_true", help=f"one seed, {QUICK} queries")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures")
    options = parser.parse_args(argv)
    console = Console(stderr=True)
    pairs = []
    for case in CASES:
        if options.only and case.attack not in options.only:
            continue
        for seed in case.seeds[:1] if options.quick else case.seeds:
            pairs.append(measure(case, seed, min(case.budget, QUICK) if options.quick else case.budget, console))
            console.print(*pairs[-1].cells, sep="; ", highlight=False)
    table = Table(title="Agreement with the victim on its test inputs, per cent")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "attack" else "right")
    for pair in pairs:
        table.add_row(*pair.cells)
    Console().print(table)
    if options.json is not None:
        told = {"command": shlex.join(["python", "-m", "bench.extraction", *(argv or sys.argv[1:])])}
        rows = [{**asdict(pair), "ours": pair.ours.model_dump(), "theirs": pair.theirs.model_dump(),
                 "right": pair.right.model_dump(), "right_without": pair.right_without.model_dump()}
                for pair in pairs]  # fmt: skip
        write_atomic(options.json, (json.dumps({**told, "pairs": rows}, indent=1) + "\n").encode())
    return 0 if all(pair.within for pair in pairs) else 1


if __name__ == "__main__":
    raise SystemExit(main())
