"""One victim's model as a library's attack sees it: what counts the queries, not the library.

A query is an image that was not asked for before: an answer already known is given again for nothing, as an attacker
who remembers has it. `rows` counts all that was asked for. Images travel as float32, as they do on the wire.

The gauge ends the library where ours end: `Reached` at the first wrong answer within eps, `BudgetSpent` before a query
past the budget. What the victim is left with is that image, or the nearest wrongly answered one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from adversary.attack import Array, BudgetSpent, Norm
from adversary.runner import NEVER, allowed
from adversary.sizes import sizes

Answer = Callable[[Array], Array]
"""(N, ...) float32 -> (N, C): the largest is the label."""


class Reached(RuntimeError):
    """The model answered wrongly within eps."""


@dataclass(slots=True, eq=False)
class Gauge:
    """x: (1, ...) as it is; y: its label. Called as the library calls a model."""

    answer: Answer
    x: Array
    y: int
    norm: Norm
    eps: float
    budget: int
    rows: int = 0
    queries: int = 0
    reached_at: int = NEVER
    nearest: Array | None = None
    _least: float = np.inf
    _known: dict[bytes, Array] = field(default_factory=dict)

    def __call__(self, x: Array) -> Array:
        """(N, ...) -> (N, C), one row after the other."""
        rows = np.array(x, np.float32).reshape(-1, *self.x.shape[1:])
        return np.stack([self._one(row[None]) for row in rows])

    def _one(self, x: Array) -> Array:
        self.rows += 1
        name = x.tobytes()
        if name not in self._known:
            if self.queries >= self.budget:
                raise BudgetSpent
            self.queries += 1
            self._known[name] = self.answer(x)[0]
            self._look(x, self._known[name])
        return self._known[name]

    def _look(self, x: Array, answer: Array) -> None:
        if int(np.argmax(answer)) == self.y:
            return
        size = float(sizes(self.x, x, self.norm)[0])
        if size < self._least:
            self._least, self.nearest = size, x
        if size <= allowed(self.eps):
            self.reached_at = self.queries
            raise Reached
