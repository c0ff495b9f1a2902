"""Who gets which inputs: victims, clean ones, honest callers', the attacker's own. Seeded, and nobody shares.

No two seeds share a victim, no victim is sent as benign, and what `guard fit` sees is never sent.
"""

from functools import cached_property

import numpy as np

from adversary.attack import Array
from adversary.campaign import TARGETS, Attack, Campaign, CampaignError, title
from adversary.inputs import Inputs
from adversary.shelf import digest, key
from adversary.unit import COMPANY, Unit, wants

BESIDE = 256  # clean rows that a unit of a black-box attack takes along at most
OWN = 5000  # labelled inputs of the attacker himself, for a surrogate
GREY = 0.5  # where an inversion starts


class Drawing:
    """The inputs of a campaign, dealt out. Raises CampaignError where there are too few."""

    def __init__(self, campaign: Campaign, inputs: Inputs) -> None:
        self.campaign, self.inputs = campaign, inputs
        self._most = max(map(self._taken, campaign.attacks))
        fit = max(0 if target.serve is None else target.serve.fit for target in map(campaign.target, TARGETS))
        self._fit = 0 if len(inputs.clean) else fit
        wanted = self._most * len(campaign.seeds) + campaign.benign.images + self._fit
        if wanted > len(inputs.x) or (len(inputs.clean) and fit > len(inputs.clean)):
            has = f"{len(inputs.x):,} test inputs and {len(inputs.clean):,} clean ones"
            raise CampaignError("", f"there are {has}; the campaign wants {wanted:,} and {fit - self._fit:,}")
        for i, attack in enumerate(campaign.attacks):
            self._check(attack, i)

    def victims(self, attack: Attack) -> int:
        """How many an attack has with each seed."""
        return attack.victims or self.campaign.victims

    def _taken(self, attack: Attack) -> int:
        """Test inputs that it needs with each seed."""
        n = self.victims(attack)
        return {"membership": n - n // 2, "inversion": 0}.get(attack.entry.goal, n)

    def _check(self, attack: Attack, i: int) -> None:
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

    def beside(self, unit: Unit) -> Array:
        """What an honest caller sends beside a hunt."""
        spare = self._spare
        if unit.kind not in COMPANY or not self.campaign.benign.every or not len(spare):
            return spare[:0]
        place = int(key(unit=[unit.attack, unit.seed, unit.start]), 16) % len(spare)
        return np.asarray(np.roll(spare, -place)[:BESIDE])

    def given(self, unit: Unit) -> dict[str, Array]:
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
    def pool_print(self) -> str:
        """The digest of the whole pool."""
        return digest(self._pool)

    def _candidates(self, unit: Unit) -> dict[str, Array]:
        rng, rows = np.random.default_rng([self.campaign.seeds[0], unit.seed]), self.rows(unit)
        return candidates(self.inputs, self.inputs.x[rows], self.inputs.y[rows], unit.stop, rng)

    def rows_for(self, what: str, unit: Unit) -> Array:
        """An option with a row a victim: `next_class`, or an image of another class to start from."""
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
