"""A caller in this process: what attacks ask, and what is written down of every query.

Every row is a query of its own, as papers count them; the face is an oracle's (adversary.attack), so that the
adversary's attacks run on it as they are, disguises among them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from adversary.attack import REFUSED, Array, Norm, Refused
from adversary.runner import NEVER, allowed
from adversary.sizes import sizes
from bench.monitors.ground import Model, softmax

LEVELS = ("watch", "suspect", "hostile")
_LEVELS = len(LEVELS)


class Enough(RuntimeError):
    """What was to be seen has been seen: the attack ends here."""


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What became of some queries.

    p:        (N, C) float64, rows of not-a-number where refused.
    level:    (N,) of the caller, 0 to 3, the query counted.
    refused:  (N,) whether each was.
    own:      (N,) whether that was for what it looks like by itself, whatever came before it.
    """

    p: Array
    level: Array
    refused: Array
    own: Array


class Service(Protocol):
    """What answers."""

    def answer(self, x: Array, caller: str) -> Told:
        """(N, ...) one query a row, in order."""
        ...


class Bare:
    """The victim alone."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def answer(self, x: Array, caller: str) -> Told:
        """Everything is answered."""
        del caller
        nothing = np.zeros(len(x), np.int64)
        return Told(softmax(self._model.logits(x)), nothing, nothing.astype(bool), nothing.astype(bool))


@dataclass(frozen=True, slots=True, eq=False)
class Aim:
    """What an attacker wants: x (...) answered with another label than y, within eps."""

    x: Array
    y: int
    norm: Norm
    eps: float

    def hit(self, x: Array, labels: Array) -> Array:
        """(N, ...), (N,) labels, REFUSED where there is none -> (N,)."""
        wrong = (labels != self.y) & (labels != REFUSED)
        near = np.zeros(len(x), bool)
        if wrong.any():
            some = x[wrong]
            near[wrong] = sizes(np.repeat(self.x[None], len(some), axis=0), some, self.norm) <= allowed(self.eps)
        return near


@dataclass(slots=True)
class Tally:
    """A run in numbers. Places count rows from 1; NEVER where it did not happen.

    reached:  the first row that was answered as the attacker wants it.
    refused:  the first refused row. levels: the first row at each level, or above.
    rows, answered: how many were sent, and answered.
    refusals: how many there were. alarms: whether only those count that are about more than the row itself.
    """

    rows: int = 0
    answered: int = 0
    reached: int = NEVER
    refused: int = NEVER
    levels: list[int] = field(default_factory=lambda: [NEVER] * _LEVELS)
    refusals: int = 0
    alarms: bool = False

    def note(self, told: Told, hit: Array) -> None:
        """Count some more queries."""
        self.reached = self._first(self.reached, hit)
        counted = told.refused & ~told.own if self.alarms else told.refused
        self.refused = self._first(self.refused, counted)
        self.refusals += int(counted.sum())
        self.levels = [self._first(at, told.level > i) for i, at in enumerate(self.levels)]
        self.rows += len(hit)
        self.answered += int((~told.refused).sum())

    def _first(self, known: int, happens: Array) -> int:
        if known != NEVER or not happens.any():
            return known
        return self.rows + int(np.argmax(happens)) + 1

    @property
    def flagged(self) -> int:
        """The first row at which Guard did something about the caller or the query."""
        places = [at for at in (self.refused, self.levels[-1]) if at != NEVER]
        return min(places, default=NEVER)


class Client:
    """An oracle. Ends the attack by `Enough` once it has what it wants, or is refused and that is enough.

    accounts:  how many callers it may be; `use` chooses. fresh: whether a refusal makes it go on as the next one.
    until:     how many refusals end it; None: none do. alarms: see `Tally`; others do not end it then, either.
    keep:      called with the rows of every call.
    """

    def __init__(
        self,
        service: Service,
        aim: Aim | None,
        *,
        name: str = "attacker",
        accounts: int = 1,
        fresh: bool = False,
        until: int | None = None,
        alarms: bool = False,
        most: int | None = None,
        keep: Callable[[Array, Told], None] = lambda _rows, _told: None,
    ) -> None:
        self._service, self._aim, self._name = service, aim, name
        self._accounts, self._fresh, self._until, self._most, self._keep = accounts, fresh, until, most, keep
        self.tally, self.identity = Tally(alarms=alarms), 0

    def use(self, identity: int) -> None:
        """Call as another account; their number wraps around."""
        self.identity = identity % self._accounts

    def labels(self, x: Array) -> Array:
        """(N, ...) -> (N,), REFUSED where refused."""
        return _labels(self._ask(x))

    def probabilities(self, x: Array) -> Array | Refused:
        """(N, ...) -> (N, C)."""
        told = self._ask(x)
        return Refused("PERMISSION_DENIED", "") if told.refused.all() else told.p

    def _ask(self, x: Array) -> Told:
        x = np.asarray(x, np.float32)
        if self._fresh:
            parts = [self._as_one(x[i : i + 1]) for i in range(len(x))]
            told = Told(*(np.concatenate([getattr(part, name) for part in parts]) for name in Told.__slots__))
        else:
            told = self._as_one(x)
        return told

    def _as_one(self, x: Array) -> Told:
        told = self._service.answer(x, f"{self._name}-{self.identity}")
        hit = np.zeros(len(x), bool) if self._aim is None else self._aim.hit(x, _labels(told))
        self.tally.note(told, hit)
        self._keep(x, told)
        if self._fresh and told.refused.any():
            self.use(self.identity + 1)
        self._stop()
        return told

    def _stop(self) -> None:
        tally = self.tally
        if tally.reached != NEVER or (self._until is not None and tally.refusals >= self._until):
            raise Enough
        if self._most is not None and tally.rows >= self._most:
            raise Enough


def _labels(told: Told) -> Array:
    labels = np.full(len(told.p), REFUSED, np.int64)
    answered = ~told.refused
    labels[answered] = told.p[answered].argmax(axis=1)
    return labels
