"""Evasions against the guarded victim, a few runs at a time, each with a history of its own.

plain       until the first refusal: whether that comes before success, and after how many queries
alone       to the end of the budget, by one account, whatever is refused
fresh-N     the same by N accounts, the next one whenever a query is refused
sybil-N     the rows dealt out to N accounts in turn, to the end of the budget
hidden      until the first refusal, every hundredth row being the attack's, the others benign images; one by detectors
            alone is not counted, since a hundredth of benign rows are refused so
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adversary import serving, shelf
from adversary.attack import Array
from adversary.runner import NEVER
from bench.monitors.attacks import FIELDS, SEED, Victims, aim, as_arrays, run, victims
from bench.monitors.client import Client, Tally
from bench.monitors.ground import ground
from bench.monitors.guarded import DEFAULT, Defence, Guarded, guarded, print_of
from bench.monitors.kept import once
from bench.monitors.planned import Planned, planned

SHARE = 0.01
_HIDDEN_BUDGET = 1000  # queries of the attack's own
_AT_A_TIME = 5
_CROWD = 2000  # benign images that an attack hides among
_MS = {"mnist": 1.5, "cifar10": 3.0}


@dataclass(frozen=True, slots=True)
class Hunt:
    """Some runs of one attack, in one way."""

    data: str
    attack: str
    way: str
    start: int
    stop: int
    runs: int
    seed: int = SEED
    defence: Defence = DEFAULT

    @property
    def plan(self) -> Planned:
        """Its attack."""
        plan = planned(self.data, self.attack)
        if self.way == "hidden":
            return replace(plan, budget=round(min(plan.budget, _HIDDEN_BUDGET) / SHARE))
        return plan

    @property
    def accounts(self) -> int:
        """How many callers it may be."""
        _, _, number = self.way.partition("-")
        return int(number or 1)

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: {self.attack}, guarded, {self.way}, {self.start}-{self.stop}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        queries = {"plain": 200.0, "hidden": 5000.0}.get(self.way, 0.5 * self.plan.budget)
        return (self.stop - self.start) * queries * _MS[self.data] / 1000.0

    @property
    def name(self) -> str:
        """Under which it is kept."""
        plan, rows = self.plan, victims(ground(self.data), self.runs, self.seed)
        key = shelf.key(
            attack=[self.attack, plan.code], way=self.way, bounds=[plan.eps, plan.budget], options=dict(plan.options),
            seed=self.seed, rows=shelf.digest(rows.x[self.start : self.stop]),
            code=serving.code_digest("adversary.adaptive"), guard=print_of(self.data, self.defence),
            **({"alarms": True} if self.way == "hidden" and self.defence.detectors else {}),
        )  # fmt: skip
        return f"{self.data}_{self.attack}_{self.way}_{self.start}_{key}"

    def do(self) -> None:
        """Run them, unless that is done."""
        self.made()

    def made(self) -> dict[str, Array]:
        """(N,) of each field of a tally, and `blame`: by what most queries were refused."""
        return once(self, self._run)

    def _run(self) -> dict[str, Array]:
        images = victims(ground(self.data), self.runs, self.seed)
        done = [self._one(images, i) for i in range(self.start, self.stop)]
        blame = np.array([max(by, key=lambda name: by[name], default="") for _, by in done], np.str_)
        return {**as_arrays([tally for tally, _ in done]), "blame": blame}

    def _one(self, images: Victims, i: int) -> tuple[Tally, Mapping[str, int]]:
        service = guarded(self.data, self.seed + i, self.defence)
        client = Client(
            service, aim(self.plan, images, i), accounts=self.accounts, fresh=self.way.startswith("fresh"),
            until=1 if self.way in {"plain", "hidden"} else None, alarms=self.way == "hidden",
        )  # fmt: skip
        tally = run(self.plan, client, images, i, self.seed, wrapped=self._disguise(service, i))
        return tally, service.blame

    def _disguise(self, service: Guarded, i: int) -> Mapping[str, Any] | None:
        if self.way == "hidden":
            quiet = service.on.quiet
            places = np.random.default_rng([self.seed, i, 5]).permutation(len(quiet))[:_CROWD]
            return {"by": "interleave", "share": SHARE, "benign": service.on.unit(quiet.images[places])}
        if self.way.startswith("sybil"):
            return {"by": "sybil", "identities": self.accounts}
        return None


def units(data: str, attacks: tuple[str, ...], way: str, runs: int, defence: Defence = DEFAULT) -> list[Hunt]:
    """All runs, a few to a unit."""
    places = range(0, runs, _AT_A_TIME)
    return [
        Hunt(data, name, way, at, min(at + _AT_A_TIME, runs), runs, defence=defence)
        for name in attacks
        for at in places
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Hunted:
    """All runs of one attack in one way: (N,) each, as in a tally."""

    rows: Array
    answered: Array
    reached: Array
    flagged: Array
    blame: Array

    @property
    def won(self) -> Array:
        """(N,) the attacker was answered as he wants it."""
        return np.asarray(self.reached != NEVER)

    @property
    def before(self) -> Array:
        """(N,) flagged, and not after success."""
        return np.asarray((self.flagged != NEVER) & (~self.won | (self.flagged < self.reached)))


def hunted(data: str, attack: str, way: str, runs: int, defence: Defence = DEFAULT) -> Hunted:
    """Put together."""
    parts = [unit.made() for unit in units(data, (attack,), way, runs, defence)]
    all_ = {name: np.concatenate([part[name] for part in parts]) for name in (*FIELDS, "blame")}
    places = np.where(np.stack([all_["refused"], all_["hostile"]]) == NEVER, np.iinfo(np.int64).max,
                      np.stack([all_["refused"], all_["hostile"]])).min(axis=0)  # fmt: skip
    flagged = np.where(places == np.iinfo(np.int64).max, NEVER, places)
    return Hunted(all_["rows"], all_["answered"], all_["reached"], flagged, all_["blame"])
