"""What is kept of the queries to an endpoint, whoever carries them: the budget, a record of every call, what came back.

A call is charged before it is sent, whatever becomes of it: an attacker pays for it. What is tried again was answered
by nobody (UNAVAILABLE), and only as often as the endpoint's settings and the budget allow. Each try is charged; the
call's one record says how many there were, so that records and calls go together. A refusal is never tried again, even
where it says when to come back: it is the verdict that the attack is to see.
"""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from adversary.attack import Array, BudgetSpent, Refused
from adversary.endpoint import Endpoint, OracleError
from adversary.messages import Request, Tongue

REFUSALS = frozenset({"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"})
_OK = "OK"
_NOBODY = "UNAVAILABLE"
_LARGE_BYTES = 64 * 1024  # a digest of so much takes a good part of a call's time: a thread makes it, where it is free
_BACKOFF_S, _GROWTH, _LONGEST_S = 0.1, 3.0, 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What the model said: (N, ...) in its own dtype."""

    y: Array
    decision_id: str


Reply = Answered | Refused


@dataclass(frozen=True, slots=True)
class Record:
    """One call as the client saw it.

    digest:              SHA-256 of the input's bytes.
    started_s, seconds:  of its last try; started_s since the oracle was opened.
    status:              how that ended.
    tries:               how often it was sent, and its rows charged.
    """

    rows: int
    digest: str
    started_s: float
    seconds: float
    status: str
    decision_id: str
    identity: int
    tries: int = 1

    @property
    def refused(self) -> bool:
        """Whether the endpoint would not answer it. A call that failed, or that nobody took, was not refused."""
        return self.status in REFUSALS


Listener = Callable[[Array, Reply, Record], None]
"""Told of every call that was answered or refused: what was sent, what came back, the record."""


@dataclass(slots=True, eq=False)
class Query:
    """One call, perhaps tried more than once. started: of the last try, on a monotonic clock."""

    x: Array
    request: Request
    identity: int
    tries: int = 0
    started: float = 0.0
    _digest: "Future[str] | None" = None

    def digest_beside(self, thread: ThreadPoolExecutor) -> "Future[str]":
        """Begin with it."""
        self._digest = self._digest or thread.submit(_sha256, self.request.raw)
        return self._digest

    @property
    def digest(self) -> str:
        """SHA-256 of the input's bytes."""
        return _sha256(self.request.raw) if self._digest is None else self._digest.result()

    @property
    def backoff_s(self) -> float:
        """How long to wait before the next try."""
        return min(_LONGEST_S, _BACKOFF_S * _GROWTH ** (self.tries - 1))


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """How a try ended. body: of the answer; details: in the server's words."""

    status: str
    body: bytes = b""
    details: str = ""
    decision_id: str = ""


@dataclass(slots=True)
class Ledger:
    """One oracle's. spent: rows sent, each try of a call counted; again: those of them that were sent before."""

    endpoint: Endpoint
    budget: int
    records: list[Record] = field(default_factory=list)
    spent: int = 0
    again: int = 0
    identity: int = 0
    listeners: list[Listener] = field(default_factory=list)
    tongue: Tongue | None = None
    opened: float = 0.0
    _digesting: "Future[str] | None" = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "digests"))

    def open(self, tongue: Tongue) -> None:
        """The endpoint has said how it is to be asked."""
        self.tongue, self.opened = tongue, time.monotonic()

    @property
    def left(self) -> int:
        """Rows that may still be sent."""
        return self.budget - self.spent

    def query(self, x: Array, identity: int | None = None) -> Query:
        """(N, ...) in one call, as the present identity or another. Raises OracleError where it does not fit."""
        if self.tongue is None:
            raise OracleError("the oracle is not open")
        self._check(len(x))
        number = self.identity if identity is None else identity
        return Query(x, self.tongue.request(x), number % len(self.endpoint.identities))

    def start(self, query: Query) -> None:
        """Charge a try, which is sent now. Raises BudgetSpent where it would go past the budget."""
        self._check(len(query.x))
        self.spent += len(query.x)
        self.again += len(query.x) if query.tries else 0
        query.tries += 1
        query.started = time.monotonic()
        if query.request.raw.nbytes >= _LARGE_BYTES and (self._digesting is None or self._digesting.done()):
            self._digesting = query.digest_beside(self._thread)

    def _check(self, rows: int) -> None:
        if rows > self.left:
            again = f", {self.again} of them again because nobody took them" if self.again else ""
            raise BudgetSpent(f"{self.spent} of {self.budget} rows were sent{again}; {rows} more do not fit")

    def end(self, query: Query, ended: Ended) -> Reply | None:
        """The reply; None where the call is to be tried again after `backoff_s`. Raises OracleError where it failed."""
        if ended.status == _NOBODY and query.tries <= self.endpoint.retries and len(query.x) <= self.left:
            return None
        record = self._record(query, ended)
        if ended.status in REFUSALS:
            reply: Reply = Refused(ended.status, ended.decision_id)
        elif ended.status == _OK and self.tongue is not None:
            reply = Answered(self.tongue.answer(ended.body, len(query.x)), ended.decision_id)
        else:
            raise OracleError(f"{self.endpoint.target} answered {ended.status}: {ended.details}")
        for listener in self.listeners:
            listener(query.x, reply, record)
        return reply

    def cut_off(self, query: Query) -> None:
        """A try was given up half-way."""
        self._record(query, Ended("CANCELLED"))

    def _record(self, query: Query, ended: Ended) -> Record:
        seconds = time.monotonic() - query.started
        since = query.started - self.opened
        record = Record(
            len(query.x), query.digest, since, seconds, ended.status, ended.decision_id, query.identity, query.tries
        )
        self.records.append(record)
        return record


def _sha256(raw: memoryview) -> str:
    return hashlib.sha256(raw).hexdigest()
