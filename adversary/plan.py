"""A campaign and its inputs -> units of work, and what each needs. Pure: the same campaign gives the same plan.

Units:
  craft   a white-box attack on the model's file, all victims of one seed
  clean   the endpoint's answers to the victims as they are, each from a caller of its own
  send    what was crafted, to one endpoint
  hunt    a black-box attack on some of the victims, through one endpoint
  benign  honest callers alone

Crafting and clean answers come first; the others need them. Every unit asks as callers that no other unit uses, and a
guarded endpoint that the campaign serves is started anew for each: so no unit's outcome depends on which others ran,
in which order, or how often the run was killed.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from adversary.attack import Array
from adversary.campaign import (
    CONTROL,
    GUARDED,
    TARGETS,
    Attack,
    Benign,
    Campaign,
    CampaignError,
    Identities,
    Model,
    TargetName,
    title,
)
from adversary.inputs import Inputs
from adversary.serving import Place
from adversary.shelf import Arrays, digest, key

Kind = Literal["craft", "clean", "send", "hunt", "benign"]
BESIDE = 256  # clean rows that a unit of a black-box attack takes along at most
OWN = 5000  # labelled inputs of the attacker himself, for a surrogate


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
    """

    unit: Unit
    model: Model
    place: Place | None
    attack: Attack | None
    benign: Benign
    identities: Identities
    arrays: Arrays


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprints:
    """What determines outcomes beside the campaign's own words: digests of code, files and endpoints."""

    code: str
    model: str
    targets: Mapping[TargetName, str]


class Plan:
    """The units of a campaign."""

    def __init__(self, campaign: Campaign, inputs: Inputs, prints: Fingerprints) -> None:
        self.campaign, self.inputs, self._prints = campaign, inputs, prints
        self._most = max(self.victims(attack) for attack in campaign.attacks)
        fit = max(0 if target.serve is None else target.serve.fit for target in map(campaign.target, TARGETS))
        self._fit = 0 if len(inputs.clean) else fit
        wanted = self._most * len(campaign.seeds) + campaign.benign.images + self._fit
        if wanted > len(inputs.x) or (len(inputs.clean) and fit > len(inputs.clean)):
            has = f"{len(inputs.x):,} test inputs and {len(inputs.clean):,} clean ones"
            raise CampaignError("", f"there are {has}; the campaign wants {wanted:,} and {fit - self._fit:,}")
        for i, attack in enumerate(campaign.attacks):
            _check_options(attack, i)

    def victims(self, attack: Attack) -> int:
        """How many an attack has with each seed."""
        return attack.victims or self.campaign.victims

    def attack(self, name: str) -> Attack:
        """By its title."""
        return next(attack for attack in self.campaign.attacks if title(attack) == name)

    @cached_property
    def _order(self) -> Array:
        return np.random.default_rng(self.campaign.seeds[0]).permutation(len(self.inputs.x))

    def rows(self, unit: Unit) -> Array:
        """The numbers of a unit's test inputs. No two seeds share a victim, and no victim is sent as benign."""
        attacked = self._most * len(self.campaign.seeds)
        first = attacked if unit.kind == "benign" else self._most * self.campaign.seeds.index(unit.seed)
        return np.asarray(self._order[first + unit.start : first + unit.stop])

    def clean(self, n: int) -> Array:
        """What `guard fit` sees: inputs that are never sent."""
        if not n:
            return self.inputs.clean[:0]
        if self._fit:
            return np.asarray(self.inputs.x[self._order[-n:]])
        chosen = np.random.default_rng(self.campaign.seeds[0]).choice(len(self.inputs.clean), n, replace=False)
        return np.asarray(self.inputs.clean[chosen])

    def own(self) -> tuple[Array, Array]:
        """Labelled inputs of the attacker's own, which the victim did not learn from and nobody sends."""
        if len(self.inputs.clean):
            return self.inputs.clean[:OWN], self.inputs.clean_y[:OWN]
        rows = self._spare[:OWN]
        return self.inputs.x[rows], self.inputs.y[rows]

    @property
    def _spare(self) -> Array:
        """Test inputs that are neither attacked, nor sent by honest callers alone, nor fitted on."""
        used = self._most * len(self.campaign.seeds) + self.campaign.benign.images
        return np.asarray(self._order[used : len(self._order) - self._fit])

    def _beside(self, unit: Unit) -> Array:
        """What an honest caller sends beside a hunt."""
        spare = self._spare
        if unit.kind != "hunt" or not self.campaign.benign.every or not len(spare):
            return spare[:0]
        place = int(key(unit=[unit.attack, unit.seed, unit.start]), 16) % len(spare)
        return np.asarray(np.roll(spare, -place)[:BESIDE])

    # --- units

    def first(self) -> list[Unit]:
        """What others need."""
        seeds = self.campaign.seeds
        inside = [attack for attack in self.campaign.attacks if attack.entry.access == "gradients"]
        craft = [Unit("craft", "", title(a), seed, 0, self.victims(a)) for a in inside for seed in seeds]
        clean = [Unit("clean", target, "", seed, 0, self._most) for target in TARGETS for seed in seeds]
        return [self._keyed(unit) for unit in (*clean, *craft)]

    def second(self) -> list[Unit]:
        """The rest, the control before the guarded endpoint."""
        return [self._keyed(unit) for target in TARGETS for unit in self._of(target)]

    def _of(self, target: TargetName) -> Iterator[Unit]:
        if self.campaign.benign.images:
            yield Unit("benign", target, "", self.campaign.seeds[0], 0, self.campaign.benign.images)
        for attack in self.campaign.attacks:
            n, name = self.victims(attack), title(attack)
            for seed in self.campaign.seeds:
                if attack.entry.access == "gradients":
                    yield Unit("send", target, name, seed, 0, n)
                else:
                    step = n if self.campaign.identities.per == "attack" else self.campaign.chunk
                    yield from (Unit("hunt", target, name, seed, i, min(n, i + step)) for i in range(0, n, step))

    def _keyed(self, unit: Unit) -> Unit:
        campaign, prints = self.campaign, self._prints
        parts: dict[str, Any] = {"code": prints.code, "unit": [unit.kind, unit.seed, unit.start, unit.stop]}
        parts["x"], parts["y"] = (digest(values[self.rows(unit)]) for values in (self.inputs.x, self.inputs.y))
        if unit.target:
            parts["target"] = prints.targets[target_of(unit)]
            parts["identities"] = campaign.identities.model_dump(mode="json")
        if unit.attack:
            attack = self.attack(unit.attack)
            parts["attack"] = attack.model_dump(mode="json", exclude={"title", "expect", "victims"})
            parts["eps"], parts["budget"] = eps_of(attack), budget_of(attack)
            parts["own"] = [digest(values) for values in self.own()] if attack.entry.family == "transfer" else []
            parts["rows"] = {name: digest(self._rows_for(what, unit)) for name, what in attack.per_victim.items()}
        if unit.kind in {"craft", "send"}:
            parts["model"] = prints.model
        if unit.kind in {"benign", "hunt"}:
            parts["benign"] = campaign.benign.model_dump(mode="json")
            parts["beside"] = digest(self.inputs.x[self._beside(unit)])
        return replace(unit, key=key(**parts))

    # --- what goes with a unit

    def needs(self, unit: Unit) -> list[Unit]:
        """The units whose arrays its task is made of."""
        if unit.kind not in {"send", "hunt"}:
            return []
        clean = Unit("clean", unit.target, "", unit.seed, 0, self._most)
        craft = [Unit("craft", "", unit.attack, unit.seed, unit.start, unit.stop)] if unit.kind == "send" else []
        return [self._keyed(other) for other in (clean, *craft)]

    def task(self, unit: Unit, needed: Sequence[Arrays], place: Place | None) -> Task:
        """All of it.

        arrays: x, y; `clean` labels for send and hunt; x_adv and queries for send; beside_x and beside_y; own_x and
                own_y for a surrogate; and `per_victim.NAME` for an attack's options with a row a victim.
        """
        rows, beside = self.rows(unit), self._beside(unit)
        arrays: dict[str, Array] = {
            "x": self.inputs.x[rows], "y": self.inputs.y[rows],
            "beside_x": self.inputs.x[beside], "beside_y": self.inputs.y[beside],
        }  # fmt: skip
        if unit.kind in {"send", "hunt"}:
            arrays["clean"] = needed[0]["labels"][unit.start : unit.stop]
        if unit.kind == "send":
            arrays |= {name: needed[1][name] for name in ("x_adv", "queries")}
        attack = self.attack(unit.attack) if unit.attack else None
        if attack is not None and unit.kind == "craft" and attack.entry.family == "transfer":
            arrays["own_x"], arrays["own_y"] = self.own()
        if attack is not None and unit.kind != "send":
            arrays |= {f"per_victim.{name}": self._rows_for(what, unit) for name, what in attack.per_victim.items()}
        campaign = self.campaign
        return Task(unit, campaign.model, place, attack, campaign.benign, campaign.identities, arrays)

    def _rows_for(self, what: str, unit: Unit) -> Array:
        y = self.inputs.y[self.rows(unit)]
        if what == "next_class":
            return np.asarray((y + 1) % (int(self.inputs.y.max()) + 1))
        spare = self._spare
        chosen = []
        for i, label in enumerate(y, unit.start):
            others = spare[self.inputs.y[spare] != label]
            if not len(others):
                raise CampaignError("", "too few test inputs: none of another class is left to start from")
            chosen.append(int(np.random.default_rng([unit.seed, i]).choice(others)))
        return np.asarray(self.inputs.x[chosen])


def target_of(unit: Unit) -> TargetName:
    """Which of the two it asks."""
    return CONTROL if unit.target == CONTROL else GUARDED


def eps_of(attack: Attack) -> float:
    """The campaign's, or the catalogue's."""
    return attack.entry.eps if attack.eps is None else attack.eps


def budget_of(attack: Attack) -> int:
    """The campaign's, or the catalogue's."""
    return attack.entry.budget if attack.budget is None else attack.budget


def _check_options(attack: Attack, i: int) -> None:
    """An option that the attack does not have is an error before anything runs."""
    known = inspect.signature(attack.entry.load()).parameters
    fixed = {"target", "x", "y", "eps", "budget", "rng"}
    for field, given in (("options", attack.options), ("per_victim", attack.per_victim)):
        for name in given:
            if name not in known or name in fixed:
                has = ", ".join(sorted(known.keys() - fixed)) or "none"
                raise CampaignError(f"attacks.{i}.{field}.{name}", f"{attack.attack} has no such option; it has {has}")
