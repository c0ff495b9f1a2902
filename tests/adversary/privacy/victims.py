"""A small task that a network learns by heart, and networks that have: four classes of noisy 8x8 images."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from adversary.extraction import networks
from adversary.extraction.answers import Loot
from adversary.gradients import one_thread
from adversary.privacy import shadows

CLASSES = 4
MEMBERS = 250


@dataclass(frozen=True, eq=False)
class Task:
    """Candidates, the first half of them members; what the attacker has; what the control learned from."""

    x: np.ndarray
    y: np.ndarray
    own_x: np.ndarray
    own_y: np.ndarray
    other_x: np.ndarray
    other_y: np.ndarray

    @property
    def own(self):
        return {"own_x": self.own_x, "own_y": self.own_y}


def task() -> Task:
    rng = np.random.default_rng(0)
    means = rng.uniform(0.4, 0.6, (CLASSES, 1, 8, 8))

    def drawn(n):
        y = rng.integers(0, CLASSES, n)
        x = np.clip(means[y] + rng.normal(0.0, 0.3, (n, 1, 8, 8)), 0.0, 1.0)
        return np.float32(x), y

    return Task(*drawn(2 * MEMBERS), *drawn(2 * MEMBERS), *drawn(MEMBERS))


def learned(x, y, seed=0, epochs=60) -> nn.Module:
    """A network that knows these by heart."""
    rng = np.random.default_rng(seed)
    net = shadows.network(x.shape[1:], CLASSES, rng)
    with one_thread():
        return networks.learn(net, Loot(x, np.eye(CLASSES)[y]), rng, epochs=epochs)
