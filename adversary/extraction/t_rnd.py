"""T-RND: as JBDA, but every input steps far towards a class drawn for it, and the copy is trained anew, and longer.

Source: Juuti, Szyller, Marchal, Asokan 2019, arXiv:1805.02628 (section 3: T-RND-64, steps of 64/255).
Access: labels; `answers="scores"` learns from scores. Sees no labels of its own. Cost: `seeds` rows, then twice as many
        in all with every round.
Published: better agreement than JBDA for the same rows, and better transfer of targeted images.
Limits: the authors search for the training's settings by cross-validation; here they are fixed. PRADA, of the same
        paper, notices it by its distances between queries.
"""

from collections.abc import Iterator

import numpy as np
from torch import nn

from adversary.attack import Array, Copy
from adversary.extraction.answers import Kind, Loot, Thief
from adversary.extraction.jbda import SEEDS, along, rounds, some
from adversary.extraction.networks import copy_of, learn, network

_ALWAYS = 1 << 30  # rounds that double


def attack(
    target: object,
    x: Array,
    y: Array,
    *,
    budget: int,
    rng: np.random.Generator,
    classes: int,
    answers: Kind = "labels",
    seeds: int = SEEDS,
    step: float = 64 / 255,
    epochs: int = 20,
    batch: int = 100,
) -> Iterator[Copy]:
    """A copy after every round."""
    del y
    thief = Thief(target, budget=budget, classes=classes, answers=answers, batch=batch)

    def train(_: nn.Module | None, loot: Loot) -> nn.Module:
        return learn(network(x.shape[1:], classes, rng), loot, rng, epochs=epochs)

    def move(net: nn.Module, loot: Loot, _: int) -> Array:
        return along(net, loot.x, others(loot.labels, classes, rng), step)

    grown = rounds(thief, some(x, seeds, rng), rng, train=train, move=move, doublings=_ALWAYS, kept=1)
    yield from map(copy_of, grown)


def others(labels: Array, classes: int, rng: np.random.Generator) -> Array:
    """(N,) labels -> (N,) any others."""
    return np.asarray((labels + rng.integers(1, max(classes, 2), len(labels))) % classes)
