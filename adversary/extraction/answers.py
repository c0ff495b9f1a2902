"""What a thief sends and is told: the budget is kept, calls are parcelled, refusals are left out.

Answers have one form, (N, C) float64 rows of probabilities; a label is a row with a single one.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from adversary.attack import REFUSED, Array, BudgetSpent, Refused

Kind = Literal["scores", "labels"]
_SHARES = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Loot:
    """What was answered. x: (N, ...) float32; p: (N, C)."""

    x: Array
    p: Array

    def __len__(self) -> int:
        return len(self.x)

    def __add__(self, other: "Loot") -> "Loot":
        return Loot(np.concatenate([self.x, other.x]), np.concatenate([self.p, other.p]))

    @property
    def labels(self) -> Array:
        """(N,) the most probable ones."""
        return np.asarray(self.p.argmax(axis=1), np.int64)

    def part(self, rows: Array) -> "Loot":
        """Some of it."""
        return Loot(self.x[rows], self.p[rows])


class Thief:
    """One who asks an oracle, at most `budget` rows in all and `batch` rows a call, for scores or for labels."""

    def __init__(self, oracle: Any, *, budget: int, classes: int, answers: Kind, batch: int) -> None:
        if budget < 1 or batch < 1:
            raise ValueError("an extraction needs a budget and a batch of one row")
        self._oracle, self._budget, self._batch = oracle, budget, batch
        self.classes, self.answers, self.spent = classes, answers, 0

    @property
    def left(self) -> int:
        """Rows that may still be sent."""
        return self._budget - self.spent

    def ask(self, x: Array) -> Array:
        """(N, ...) -> (N, C), rows of not-a-number where it was refused. Raises BudgetSpent before anything is sent."""
        if len(x) > self.left:
            raise BudgetSpent
        parts = [np.zeros((0, self.classes))]
        for rows in np.array_split(x, math.ceil(len(x) / self._batch)) if len(x) else ():
            self.spent += len(rows)
            parts.append(self._answer(np.ascontiguousarray(rows, np.float32)))
        return np.concatenate(parts)

    def take(self, x: Array) -> Loot:
        """(N, ...) -> what was answered of as many of the first rows as the budget allows."""
        x = np.asarray(x[: self.left], np.float32)
        p = self.ask(x)
        told = ~np.isnan(p).any(axis=1)
        return Loot(x[told], p[told])

    def _answer(self, x: Array) -> Array:
        if self.answers == "labels":
            return self._rows_of(np.asarray(self._oracle.labels(x)))
        answer = self._oracle.probabilities(x)
        if isinstance(answer, Refused):
            return np.full((len(x), self.classes), np.nan)
        p = np.asarray(answer, np.float64)
        if p.shape != (len(x), self.classes):
            raise ValueError(f"the victim answers {len(x)} rows with shape {p.shape}, not with {self.classes} classes")
        return p

    def _rows_of(self, labels: Array) -> Array:
        if labels.max(initial=0) >= self.classes:
            raise ValueError(f"the victim answers with label {labels.max()}, of {self.classes} classes")
        rows = np.eye(self.classes)[np.maximum(labels, 0)]
        rows[labels == REFUSED] = np.nan
        return rows


def milestones(budget: int) -> list[int]:
    """An eighth of the budget, a quarter, a half, all of it: when a copy is made."""
    return sorted({max(1, math.ceil(share * budget)) for share in _SHARES})
