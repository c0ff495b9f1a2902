"""A campaign and its inputs -> units of work, and what each needs. Pure: the same campaign gives the same plan.

Units:
  craft   a white-box attack on the model's file, all victims of one seed
  clean   the endpoint's answers to the victims as they are, each from a caller of its own
  send    what was crafted, to one endpoint
  hunt    a black-box attack on some of the victims, through one endpoint
  steal   an extraction through one endpoint; its victims are the test inputs that copies are judged by
  infer   a membership inference through one endpoint; its victims are candidates, half of them members
  invert  an inversion through one endpoint; its victims are classes in turn
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
from adversary.catalogue import Entry, Goal
from adversary.inputs import Inputs
from adversary.serving import Place
from adversary.shelf import Arrays, digest, key

Kind = Literal["craft", "clean", "send", "hunt", "steal", "infer", "invert", "benign"]
BESIDE = 256  # clean rows that a unit of a black-box attack takes along at most
OWN = 5000  # labelled inputs of the attacker himself, for a surrogate
GREY = 0.5  # where an inversion starts
_KIND_OF: dict[Goal, Kind] = {"evasion": "hunt", "extraction": "steal", "membership": "infer", "inversion": "invert"}
_COMPANY = frozenset({"hunt", "steal", "infer", "invert"})  # kinds of units that an honest caller works beside


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
        self._most = max(map(self._taken, campaign.attacks))
        fit = max(0 if target.serve is None else target.serve.fit for target in map(campaign.target, TARGETS))
        self._fit = 0 if len(inputs.clean) else fit
        wanted = self._most * len(campaign.seeds) + campaign.benign.images + self._fit
        if wanted > len(inputs.x) or (len(inputs.clean) and fit > len(inputs.clean)):
            has = f"{len(inputs.x):,} test inputs and {len(inputs.clean):,} clean ones"
            raise CampaignError("", f"there are {has}; the campaign wants {wanted:,} and {fit - self._fit:,}")
        for i, attack in enumerate(campaign.attacks):
            _check_options(attack, i)
            self._check_inputs(attack, i)

    def victims(self, attack: Attack) -> int:
        """How many an attack has with each seed."""
        return attack.victims or self.campaign.victims

    def _taken(self, attack: Attack) -> int:
        """Test inputs that it needs with each seed."""
        n = self.victims(attack)
        return {"membership": n - n // 2, "inversion": 0}.get(attack.entry.goal, n)

    def _check_inputs(self, attack: Attack, i: int) -> None:
        inputs, goal, n = self.inputs, attack.entry.goal, self.victims(attack)
        if goal == "extraction" and not len(inputs.pool):
            raise CampaignError(f"attacks.{i}", f"{attack.attack} needs inputs to send: the data have no pool")
        if goal == "membership" and n // 2 > len(inputs.learned):
            has = f"the data have {len(inputs.learned):,} that the victim learned from"
            raise CampaignError(f"attacks.{i}", f"{attack.attack} wants {n // 2:,} members; {has}")

    @property
    def classes(self) -> int:
        """Of the data's labels."""
        return int(self.inputs.y.max()) + 1

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
        n = self._taken(self.attack(unit.attack)) if unit.kind in {"infer", "invert"} else unit.stop
        return np.asarray(self._order[first + unit.start : first + n])

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
        if unit.kind not in _COMPANY or not self.campaign.benign.every or not len(spare):
            return spare[:0]
        place = int(key(unit=[unit.attack, unit.seed, unit.start]), 16) % len(spare)
        return np.asarray(np.roll(spare, -place)[:BESIDE])

    # --- units

    def first(self) -> list[Unit]:
        """What others need."""
        seeds = self.campaign.seeds
        inside = [attack for attack in self.campaign.attacks if attack.entry.crafted]
        craft = [Unit("craft", "", title(a), seed, 0, self.victims(a)) for a in inside for seed in seeds]
        clean = [self._clean(target, seed) for target in TARGETS for seed in seeds]
        return [self._keyed(unit) for unit in (*clean, *craft) if unit.stop]

    def _clean(self, target: TargetName, seed: int) -> Unit:
        """Evasions want to know what either endpoint makes of their victims; copies are held against the bare one."""
        goals = {"evasion", "extraction"} if target == CONTROL else {"evasion"}
        asked = [self.victims(attack) for attack in self.campaign.attacks if attack.entry.goal in goals]
        return Unit("clean", target, "", seed, 0, max(asked, default=0))

    def second(self) -> list[Unit]:
        """The rest, the control before the guarded endpoint."""
        return [self._keyed(unit) for target in TARGETS for unit in self._of(target)]

    def _of(self, target: TargetName) -> Iterator[Unit]:
        if self.campaign.benign.images:
            yield Unit("benign", target, "", self.campaign.seeds[0], 0, self.campaign.benign.images)
        for attack in self.campaign.attacks:
            n, name, kind = self.victims(attack), title(attack), _KIND_OF[attack.entry.goal]
            whole = attack.entry.joint or self.campaign.identities.per == "attack"
            step = n if whole or kind != "hunt" else self.campaign.chunk
            for seed in self.campaign.seeds:
                if attack.entry.crafted:
                    yield Unit("send", target, name, seed, 0, n)
                else:
                    yield from (Unit(kind, target, name, seed, i, min(n, i + step)) for i in range(0, n, step))

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
            given = self._given(unit)
            parts["given"] = {name: self._pool_print if name == "pool" else digest(given[name]) for name in given}
            parts["rows"] = {name: digest(self._rows_for(what, unit)) for name, what in attack.per_victim.items()}
        if unit.kind in {"craft", "send"}:
            parts["model"] = prints.model
        if unit.kind in {"benign", *_COMPANY}:
            parts["benign"] = campaign.benign.model_dump(mode="json")
            parts["beside"] = digest(self.inputs.x[self._beside(unit)])
        return replace(unit, key=key(**parts))

    # --- what goes with a unit

    def needs(self, unit: Unit) -> list[Unit]:
        """The units whose arrays its task is made of."""
        if unit.kind not in {"send", "hunt", "steal"}:
            return []
        clean = self._clean(CONTROL if unit.kind == "steal" else target_of(unit), unit.seed)
        craft = [Unit("craft", "", unit.attack, unit.seed, unit.start, unit.stop)] if unit.kind == "send" else []
        return [self._keyed(other) for other in (clean, *craft)]

    def task(self, unit: Unit, needed: Sequence[Arrays], place: Place | None) -> Task:
        """All of it.

        arrays: x, y; `clean` labels for send and hunt, and the bare endpoint's for steal; x_adv, queries and aim for
                send; beside_x and beside_y; what `_given` says; and `per_victim.NAME` for an attack's options with a
                row a victim.
        """
        rows, beside = self.rows(unit), self._beside(unit)
        arrays: dict[str, Array] = {
            "x": self.inputs.x[rows], "y": self.inputs.y[rows],
            "beside_x": self.inputs.x[beside], "beside_y": self.inputs.y[beside],
        }  # fmt: skip
        if unit.kind in {"send", "hunt", "steal"}:
            arrays["clean"] = needed[0]["labels"][unit.start : unit.stop]
        if unit.kind == "send":
            arrays |= {name: needed[1][name] for name in ("x_adv", "queries", "aim")}
        attack = self.attack(unit.attack) if unit.attack else None
        if attack is not None:
            arrays |= self._given(unit)
        if attack is not None and unit.kind != "send":
            arrays |= {f"per_victim.{name}": self._rows_for(what, unit) for name, what in attack.per_victim.items()}
        campaign = self.campaign
        return Task(unit, campaign.model, place, attack, campaign.benign, campaign.identities, arrays, self.classes)

    def _given(self, unit: Unit) -> dict[str, Array]:
        """What an attack gets beside its victims.

        own_x, own_y:          labelled inputs of the attacker's own, for a surrogate, or where the attack asks for them
        pool, pool_y:          what a thief may send
        candidates...:         members and others in a random order, their labels, and who is a member
        real_x, real_y:        labelled inputs that rebuilt ones are compared with; start: where the rebuilding starts
        """
        attack = self.attack(unit.attack)
        found: dict[str, Array] = {}
        if unit.kind != "send" and (
            wants(attack.entry) & {"own_x", "own_y"} or (unit.kind == "craft" and attack.entry.family == "transfer")
        ):
            found["own_x"], found["own_y"] = self.own()
        if unit.kind == "steal":
            found |= {"pool": self._pool, "pool_y": self.inputs.pool_y}
        if unit.kind == "infer":
            found |= self._candidates(unit)
        if unit.kind == "invert":
            found["real_x"], found["real_y"] = self.own()
            found["start"] = np.full((unit.stop, *self.inputs.x.shape[1:]), GREY, np.float32)
            found["wanted"] = np.arange(unit.stop) % self.classes
        return found

    @cached_property
    def _pool(self) -> Array:
        return np.asarray(self.inputs.pool[:])

    @cached_property
    def _pool_print(self) -> str:
        return digest(self._pool)

    def _candidates(self, unit: Unit) -> dict[str, Array]:
        rng, rows = np.random.default_rng([self.campaign.seeds[0], unit.seed]), self.rows(unit)
        return candidates(self.inputs, self.inputs.x[rows], self.inputs.y[rows], unit.stop, rng)

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


def candidates(inputs: Inputs, x: Array, y: Array, n: int, rng: np.random.Generator) -> dict[str, Array]:
    """x, y: outsiders; as many members, or one less, make them n candidates in a random order."""
    members, order = np.sort(rng.choice(len(inputs.learned), n // 2, replace=False)), rng.permutation(n)
    return {
        "candidates": np.concatenate([inputs.learned[members], x])[order],
        "candidates_y": np.concatenate([inputs.learned_y[members], y])[order],
        "member": (np.arange(n) < len(members))[order],
    }


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


def _check_options(attack: Attack, i: int) -> None:
    """An option that the attack does not have is an error before anything runs."""
    known = options_of(attack.entry)
    for field, given in (("options", attack.options), ("per_victim", attack.per_victim)):
        for name in given:
            if name not in known:
                has = ", ".join(sorted(known)) or "none"
                raise CampaignError(f"attacks.{i}.{field}.{name}", f"{attack.attack} has no such option; it has {has}")
