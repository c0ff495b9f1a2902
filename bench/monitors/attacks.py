"""Evasions by queries, run by run: on the bare victim, which tells how many queries they need, and on a guarded one.

A run is one attack on one image, with a random stream of its own. It ends when the attacker is answered as he wants it,
when his budget is spent, or, where that is all that is asked, when he is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adversary import shelf
from adversary.adaptive import interleave, sybil
from adversary.attack import Array
from adversary.runner import NEVER
from bench.monitors.client import Aim, Bare, Client, Enough, Service, Tally
from bench.monitors.ground import Ground, ground
from bench.monitors.kept import once
from bench.monitors.planned import Planned, planned

SEED = 0
_IMAGES = 1000  # seeds of images and of attacks are apart
FIELDS = ("rows", "answered", "reached", "refused", "watch", "suspect", "hostile")


@dataclass(frozen=True, slots=True, eq=False)
class Victims:
    """x: (N, ...), y: (N,), starts: (N, ...) images of another class, each labelled rightly."""

    x: Array
    y: Array
    starts: Array


def victims(on: Ground, n: int, seed: int = SEED) -> Victims:
    """Of the first half of the test split."""
    return chosen(on, on.hunted, n, seed)


def chosen(on: Ground, split: Any, n: int, seed: int) -> Victims:
    """Of any split."""
    x, y = on.rightly(split, n, seed)
    others_x, others_y = on.rightly(split, min(n + 100, len(split) // 2), seed + _IMAGES)
    rng = np.random.default_rng([seed, _IMAGES])
    places = [int(rng.choice(np.flatnonzero(others_y != label))) for label in y]
    return Victims(x, y, others_x[places])


def run(
    plan: Planned, client: Client, on: Victims, i: int, seed: int, *, wrapped: Mapping[str, Any] | None = None
) -> Tally:
    """One run on image i. wrapped: of `sybil` or `interleave`, with what they take, where the attack is disguised."""
    one = slice(i, i + 1)
    rng = np.random.default_rng([seed, i])
    how: dict[str, Any] = {"eps": plan.eps, "budget": plan.budget, "rng": rng}
    if plan.started:
        how["starts"] = on.starts[one]
    try:
        if wrapped is None:
            plan.entry.load()(client, on.x[one], on.y[one], **how, **plan.options)
        else:
            attack = {"sybil": sybil.attack, "interleave": interleave.attack}[wrapped["by"]]
            more = {name: value for name, value in wrapped.items() if name != "by"}
            attack(client, on.x[one], on.y[one], base=plan.entry.name, options=plan.options, **how, **more)  # type: ignore[operator]
    except Enough:
        pass
    return client.tally


def aim(plan: Planned, on: Victims, i: int) -> Aim:
    """What the attacker of image i wants."""
    return Aim(on.x[i], int(on.y[i]), plan.entry.norm, plan.eps)


def as_arrays(tallies: list[Tally]) -> dict[str, Array]:
    """A column a field."""
    rows = [[t.rows, t.answered, t.reached, t.refused, *t.levels] for t in tallies]
    return dict(zip(FIELDS, np.array(rows, np.int64).reshape(-1, len(FIELDS)).T, strict=True))


@dataclass(frozen=True, slots=True)
class BareRun:
    """One attack on some images of the bare victim: what it needs. Nothing of Guard decides it."""

    data: str
    attack: str
    start: int
    stop: int
    runs: int
    seed: int = SEED

    @property
    def plan(self) -> Planned:
        """Its attack."""
        return planned(self.data, self.attack)

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: {self.attack} on the bare victim, {self.start}-{self.stop}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return self.plan.seconds(0.3) * (self.stop - self.start)

    @property
    def name(self) -> str:
        """Under which it is kept."""
        on, plan = ground(self.data), self.plan
        rows = victims(on, self.runs, self.seed)
        key = shelf.key(
            victim=on.sha256, attack=[self.attack, plan.code], bounds=[plan.eps, plan.budget],
            options=dict(plan.options), seed=self.seed, rows=shelf.digest(rows.x[self.start : self.stop]),
            starts=shelf.digest(rows.starts[self.start : self.stop]),
        )  # fmt: skip
        return f"{self.data}_{self.attack}_bare_{self.start}_{key}"

    def do(self) -> None:
        """Run it, unless it is done."""
        self.made()

    def made(self) -> dict[str, Array]:
        """(N,) of each field of a tally."""
        return once(self, self._run)

    def _run(self) -> dict[str, Array]:
        on = ground(self.data)
        images, service = victims(on, self.runs, self.seed), Bare(on.model)
        return as_arrays([self._one(service, images, i) for i in range(self.start, self.stop)])

    def _one(self, service: Service, images: Victims, i: int) -> Tally:
        client = Client(service, aim(self.plan, images, i))
        return run(self.plan, client, images, i, self.seed)


def bare_units(data: str, runs: int, attacks: tuple[str, ...]) -> list[BareRun]:
    """A unit for every five runs."""
    return [BareRun(data, name, at, min(at + 5, runs), runs) for name in attacks for at in range(0, runs, 5)]


def bare(data: str, attack: str, runs: int) -> dict[str, Array]:
    """All runs of one attack."""
    parts = [unit.made() for unit in bare_units(data, runs, (attack,))]
    return {name: np.concatenate([part[name] for part in parts]) for name in FIELDS}


def needed(reached: Array) -> float:
    """The median of queries to success, of the runs that succeed; not a number where none does."""
    won = reached[reached != NEVER]
    return float(np.median(won)) if len(won) else float("nan")
