"""The extraction budget, measured: its curve beside real copies, what it leaves of one, and whom else it meets.

curve     what students at `guard fit` agree on, and real copies of as many answers (`bench.monitors.copies`)
effect    in-distribution Knockoff to the end, by one account and by many, behind the budget's limits
benign    how many callers of each kind of benign traffic reach each level, by the budget alone
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adversary import serving, shelf
from adversary.attack import Array
from adversary.scores import finite, rate
from bench.detection.work import Work
from bench.monitors import benign, copies, spending, thefts, traffic
from bench.monitors.kept import once
from bench.monitors.spending import ALONE, BOTH, DEGRADE, DENY, Spending, Turns

SEEDS = 3
MARKS = (0.5, 0.7, 0.9)
EFFECTS: tuple[tuple[Spending, int], ...] = ((DEGRADE, 1), (DENY, 1), (BOTH, 1), (BOTH, 10), (BOTH, 100))
"""What the budget does, and over how many accounts the thief spreads."""


@dataclass(frozen=True, slots=True)
class Effect:
    """In-distribution Knockoff to the end against the budget."""

    data: str
    seed: int
    spending: Spending
    accounts: int

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: knockoff-own, {self.spending.name}, {self.accounts} account(s), seed {self.seed}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return {"mnist": 60.0, "cifar10": 300.0}[self.data]

    @property
    def name(self) -> str:
        """Under which it is kept."""
        key = shelf.key(
            thief=[repr(thefts.THIEVES["knockoff-own"]), self.seed, self.accounts],
            code=serving.code_digest("adversary.extraction"), guard=spending.print_of(self.data, self.spending),
        )  # fmt: skip
        return f"{self.data}_budget_{self.accounts}_{self.seed}_{key}"

    def do(self) -> None:
        """Run it, unless it is done."""
        self.made()

    def made(self) -> dict[str, Array]:
        """As of `thefts.copied`."""
        return once(self, self._run)

    def _run(self) -> dict[str, Array]:
        service = Turns(spending.spent(self.data, self.seed, self.spending), self.accounts)
        return thefts.copied(self.data, service, self.seed)


@dataclass(frozen=True, slots=True)
class Level:
    """One block of benign traffic, by the budget alone."""

    data: str
    kind: str
    seed: int = 0
    most: int = 0

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: benign, {self.kind}, by the budget alone"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return 15.0

    @property
    def name(self) -> str:
        """Under which it is kept."""
        key = shelf.key(
            unit=[self.kind, self.seed, self.most], code=serving.code_digest("bench.monitors", ("budget", "table")),
            guard=spending.print_of(self.data, ALONE),
        )  # fmt: skip
        return f"{self.data}_budget_benign_{self.kind}_{key}"

    def do(self) -> None:
        """Run it, unless it is done."""
        self.made()

    def made(self) -> dict[str, Array]:
        """As of `benign.asked`."""
        return once(self, self._run)

    def _run(self) -> dict[str, Array]:
        return benign.asked(spending.spent(self.data, self.seed, ALONE), self.kind, 0, self.seed, self.most)


def units(data: str, runs: int, ends: int, most: int = 0) -> list[Work]:
    """All of it. runs: copies of each thief, SEEDS at most; ends: of Knockoff to the end; most: of a block's rows."""
    spending.make(data)
    bare: list[Work] = [thefts.Copying(data, seed, which) for which in (False, True) for seed in range(ends)]
    effects = [Effect(data, seed, how, accounts) for how, accounts in EFFECTS for seed in range(ends)]
    levels = [Level(data, kind, most=most) for kind in traffic.ASKED]
    return [*copies.units(data, min(runs, SEEDS)), *bare, *effects, *levels]


def figures(data: str, runs: int, ends: int, most: int = 0) -> dict[str, Any]:
    """All of it, as plain data."""
    return {
        "curve": _curve(data), "copies": _copies(data, range(min(runs, SEEDS))), "effect": _effect(data, range(ends)),
        "benign": _benign(data, most),
    }  # fmt: skip


def _curve(data: str) -> dict[str, Any]:
    points, curve = spending.points(data), spending.curve(data)
    return {
        "counts": points["counts"].tolist(), "agreement": points["agreement"].tolist(),
        "rows_for": {f"{mark:g}": finite(curve.rows_for(mark)) for mark in MARKS},
    }  # fmt: skip


def _copies(data: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    curve, found = spending.curve(data), []
    for thief, budgets in copies.PLANS[data].items():
        for budget in budgets:
            each = [float(copies.Replay(data, thief, budget, seed).made()["agrees"].mean()) for seed in seeds]
            found.append({"thief": thief, "budget": budget, "estimate": curve.at(budget), "agreement": each})
    return found


def _effect(data: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    rows: list[tuple[str, int, list[Mapping[str, Array]]]] = [
        (name, 1, [thefts.Copying(data, seed, which).made() for seed in seeds])
        for name, which in (("bare", False), ("the default", True))
    ]
    rows += [(how.name, many, [Effect(data, seed, how, many).made() for seed in seeds]) for how, many in EFFECTS]
    return [
        {
            "victim": name, "accounts": accounts, "sent": [int(run["sent"]) for run in runs],
            "answered": [int(run["answered"]) for run in runs],
            "levels": np.stack([run["levels"] for run in runs]).tolist(),
            "agreement": rate(np.concatenate([run["agrees"] for run in runs])).plain(),
            "each": [float(run["agrees"].mean()) for run in runs],
        }
        for name, accounts, runs in rows
    ]  # fmt: skip


def _benign(data: str, most: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in traffic.ASKED:
        made = Level(data, kind, most=most).made()
        some = made["rows"] > 0
        rows, level = made["rows"][some], made["level"][some]
        found[kind] = {
            "callers": len(rows), "queries": int(rows.sum()), "median": float(np.median(rows)), "most": int(rows.max()),
            **{name: rate(level >= i + 1).plain() for i, name in enumerate(("watch", "suspect", "hostile"))},
        }  # fmt: skip
    return found
