"""Endpoints in memory that adaptive attacks get past."""

from dataclasses import dataclass, field

import numpy as np
import torch

from tests.adversary.evasion.oracles import InMemory


@dataclass
class Similar:
    """Refuses a call with a row within `radius` (l2) of an earlier one; remembers every row, refused or not."""

    radius: float
    refusals: int = 0
    _seen: np.ndarray | None = None
    _count: int = 0

    def __call__(self, sent, x):
        refused = False
        for row in x.reshape(len(x), -1):
            if self._seen is None:
                self._seen = np.zeros((10_000, row.size), np.float32)
            apart = ((self._seen[: self._count] - row) ** 2).sum(axis=1)
            refused |= bool(self._count) and bool(apart.min() < self.radius**2)
            self._seen[self._count] = row
            self._count += 1
        self.refusals += refused
        return refused


@dataclass
class Known(InMemory):
    """Knows its callers: bans one of whose last `window` rows more than `most` were within `radius` of the one before.

    By default it bans nobody.
    """

    radius: float = 0.0
    most: int = 1_000_000
    window: int = 1_000_000
    identity: int = 0
    callers: list[int] = field(default_factory=list)
    rows: dict[int, list] = field(default_factory=dict)
    banned: set[int] = field(default_factory=set)

    def use(self, identity):
        self.identity = identity

    def _answer(self, x):
        self.callers += [self.identity] * len(x)
        rows = self.rows.setdefault(self.identity, [])
        rows += list(x.reshape(len(x), -1))
        lately = np.stack(rows[-self.window :])
        near = (np.linalg.norm(np.diff(lately, axis=0), axis=1) < self.radius).sum()
        if near > self.most:
            self.banned.add(self.identity)
        answer = super()._answer(x)
        return None if self.identity in self.banned else answer


def known(model, **options) -> Known:
    """A torch model behind an oracle that knows its callers."""

    def logits(x):
        with torch.no_grad():
            return model(torch.from_numpy(x)).numpy()

    return Known(logits, **options)


def refused_share(oracle: InMemory) -> float:
    """Of the calls to an oracle that refuses by Similar."""
    return oracle.refuse.refusals / len(oracle.calls)
