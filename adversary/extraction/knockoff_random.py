"""KnockoffNets, random policy: send inputs of the pool in no order, and learn from the scores.

Source: Orekondy, Schiele, Fritz 2019, arXiv:1812.02766 (random strategy; soft answers).
Access: scores; labels do with `answers="labels"`. Sees no labels of its own. Cost: a row an input, each sent once.
Published: 60,000 ImageNet images copy 78.4 % (Caltech256) as 76.0 %, 77.1 % (CUBS200) as 67.7 %, with a pretrained
        ResNet-34. The thief's network here is small and learns from nothing (adversary.extraction.networks).
Limits: no better than the pool: what the victim never has to tell apart on it, the copy does not learn.
"""

from collections.abc import Iterator

import numpy as np
from torch import nn

from adversary.attack import Array, Copy
from adversary.extraction.answers import Kind, Loot, Thief, milestones
from adversary.extraction.networks import copy_of, learn, network

EPOCHS = 15


def attack(
    target: object,
    x: Array,
    y: Array,
    *,
    budget: int,
    rng: np.random.Generator,
    classes: int,
    answers: Kind = "scores",
    epochs: int = EPOCHS,
    batch: int = 100,
) -> Iterator[Copy]:
    """A copy at an eighth, a quarter, a half of the budget and at the end; each is trained anew."""
    del y
    thief = Thief(target, budget=budget, classes=classes, answers=answers, batch=batch)
    yield from copies(thief, x, rng, epochs=epochs)


def copies(thief: Thief, x: Array, rng: np.random.Generator, *, epochs: int) -> Iterator[Copy]:
    """Send (N, ...) in a random order until the budget or the pool is spent."""
    order = rng.permutation(len(x))[: thief.left]
    loot = Loot(x[:0], np.zeros((0, thief.classes)))
    for mark in milestones(len(order)):
        loot += thief.take(x[order[thief.spent : mark]])
        yield copy_of(trained(loot, rng, epochs=epochs))


def trained(loot: Loot, rng: np.random.Generator, *, epochs: int) -> nn.Module:
    """A new network that has learned from what was answered; without answers it knows nothing."""
    return learn(network(loot.x.shape[1:], loot.p.shape[1], rng), loot, rng, epochs=epochs)
