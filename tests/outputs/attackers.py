"""A small served model, and attackers who ask it: what protections are held against in tests, all seeded."""

import numpy as np

from tests.outputs.worlds import softmax

CLASSES, SIDE = 10, 12


class Model:
    """Ten classes, a prototype image each; answers by distance, sharp enough to be sure of most of its own inputs."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.prototypes = rng.random((CLASSES, SIDE, SIDE, 1))
        self.weights = rng.normal(size=(64, CLASSES)) / 4
        self.mix = rng.normal(size=(SIDE * SIDE, 64)) / SIDE

    def inputs(self, n, seed=1):
        rng = np.random.default_rng(seed)
        labels = rng.integers(CLASSES, size=n)
        x = 0.5 * self.prototypes[labels] + 0.5 * rng.random((n, SIDE, SIDE, 1))
        return x.astype(np.float32)

    def __call__(self, x):
        flat, own = x.reshape(len(x), -1), self.prototypes.reshape(CLASSES, -1)
        linear = -0.6 * ((flat[:, None] - own) ** 2).sum(axis=2)
        return softmax(linear + 2 * np.tanh(flat @ self.mix) @ self.weights)


def square(ask, x, labels, eps, queries, seed=0):
    """Random squares at +-eps, each kept where the margin falls (Andriushchenko et al. 2020) -> the last inputs."""
    rng = np.random.default_rng(seed)
    best = np.clip(x + eps * rng.choice([-1.0, 1.0], (len(x), 1, SIDE, 1)), 0, 1)
    loss = margins(ask(best), labels)
    for step in range(queries - 1):
        size = max(1, round(SIDE * np.sqrt(0.3 * 0.5 ** (8 * step / queries))))
        tried = best.copy()
        for row in range(len(x)):
            top, left = rng.integers(SIDE - size + 1, size=2)
            place = np.s_[row, top : top + size, left : left + size]
            tried[place] = np.clip(x[place] + eps * rng.choice([-1.0, 1.0]), 0, 1)
        now = margins(ask(tried), labels)
        better = (now < loss) & (loss > 0)
        best[better], loss[better] = tried[better], now[better]
    return best


def margins(probs, labels):
    """(N,) the label's logit less the largest other: below 0, the attack is done."""
    log = np.log(np.maximum(probs, 1e-12))
    own = log[np.arange(len(log)), labels].copy()
    log[np.arange(len(log)), labels] = -np.inf
    return own - log.max(axis=1)
