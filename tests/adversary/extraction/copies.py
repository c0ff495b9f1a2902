"""Copies made in memory, and how often they agree."""

import numpy as np

from adversary.gradients import predict
from tests.adversary.evasion.oracles import InMemory, over


def made(module, oracle, x, y=None, *, budget, seed=0, classes=10, **options):
    """Run an attack to its end -> rows sent before each copy, the copies."""
    y = np.zeros(len(x), np.int64) if y is None else y
    found = [
        (oracle.sent, copy)
        for copy in module.attack(
            oracle, x, y, budget=budget, rng=np.random.default_rng(seed), classes=classes, **options
        )
    ]
    return [sent for sent, _ in found], [copy for _, copy in found]


def agreement(copy, model, x) -> float:
    return float((copy(x) == predict(model, x)).mean())


class Rounding(InMemory):
    """Scores with so many decimals."""

    def __init__(self, model, decimals):
        super().__init__(over(model).logits)
        self.decimals = decimals

    def probabilities(self, x):
        return np.round(super().probabilities(x), self.decimals)
