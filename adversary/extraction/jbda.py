"""JBDA, Jacobian-based data augmentation: a substitute grown from a few inputs, stepping where its own answer changes.

Source: Papernot, McDaniel, Goodfellow, Jha, Celik, Swami 2017, arXiv:1602.02697 (lambda 0.1, alternating sign,
        reservoir).
Access: labels; `answers="scores"` learns from scores. Sees no labels of its own. Cost: `seeds` rows, then twice as many
        in all with every round, and `kept` more a round after `doublings` of them: 6,400 rows last for 17 rounds.
Published: 81 % right on MNIST after six rounds from 150 seeds; 84 % of its FGSM images at eps 0.3 mislead the victim.
Limits: stays near its seeds, so that agreement levels off; such steps are what PRADA (arXiv:1805.02628) looks for.

Round r adds x + lambda (-1)^(r // period) sign(J_c(x)), c being the victim's label for x. The substitute goes on
learning from round to round.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from torch import nn

from adversary.attack import Array, Copy
from adversary.extraction.answers import Kind, Loot, Thief
from adversary.extraction.networks import copy_of, learn, network
from adversary.gradients import loss_gradient

SEEDS = 150
_BATCH = 128
_LEAST = 20  # batches that an epoch has, however few were answered

Train = Callable[[nn.Module | None, Loot], nn.Module]
"""The substitute so far, everything answered so far -> the substitute of this round."""
Move = Callable[[nn.Module, Loot, int], Array]
"""The substitute, some of what was answered, the number of the round -> as many inputs to send."""


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
    step: float = 0.1,
    period: int = 1,
    doublings: int = 3,
    kept: int = 400,
    epochs: int = 5,
    batch: int = 100,
) -> Iterator[Copy]:
    """A copy after every round."""
    del y
    thief = Thief(target, budget=budget, classes=classes, answers=answers, batch=batch)
    grown = substitutes(
        thief, some(x, seeds, rng), rng, step=step, period=period, doublings=doublings, kept=kept, epochs=epochs
    )
    yield from map(copy_of, grown)


def substitutes(
    thief: Thief,
    seeds: Array,
    rng: np.random.Generator,
    *,
    step: float = 0.1,
    period: int = 1,
    doublings: int = 3,
    kept: int = 400,
    epochs: int = 5,
) -> Iterator[nn.Module]:
    """(N, ...) inputs to start from -> the one substitute, after every round."""

    def train(net: nn.Module | None, loot: Loot) -> nn.Module:
        net = network(seeds.shape[1:], thief.classes, rng) if net is None else net
        passes = epochs * max(1, _LEAST * _BATCH // max(_BATCH, len(loot)))
        return learn(net, loot, rng, epochs=passes, batch=_BATCH)

    def move(net: nn.Module, loot: Loot, number: int) -> Array:
        return along(net, loot.x, loot.labels, step * (-1) ** (number // period))

    yield from rounds(thief, seeds, rng, train=train, move=move, doublings=doublings, kept=kept)


def rounds(
    thief: Thief, seeds: Array, rng: np.random.Generator, *, train: Train, move: Move, doublings: int, kept: int
) -> Iterator[nn.Module]:
    """Train, step from all inputs (after `doublings` rounds from `kept`), ask about these; until all is spent."""
    loot, net = thief.take(seeds), None
    for number in itertools.count():
        net = train(net, loot)
        yield net
        if not (thief.left and len(loot)):
            return
        most = len(loot) if number < doublings else kept
        chosen = rng.permutation(len(loot))[: min(most, thief.left)]
        loot += thief.take(move(net, loot.part(chosen), number))


def along(net: nn.Module, x: Array, labels: Array, step: float) -> Array:
    """(N, ...) -> one signed step towards each row's label, in [0, 1]: d log p_c has the sign of d p_c."""
    return np.asarray(np.clip(x - step * np.sign(loss_gradient(net, x, labels)), 0.0, 1.0), np.float32)


def some(x: Array, count: int, rng: np.random.Generator) -> Array:
    """Any `count` rows."""
    return np.asarray(x[rng.permutation(len(x))[:count]], np.float32)
