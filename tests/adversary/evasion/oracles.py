"""Oracles in memory for query attacks: what crossed the boundary is checked and counted."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from adversary.attack import REFUSED, Refused

REFUSAL = Refused("PERMISSION_DENIED", "")


@dataclass
class InMemory:
    """Answers with the model's logits, unless `refuse(rows sent before, x)`."""

    logits: Callable[[np.ndarray], np.ndarray]
    refuse: Callable[[int, np.ndarray], bool] = lambda sent, x: False
    calls: list[int] = field(default_factory=list)

    @property
    def sent(self) -> int:
        return sum(self.calls)

    def _answer(self, x):
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
        assert x.min() >= 0.0
        assert x.max() <= 1.0
        sent = self.sent
        self.calls.append(len(x))
        return None if self.refuse(sent, x) else self.logits(x)

    def labels(self, x):
        z = self._answer(x)
        return np.full(len(x), REFUSED) if z is None else z.argmax(1).astype(np.int64)

    def probabilities(self, x):
        z = self._answer(x)
        if z is None:
            return REFUSAL
        e = np.exp(np.float64(z) - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)


def over(model, refuse=lambda sent, x: False) -> InMemory:
    """A torch model behind an oracle."""

    def logits(x):
        with torch.no_grad():
            return model(torch.from_numpy(x)).numpy()

    return InMemory(logits, refuse)


def linear(w, b, refuse=lambda sent, x: False) -> InMemory:
    """Two classes: class 1 where w.x > b."""
    w = np.asarray(w, np.float64)

    def logits(x):
        z = x.reshape(len(x), -1) @ w.ravel() - b
        return np.stack([np.zeros(len(x)), z], axis=1)

    return InMemory(logits, refuse)


def launch(module, oracle, x, y, *, seed=0, **options):
    """Run an attack's module."""
    return module.attack(oracle, x, y, rng=np.random.default_rng(seed), **options)


def fooled(model, x, y) -> np.ndarray:
    """(N,) whether the model, asked for one row at a time as a judge asks, answers with another label."""
    oracle = over(model)
    return np.array([oracle.labels(row[None])[0] for row in x]) != y
