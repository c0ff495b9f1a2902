"""Copies: the same small network for every thief, trained on what he makes of what he was told.

    scores     answers are taken at their word (KnockoffNets: Orekondy, Schiele, Fritz 2019, arXiv:1812.02766)
    labels     of answers the most probable class counts (CopycatCNN: Correia-Silva et al. 2018, arXiv:1806.05476)
    averages   copies of an image differ by a little noise, and their answers are averaged
    recovers   answers are undone first (`bench.ladder.recovery`)

A copy is kept under a digest of what it learned from: thieves who were told the same share it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from adversary import serving, shelf
from adversary.attack import Array
from adversary.extraction.answers import Loot
from adversary.extraction.networks import copy_of, learn, network
from adversary.gradients import one_thread
from bench.ladder import recovery
from bench.ladder.asking import Asking
from bench.monitors.ground import ground
from bench.monitors.kept import once

EPOCHS, STEPS = 4, 300
"""Who was told little learns from it for longer: at least so many steps."""
REPEATS = 4
"""How often who averages sends an image."""
_BATCH = 64
Way = Literal["scores", "labels", "averages", "recovers"]


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What a copy learns from, under its digest."""

    data: str
    loot: Loot
    seed: int

    @property
    def name(self) -> str:
        """Under which the copy is kept."""
        key = shelf.key(
            x=shelf.digest(self.loot.x), p=shelf.digest(self.loot.p), seed=self.seed, epochs=self.epochs,
            code=_code(), victim=ground(self.data).sha256,
        )  # fmt: skip
        return f"{self.data}_ladder_copy_{self.seed}_{key}"

    @property
    def epochs(self) -> int:
        """All alike, but for those of little loot."""
        return max(EPOCHS, math.ceil(STEPS / max(1, math.ceil(len(self.loot) / _BATCH))))

    def made(self) -> Array:
        """(N,) whether the copy agrees with the victim, on each image of the benign half of the test split."""
        return once(self, self._run)["agrees"]

    def _run(self) -> dict[str, Array]:
        on, rng = ground(self.data), np.random.default_rng(self.seed)
        judged = on.unit(on.quiet.images)
        with one_thread():
            net = network(judged.shape[1:], on.classes, rng)
            copy = copy_of(learn(net, self.loot, rng, epochs=self.epochs))
            return {"agrees": np.asarray(copy(judged) == on.model.labels(judged))}


@lru_cache(maxsize=1)
def _code() -> str:
    return serving.code_digest("adversary.extraction")


@dataclass(frozen=True, slots=True)
class Clone:
    """One thief's copy."""

    asking: Asking
    way: Way = "scores"

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.asking.label}: {self.way}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return self.asking.cost + EPOCHS * self.asking.n * 0.0012

    def do(self) -> None:
        """Make it, unless it is made."""
        self.agrees()

    def agrees(self) -> Array:
        """(N,) see `Lesson`."""
        return self.lesson().made()

    def lesson(self) -> Lesson:
        """What the copy learns from."""
        return Lesson(self.asking.data, self.loot(), self.asking.seed)

    def loot(self) -> Loot:
        """What he makes of what he was told; what he was not told, he leaves out."""
        got, x = self.asking.made(), self.asking.queries()
        p = got["p"]
        told = np.asarray(~np.isnan(p).any(axis=1))
        if self.way == "averages":
            return averaged(x, p, self.asking.repeats)
        if self.way == "labels":
            p = np.eye(p.shape[1])[np.nan_to_num(p).argmax(axis=1)]
        if self.way == "recovers" and told.any():
            p = np.where(told[:, None], recovery.recovered(self.asking.data, self.asking.arm, np.nan_to_num(p)), np.nan)
        return Loot(x[told], p[told])


def averaged(x: Array, p: Array, repeats: int) -> Loot:
    """Copies next to each other -> their mean, and the mean of the answers that came; without any, none."""
    images = x.reshape(-1, repeats, *x.shape[1:]).mean(axis=1)
    each = p.reshape(-1, repeats, p.shape[1])
    told = np.asarray(~np.isnan(each).any(axis=2))
    some = np.asarray(told.any(axis=1))
    mean = np.where(told[..., None], each, 0.0).sum(axis=1)[some] / told.sum(axis=1)[some, None]
    return Loot(np.asarray(images[some], np.float32), mean)


def counts(got: Mapping[str, Array]) -> dict[str, int]:
    """How many rows met which end."""
    return {str(end): int((got["outcome"] == end).sum()) for end in range(4)}
