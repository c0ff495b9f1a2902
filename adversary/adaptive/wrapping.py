"""How a query attack runs behind a disguise: another attack of the catalogue, unchanged, on an oracle that wraps one.

    the attack -> the disguise -> the purse -> the endpoint

The purse counts what crosses the boundary and sends nothing past the budget, so that whatever a disguise adds is paid.
A disguise has the face of an oracle, so they nest: the base of one may be the name of another.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from adversary.attack import REFUSED, Array, BudgetSpent, LabelOracle, Refused, Result, ScoreOracle
from adversary.catalogue import CATALOGUE


class Endpoint(LabelOracle, ScoreOracle, Protocol):
    """Answers with labels, or with probabilities where it gives any."""


class Purse:
    """An endpoint, and what is left to spend on it."""

    def __init__(self, endpoint: Endpoint, budget: int) -> None:
        self._endpoint, self._budget, self.spent = endpoint, budget, 0

    def labels(self, x: Array) -> Array:
        """(N, ...) -> (N,). Raises BudgetSpent before it would go past the budget."""
        return self._endpoint.labels(self._paid(x))

    def probabilities(self, x: Array) -> Array | Refused:
        """(N, ...) -> (N, C). Raises BudgetSpent before it would go past the budget."""
        return self._endpoint.probabilities(self._paid(x))

    def _paid(self, x: Array) -> Array:
        if self.spent + len(x) > self._budget:
            raise BudgetSpent
        self.spent += len(x)
        return np.ascontiguousarray(x, np.float32)


def disguised(
    disguise: Callable[[Purse, int], Endpoint],
    target: Endpoint,
    x: Array,
    y: Array,
    *,
    base: str,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    price: float,
    starts: Array | None,
    options: Mapping[str, Any] | None,
) -> Result:
    """The base attack, victim after victim, on disguise(purse, y).

    price:   rows that the disguise sends for one of the base attack, which plans with what it can afford.
    starts:  (N, ...), for base attacks that take them.
    """
    attack = CATALOGUE[base].load()
    x_adv, queries = np.array(x, np.float32), np.zeros(len(x), np.int64)
    for i in range(len(x)):
        one = slice(i, i + 1)
        extra = {**(options or {}), **({} if starts is None else {"starts": starts[one]})}
        purse = Purse(target, budget)
        oracle, planned = disguise(purse, int(y[i])), max(1, int(budget / price))
        x_adv[one] = attack(oracle, x[one], y[one], eps=eps, budget=planned, rng=rng, **extra).x_adv
        queries[i] = purse.spent
    return Result(x_adv, queries)


def gathered_labels(n: int, parts: Sequence[tuple[Array, Array]]) -> Array:
    """Places and their labels, from several calls -> (n,), REFUSED where there are none."""
    labels = np.full(n, REFUSED, np.int64)
    for places, answer in parts:
        labels[places] = answer
    return labels


def gathered(n: int, parts: Sequence[tuple[Array, Array | Refused]]) -> Array | Refused:
    """Places and their probabilities, from several calls -> (n, C), not a number where refused; or a refusal of all."""
    refusals = [answer for _, answer in parts if isinstance(answer, Refused)]
    answers = [(places, answer) for places, answer in parts if not isinstance(answer, Refused)]
    if not answers:
        return refusals[0]
    probabilities = np.full((n, answers[0][1].shape[1]), np.nan)
    for places, answer in answers:
        probabilities[places] = answer
    return probabilities


class Pooled:
    """Asks several versions of every row and pools their answers: the mean probabilities, the most frequent label."""

    def __init__(self, oracle: Endpoint, version: Callable[[Array], Array], copies: int) -> None:
        self._oracle, self._version, self._copies = oracle, version, copies

    def labels(self, x: Array) -> Array:
        """(N, ...) -> (N,); REFUSED where every version was, the smallest label of equally frequent ones."""
        answers = np.stack([self._oracle.labels(self._version(x)) for _ in range(self._copies)])
        return np.array([_most_frequent(votes[votes != REFUSED]) for votes in answers.T], np.int64)

    def probabilities(self, x: Array) -> Array | Refused:
        """(N, ...) -> (N, C), the mean over the versions that were answered."""
        answers = [self._oracle.probabilities(self._version(x)) for _ in range(self._copies)]
        given = [answer for answer in answers if not isinstance(answer, Refused)]
        if not given:
            return next(answer for answer in answers if isinstance(answer, Refused))
        stacked = np.stack(given)
        known = ~np.isnan(stacked)
        counts = known.sum(axis=0)
        return np.where(counts > 0, np.where(known, stacked, 0.0).sum(axis=0) / np.maximum(counts, 1), np.nan)


def _most_frequent(votes: Array) -> int:
    return int(np.bincount(votes).argmax()) if len(votes) else REFUSED
