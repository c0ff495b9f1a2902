"""A unit of work: what it is, what its worker needs, and what an attack asks for by the names of its parameters."""

import inspect
from dataclasses import dataclass
from typing import Literal

from adversary.campaign import CONTROL, GUARDED, Attack, Benign, Identities, Model, TargetName
from adversary.catalogue import Entry
from adversary.serving import Place
from adversary.shelf import Arrays

Kind = Literal["craft", "clean", "send", "hunt", "steal", "infer", "invert", "benign"]
COMPANY: frozenset[Kind] = frozenset({"hunt", "steal", "infer", "invert"})  # what an honest caller works beside


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work. start, stop: which victims of the seed, or which benign images; target is "" where none is."""

    kind: Kind
    target: str
    attack: str
    seed: int
    start: int
    stop: int
    key: str = ""

    @property
    def name(self) -> str:
        """Of its files."""
        words = (self.kind, self.target, self.attack, f"s{self.seed}", f"{self.start}-{self.stop}", self.key)
        return "_".join("".join(c if c.isalnum() or c in "-." else "-" for c in word) for word in words if word)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A unit with all that its worker needs; nothing in it is tied to this process or machine but file paths.

    place:   the endpoint; None where none is asked.
    attack:  None for clean and benign units.
    arrays:  see `Plan.task`.
    classes: of the data.
    """

    unit: Unit
    model: Model
    place: Place | None
    attack: Attack | None
    benign: Benign
    identities: Identities
    arrays: Arrays
    classes: int


def target_of(unit: Unit) -> TargetName:
    """Which of the two it asks."""
    return CONTROL if unit.target == CONTROL else GUARDED


def eps_of(attack: Attack) -> float:
    """The campaign's, or the catalogue's."""
    return attack.entry.eps if attack.eps is None else attack.eps


def budget_of(attack: Attack) -> int:
    """The campaign's, or the catalogue's."""
    return attack.entry.budget if attack.budget is None else attack.budget


_FIXED = frozenset({"target", "oracle", "x", "y", "eps", "budget", "rng", "own_x", "own_y", "classes"})


def wants(entry: Entry) -> frozenset[str]:
    """The names of its function's parameters."""
    return frozenset(inspect.signature(entry.function).parameters)


def options_of(entry: Entry) -> frozenset[str]:
    """The names of its own options."""
    return wants(entry) - _FIXED
