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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adversary.attack import Array
from adversary.campaign import CONTROL, TARGETS, Attack, Campaign, CampaignError, TargetName, title
from adversary.catalogue import Goal
from adversary.drawing import Drawing
from adversary.inputs import Inputs
from adversary.serving import Place
from adversary.shelf import Arrays, digest, key
from adversary.unit import COMPANY, Kind, Task, Unit, budget_of, eps_of, options_of, target_of

_KIND_OF: dict[Goal, Kind] = {"evasion": "hunt", "extraction": "steal", "membership": "infer", "inversion": "invert"}


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
        for i, attack in enumerate(campaign.attacks):
            _check_options(attack, i)
        self.drawn = Drawing(campaign, inputs)

    def attack(self, name: str) -> Attack:
        """By its title."""
        return self.drawn.attack(name)

    # --- units

    def first(self) -> list[Unit]:
        """What others need."""
        seeds = self.campaign.seeds
        inside = [attack for attack in self.campaign.attacks if attack.entry.crafted]
        craft = [Unit("craft", "", title(a), seed, 0, self.drawn.victims(a)) for a in inside for seed in seeds]
        clean = [self._clean(target, seed) for target in TARGETS for seed in seeds]
        return [self._keyed(unit) for unit in (*clean, *craft) if unit.stop]

    def _clean(self, target: TargetName, seed: int) -> Unit:
        """Evasions want to know what either endpoint makes of their victims; copies are held against the bare one."""
        goals = {"evasion", "extraction"} if target == CONTROL else {"evasion"}
        asked = [self.drawn.victims(attack) for attack in self.campaign.attacks if attack.entry.goal in goals]
        return Unit("clean", target, "", seed, 0, max(asked, default=0))

    def second(self) -> list[Unit]:
        """The rest, the control before the guarded endpoint."""
        return [self._keyed(unit) for target in TARGETS for unit in self._of(target)]

    def _of(self, target: TargetName) -> Iterator[Unit]:
        if self.campaign.benign.images:
            yield Unit("benign", target, "", self.campaign.seeds[0], 0, self.campaign.benign.images)
        for attack in self.campaign.attacks:
            n, name, kind = self.drawn.victims(attack), title(attack), _KIND_OF[attack.entry.goal]
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
        parts["x"], parts["y"] = (digest(values[self.drawn.rows(unit)]) for values in (self.inputs.x, self.inputs.y))
        if unit.target:
            parts["target"] = prints.targets[target_of(unit)]
            parts["identities"] = campaign.identities.model_dump(mode="json")
        if unit.attack:
            attack = self.attack(unit.attack)
            parts["attack"] = attack.model_dump(mode="json", exclude={"title", "expect", "victims"})
            parts["eps"], parts["budget"] = eps_of(attack), budget_of(attack)
            given = self.drawn.given(unit)
            parts["given"] = {name: self.drawn.pool_print if name == "pool" else digest(given[name]) for name in given}
            parts["rows"] = {name: digest(self.drawn.rows_for(what, unit)) for name, what in attack.per_victim.items()}
        if unit.kind in {"craft", "send"}:
            parts["model"] = prints.model
        if unit.kind in {"benign", *COMPANY}:
            parts["benign"] = campaign.benign.model_dump(mode="json")
            parts["beside"] = digest(self.inputs.x[self.drawn.beside(unit)])
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
                send; beside_x and beside_y; what `Drawing.given` says; and `per_victim.NAME` for an attack's options
                with a row a victim.
        """
        rows, beside = self.drawn.rows(unit), self.drawn.beside(unit)
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
            arrays |= self.drawn.given(unit)
        if attack is not None and unit.kind != "send":
            arrays |= {
                f"per_victim.{name}": self.drawn.rows_for(what, unit) for name, what in attack.per_victim.items()
            }
        campaign = self.campaign
        return Task(
            unit, campaign.model, place, attack, campaign.benign, campaign.identities, arrays, self.drawn.classes
        )


def _check_options(attack: Attack, i: int) -> None:
    """An option that the attack does not have is an error before anything runs."""
    known = options_of(attack.entry)
    for field, given in (("options", attack.options), ("per_victim", attack.per_victim)):
        for name in given:
            if name not in known:
                has = ", ".join(sorted(known)) or "none"
                raise CampaignError(f"attacks.{i}.{field}.{name}", f"{attack.attack} has no such option; it has {has}")
