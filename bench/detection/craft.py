"""Crafts the adversarial inputs of the table, a unit of work at a time, and keeps them: a killed run goes on.

A unit is one attack on at most 250 images, or on all where one perturbation or one surrogate is made for them. What is
kept is float32, named by the victim's digest, the attack with all its options, the seed, and the images themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from adversary import runner, shelf
from adversary.attack import Array
from adversary.data.cache import root
from adversary.gradients import one_thread, predict
from adversary.shelf import Shelf
from adversary.sizes import sizes
from bench.detection.attacks import ATTACKS, Planned
from bench.detection.subjects import subject

ROWS = 250
SEED = 0
OWNED = 5_000
"""Labelled images that the attacker of the transfer has."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Some of the images of one cell: data, attack, rows start to stop."""

    data: str
    attack: str
    start: int
    stop: int
    seed: int = SEED

    @property
    def planned(self) -> Planned:
        """Its attack."""
        return next(one for one in ATTACKS[self.data] if one.name == self.attack)

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return self.planned.cost * (self.stop - self.start) / 1000.0

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: crafting {self.attack} {self.start}-{self.stop}"

    def do(self) -> None:
        """Craft it, if it is not there yet."""
        make(self)


@dataclass(frozen=True, slots=True, eq=False)
class Crafted:
    """A cell: (N, ...) inputs, what they were made of, and which of them the bare model answers wrongly within eps."""

    planned: Planned
    x: Array
    y: Array
    x_adv: Array
    won: Array
    l2: Array


def home() -> Path:
    """Where crafted inputs are kept."""
    return root() / "bench-detection"


def units(data: str, rows: int, names: Sequence[str] = ()) -> list[Unit]:
    """All work on the first `rows` images of a data set, or the part with these attacks."""
    made = []
    for planned in ATTACKS[data]:
        if not names or planned.name in names:
            step = rows if planned.joint or planned.surrogate else ROWS
            made += [Unit(data, planned.name, at, min(at + step, rows)) for at in range(0, rows, step)]
    return made


def name_of(unit: Unit) -> str:
    """Under which it is kept."""
    on, planned = subject(unit.data), unit.planned
    key = shelf.key(
        victim=on.sha256,
        attack=planned.entry.name,
        bounds=[planned.eps, planned.budget],
        options=sorted((name, repr(value)) for name, value in planned.options.items()),
        seed=unit.seed,
        own=OWNED if planned.surrogate else 0,
        rows=shelf.digest(on.hunted_x[unit.start : unit.stop]),
    )
    return f"{unit.data}_{unit.attack}_{unit.start}_{key}"


@lru_cache(maxsize=2)
def _surrogate(data: str, seed: int) -> Any:
    from adversary import surrogate  # noqa: PLC0415 - torch trains only where it must

    on = subject(data)
    return surrogate.fit(on.clean_x[:OWNED], on.clean_y[:OWNED], 1000 + seed)


def make(unit: Unit) -> Array:
    """Craft a unit, or take it from the shelf -> (N, ...) float32."""
    on, kept = subject(unit.data), Shelf(home())
    name = name_of(unit)
    stored = kept.get(name)
    if stored is not None:
        return stored[0]["x_adv"]
    planned, rows = unit.planned, slice(unit.start, unit.stop)
    model = _surrogate(unit.data, unit.seed) if planned.surrogate else on.model
    done = runner.craft(
        planned.entry, model, on.hunted_x[rows], on.hunted_y[rows], eps=planned.eps, budget=planned.budget,
        seed=unit.seed + unit.start, **planned.options,
    )  # fmt: skip
    kept.put(name, {"x_adv": done.x_adv}, {"unit": repr(unit)})
    return done.x_adv


def cell(data: str, attack: str, rows: int) -> Crafted:
    """A whole cell, judged on the bare model."""
    on, parts = subject(data), units(data, rows, [attack])
    x_adv = np.concatenate([make(unit) for unit in parts])
    x, y = on.hunted_x[: len(x_adv)], on.hunted_y[: len(x_adv)]
    planned = parts[0].planned
    with one_thread():
        wrong = predict(on.model, x_adv) != y
    within = sizes(x, x_adv, planned.entry.norm) <= runner.allowed(planned.eps)
    return Crafted(planned, x, y, x_adv, np.asarray(wrong & within), sizes(x, x_adv, "l2"))
