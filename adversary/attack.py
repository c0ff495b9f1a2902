"""What an attack is: one function, whatever it needs to see.

    attack(target, x, y, *, eps, budget, rng, ...) -> Result

target:  a torch model that answers with logits (access "gradients"), an oracle (access "scores", "labels"), or None
         (access "nothing": a trigger).
x, y:    (N, ...) float32 in [0, 1] in the model's own layout, and (N,) true labels.
eps:     the largest perturbation that counts, in the attack's norm (adversary.sizes).
budget:  the most a victim may cost: rows sent to the oracle, or gradients taken of the model.
rng:     the only source of randomness.

What is not about one input's answer has the same signature without eps, and another result:

    extraction   x, y are inputs that the thief may send, in no order, and their labels where he has some; budget is for
                 all of it; yields a copy whenever there is one (`Copy`), the last being what he ends up with
    membership   x, y are candidates; budget is for each; -> Guesses
    inversion    x are points to start from, y the classes wanted; budget is for each; -> Result

An attack that has the parameters own_x, own_y gets labelled inputs of the attacker's own, which the victim did not
learn from; one that has `classes` gets their number.

An attack's word is never taken: `adversary.runner` and its neighbours clip, measure and ask the endpoint again.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from adversary.images import changed

Array = NDArray[Any]
Access = Literal["gradients", "scores", "labels", "nothing"]
LpNorm = Literal["linf", "l2", "l1", "l0"]
Norm = LpNorm | Literal["patch", "spatial", "none"]
REFUSED = -1
_LEAST_PROBABILITY = 1e-30  # its logarithm is finite; the least that ZOO's authors reckon with


class BudgetSpent(RuntimeError):
    """The next query would go past the budget; it was not sent."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The endpoint did not answer: denied, throttled, or not recognised."""

    status: str
    decision_id: str


class LabelOracle(Protocol):
    """An endpoint that answers with labels, REFUSED where it does not answer."""

    def labels(self, x: Array) -> Array:
        """(N, ...) -> (N,) int64."""
        ...


class ScoreOracle(Protocol):
    """An endpoint that answers with the probabilities of its classes."""

    def probabilities(self, x: Array) -> Array | Refused:
        """(N, ...) -> (N, C) float64 rows that sum to 1, or one refusal of them all.

        An oracle that spreads one call over several has rows of not-a-number where only these were refused.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What an attack hands back.

    x_adv:    (N, ...) float32 in [0, 1]; where it found nothing, its best try.
    queries:  (N,) what each victim cost, in the unit of `budget`.
    aim:      (N,) the label that each row is meant to get, where no other counts; None: any wrong one will do.
    """

    x_adv: Array
    queries: Array
    aim: Array | None = None


class Attack(Protocol):
    """The one signature; further options are keywords with defaults."""

    def __call__(self, target: Any, x: Array, y: Array, *, eps: float, budget: int, rng: np.random.Generator) -> Result:
        """Attack every row."""
        ...


Copy = Callable[[Array], Array]
"""A surrogate at some moment of its making: (N, ...) -> (N,) labels. It may be asked at any time, and costs nothing."""


class Extraction(Protocol):
    """Copies a model by asking it; the runner counts what was sent before each copy."""

    def __call__(
        self, target: Any, x: Array, y: Array, *, budget: int, rng: np.random.Generator, **options: Any
    ) -> Iterator[Copy]:
        """Yield a copy whenever there is one."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Guesses:
    """Who the victim has learned from.

    scores:   (N,) float64, higher = more likely a member; above 0 the attack says that it is one.
    queries:  (N,) rows sent about each.
    """

    scores: Array
    queries: Array


class Membership(Protocol):
    """Tells what a model has learned from, from its answers."""

    def __call__(
        self, target: Any, x: Array, y: Array, *, budget: int, rng: np.random.Generator, **options: Any
    ) -> Guesses:
        """Guess for every row."""
        ...


class Inversion(Protocol):
    """Rebuilds what a model takes for a class."""

    def __call__(
        self, target: Any, x: Array, y: Array, *, budget: int, rng: np.random.Generator, **options: Any
    ) -> Result:
        """For every row, starting there."""
        ...


def norms(delta: Array, norm: LpNorm) -> Array:
    """(N, ...) perturbations -> (N,) sizes; l0 counts pixels (adversary.images), the others are over all values."""
    if norm == "l0":
        touched = changed(delta)
        return np.asarray(touched.sum(axis=tuple(range(1, touched.ndim))), np.float64)
    flat = np.abs(np.asarray(delta, np.float64).reshape(len(delta), math.prod(delta.shape[1:])))
    if norm == "linf":
        return np.asarray(flat.max(axis=1, initial=0.0))
    return np.asarray(flat.sum(axis=1) if norm == "l1" else np.sqrt((flat**2).sum(axis=1)))


def _parcels(x: Array, batch: int) -> list[Array]:
    """(N, ...) -> what travels in one call each: at most `batch` rows."""
    parts = np.array_split(x, max(1, math.ceil(len(x) / batch)))
    return [np.ascontiguousarray(rows, np.float32) for rows in parts]


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
        return self.verdicts(x)[0]

    def verdicts(self, x: Array) -> tuple[Array, Array]:
        """(N, ...) -> (N,) whether each row is answered with another label, (N,) whether it is refused."""
        if len(x) > self.left:
            raise BudgetSpent
        parts = []
        for rows in _parcels(x, self._batch):
            self.spent += len(rows)
            parts.append(self._oracle.labels(rows))
        labels = np.concatenate(parts)
        refused = np.asarray(labels == REFUSED)
        return np.asarray((labels != self._y) & ~refused), refused


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What answers say of one victim: (N,) float64 each, not a number where the query was refused.

    own:     the log-probability of the true label.
    margin:  the same, less the largest of any other label's.
    """

    own: Array
    margin: Array

    @property
    def won(self) -> Array:
        """(N,) answered with another label."""
        return np.asarray(self.margin < 0.0)


class ScoreMeter:
    """One victim's view of a score oracle: how sure it is of the true label, and what is left of its budget."""

    def __init__(self, oracle: ScoreOracle, y: int, budget: int, batch: int) -> None:
        self._oracle, self._y, self._batch = oracle, y, batch
        self._budget, self.spent = budget, 0

    @property
    def left(self) -> int:
        """Rows that may still be sent."""
        return self._budget - self.spent

    def scores(self, x: Array) -> Scores:
        """(N, ...) -> their scores."""
        if len(x) > self.left:
            raise BudgetSpent
        own, margin = [], []
        for rows in _parcels(x, self._batch):
            self.spent += len(rows)
            answer = self._oracle.probabilities(rows)
            if isinstance(answer, Refused):
                own.append(np.full(len(rows), np.nan))
                margin.append(own[-1])
            else:
                logs = np.log(np.maximum(np.asarray(answer, np.float64), _LEAST_PROBABILITY))
                own.append(logs[:, self._y].copy())
                logs[:, self._y] = -np.inf
                margin.append(own[-1] - logs.max(axis=1))
        return Scores(np.concatenate(own), np.concatenate(margin))
