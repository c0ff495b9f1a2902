"""What an attack is: one function, whatever it needs to see.

    attack(target, x, y, *, eps, budget, rng, ...) -> Result

target:  a torch model that answers with logits (access "gradients"), or an oracle (access "scores", "labels").
x, y:    (N, ...) float32 in [0, 1] in the model's own layout, and (N,) true labels.
eps:     the largest perturbation that counts, in the attack's norm.
budget:  the most a victim may cost: rows sent to the oracle, or gradients taken of the model.
rng:     the only source of randomness.

An attack's word is never taken: `adversary.runner` clips, measures and asks the endpoint again.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Access = Literal["gradients", "scores", "labels"]
Norm = Literal["linf", "l2"]
REFUSED = -1


class BudgetSpent(RuntimeError):
    """The next query would go past the budget; it was not sent."""


class LabelOracle(Protocol):
    """An endpoint that answers with labels, REFUSED where it does not answer."""

    def labels(self, x: Array) -> Array:
        """(N, ...) -> (N,) int64."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What an attack hands back.

    x_adv:    (N, ...) float32 in [0, 1]; where it found nothing, its best try.
    queries:  (N,) what each victim cost, in the unit of `budget`.
    """

    x_adv: Array
    queries: Array


class Attack(Protocol):
    """The one signature; further options are keywords with defaults."""

    def __call__(self, target: Any, x: Array, y: Array, *, eps: float, budget: int, rng: np.random.Generator) -> Result:
        """Attack every row."""
        ...


def norms(delta: Array, norm: Norm) -> Array:
    """(N, ...) perturbations -> (N,) sizes."""
    flat = np.asarray(delta, np.float64).reshape(len(delta), math.prod(delta.shape[1:]))
    return np.asarray(np.abs(flat).max(axis=1, initial=0.0) if norm == "linf" else np.sqrt((flat**2).sum(axis=1)))


class Meter:
    """One victim's view of a label oracle: what crosses the boundary, and what is left of its budget."""

    def __init__(self, oracle: LabelOracle, y: int, budget: int, batch: int) -> None:
        self._oracle, self._y, self._batch = oracle, y, batch
        self._budget, self.spent = budget, 0

    @property
    def left(self) -> int:
        """Rows that may still be sent."""
        return self._budget - self.spent

    def adversarial(self, x: Array) -> Array:
        """(N, ...) -> (N,) whether each row is answered with another label; a refusal is no success."""
        if len(x) > self.left:
            raise BudgetSpent
        parts = []
        for rows in np.array_split(x, max(1, math.ceil(len(x) / self._batch))):
            self.spent += len(rows)
            parts.append(self._oracle.labels(np.ascontiguousarray(rows, np.float32)))
        labels = np.concatenate(parts)
        return np.asarray((labels != self._y) & (labels != REFUSED))
