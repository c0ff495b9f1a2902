"""Sybil: one attack as many callers, so that what a monitor knows of each is a part of it.

Source: Chen, Carlini, Wagner 2019, arXiv:1907.05587 (detection costs the attacker an account; so he has several).
Access: the base attack's. Norm: its own. Cost: up to `budget` queries a victim, those of the base attack.
Limits: needs an endpoint with as many identities. A monitor that compares callers with each other sees through it.

Rows go to k callers in turn, or at random; those of one call in a call a caller. Where the endpoint calls as identity
i, the attack is identities i k to i k + k - 1, so that victims share none while there are enough of them.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol

import numpy as np

from adversary.adaptive.wrapping import Endpoint, Purse, disguised, gathered, gathered_labels
from adversary.attack import Array, Refused, Result

Order = Literal["in-turn", "random"]


class Callers(Endpoint, Protocol):
    """An endpoint that knows its callers by number."""

    @property
    def identity(self) -> int:
        """Who calls."""
        ...

    def use(self, identity: int) -> None:
        """Call as another."""
        ...


def attack(
    target: Callers,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    base: str = "square",
    identities: int = 10,
    order: Order = "in-turn",
    starts: Array | None = None,
    options: Mapping[str, Any] | None = None,
) -> Result:
    """Stops where the base attack does. base: an attack by queries in the catalogue; starts, options: its own."""
    if order not in {"in-turn", "random"}:
        raise ValueError("the order of callers is in-turn or random")
    caller = target.identity

    def disguise(purse: Purse, _: int) -> Endpoint:
        return _Many(purse, target, range(caller * identities, (caller + 1) * identities), order, rng)

    try:
        return disguised(
            disguise, target, x, y, base=base, eps=eps, budget=budget, rng=rng, price=1, starts=starts, options=options
        )
    finally:
        target.use(caller)


class _Many:
    """An endpoint asked by many."""

    def __init__(
        self, oracle: Endpoint, callers: Callers, identities: range, order: Order, rng: np.random.Generator
    ) -> None:
        self._oracle, self._callers, self._identities = oracle, callers, identities
        self._order, self._rng, self._next = order, rng, 0

    def labels(self, x: Array) -> Array:
        """(N, ...) -> (N,)."""
        return gathered_labels(len(x), [(rows, self._oracle.labels(x[rows])) for rows in self._shares(len(x))])

    def probabilities(self, x: Array) -> Array | Refused:
        """(N, ...) -> (N, C)."""
        return gathered(len(x), [(rows, self._oracle.probabilities(x[rows])) for rows in self._shares(len(x))])

    def _shares(self, n: int) -> Iterator[Array]:
        """Each caller's rows, while he calls."""
        many = len(self._identities)
        who = self._rng.integers(many, size=n) if self._order == "random" else (self._next + np.arange(n)) % many
        self._next = (self._next + n) % many
        for identity in dict.fromkeys(who.tolist()):
            self._callers.use(self._identities[identity])
            yield np.flatnonzero(who == identity)
