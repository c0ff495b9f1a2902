"""Copies of so many answered images of the victim's own kind, beside what the budget's curve says they are worth.

    knockoff     the adversary's Knockoff as it is: 15 epochs of its own small network
    longer       the same network at least 1,500 steps long, with images in colour shifted and mirrored
    self-taught  `longer`, then twice more, from its own guesses on images that it never sends, where it is sure
                 (pseudo-labels, Lee 2013; noisy students, Xie et al. 2020, arXiv:1911.04252)
    labelled     a thief who has labels of his own for all his images: what he agrees on, the victim need not tell him

The student at `guard fit` is most like the second. The last two are the bypass that is known: they learn faster.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from adversary import serving, shelf
from adversary.attack import Array, Copy
from adversary.extraction.answers import Loot
from adversary.extraction.knockoff_random import EPOCHS
from adversary.extraction.networks import copy_of, learn, network
from adversary.gradients import BATCH, one_thread
from bench.monitors.ground import ground, softmax
from bench.monitors.kept import once
from bench.monitors.thefts import pool

STEPS = 1500
SURE = 0.95
_ROUNDS = 2
_BATCH = 64
_GUESSED = 5000  # images that nobody sends
PLANS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "mnist": {
        "knockoff": (30, 100, 300, 1000, 5000), "longer": (30, 100, 1000, 5000), "self-taught": (100,),
        "labelled": (0,),
    },
    "cifar10": {
        "knockoff": (100, 300, 1000, 3000, 10_000), "longer": (100, 1000, 10_000), "self-taught": (1000,),
        "labelled": (0,),
    },
}  # fmt: skip
"""Budgets by thief, in answered images."""
_MS_A_STEP = {"mnist": 10.0, "cifar10": 60.0}


@dataclass(frozen=True, slots=True)
class Replay:
    """One copy of one thief."""

    data: str
    thief: str
    budget: int
    seed: int

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: {self.thief}, a copy of {self.budget:,} answers, seed {self.seed}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        steps = {"knockoff": EPOCHS * self.budget / _BATCH, "self-taught": STEPS * (1 + _ROUNDS)}
        return steps.get(self.thief, STEPS) * _MS_A_STEP[self.data] / 1000.0

    @property
    def name(self) -> str:
        """Under which it is kept."""
        key = shelf.key(
            victim=ground(self.data).sha256, thief=[self.thief, self.budget, self.seed, STEPS, SURE, _ROUNDS, _GUESSED],
            code=serving.code_digest("adversary.extraction"),
        )  # fmt: skip
        return f"{self.data}_copy_{self.thief}_{self.budget}_{self.seed}_{key}"

    def do(self) -> None:
        """Make it, unless it is made."""
        self.made()

    def made(self) -> dict[str, Array]:
        """agrees: (N,) with the victim on the benign half of the test split."""
        return once(self, self._run)

    def _run(self) -> dict[str, Array]:
        on, rng = ground(self.data), np.random.default_rng(self.seed)
        x = pool(self.data, "own")
        order = rng.permutation(len(x))
        sent, rest = order[: self.budget], order[self.budget :]
        loot = Loot(x[sent], softmax(on.model.logits(x[sent])) if len(sent) else np.zeros((0, on.classes)))
        with one_thread():
            copy = self._copy(loot, x[rest], np.eye(on.classes)[on.thief.labels[rest]], rng)
            judged = on.unit(on.quiet.images)
            return {"agrees": np.asarray(copy(judged) == on.model.labels(judged))}

    def _copy(self, loot: Loot, rest: Array, labels: Array, rng: np.random.Generator) -> Copy:
        """rest: images that he has and never sends; labels: theirs, for him who has them."""
        if self.thief == "knockoff":
            return copy_of(fresh(loot, rng, epochs=EPOCHS, augment=False))
        if self.thief == "labelled":
            loot += Loot(rest, labels)
        colour = loot.x.shape[1] > 1
        net = fresh(loot, rng, epochs=long(len(loot)), augment=colour)
        if self.thief == "self-taught":
            for _ in range(_ROUNDS):
                more = loot + guessed(net, rest[:_GUESSED], labels.shape[1])
                net = fresh(more, rng, epochs=long(len(more)), augment=colour)
        return copy_of(net)


def fresh(loot: Loot, rng: np.random.Generator, *, epochs: int, augment: bool) -> nn.Module:
    """A new network that has learned from what was answered."""
    return learn(network(loot.x.shape[1:], loot.p.shape[1], rng), loot, rng, epochs=epochs, augment=augment)


def long(rows: int) -> int:
    """Epochs of at least STEPS steps, and of as many as Knockoff has."""
    return max(EPOCHS, math.ceil(STEPS / math.ceil(rows / _BATCH)))


def guessed(net: nn.Module, x: Array, classes: int) -> Loot:
    """The images that the copy is sure of, with the labels that it gives them."""
    with torch.no_grad():
        parts = [net(torch.from_numpy(x[at : at + BATCH])).numpy() for at in range(0, len(x), BATCH)]
    p = softmax(np.concatenate(parts))
    sure = p.max(axis=1) >= SURE
    return Loot(x[sure], np.eye(classes)[p[sure].argmax(axis=1)])


def units(data: str, seeds: int) -> list[Replay]:
    """All of the plan."""
    return [
        Replay(data, thief, budget, seed)
        for thief, budgets in PLANS[data].items()
        for budget in budgets
        for seed in range(seeds)
    ]
