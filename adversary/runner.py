"""Runs attacks and judges them: clips, measures, and asks the endpoint again. An attack's own word counts for nothing.

Only inputs that the endpoint answers rightly are attacked. Every judging query travels alone, so a refusal is about
one input. A black-box attack goes victim by victim, each with its own random stream and, where the oracle has several,
its own identity: the outcome of a victim does not depend on which others are attacked.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from adversary.attack import REFUSED, Array, Norm, Refused, Result, norms
from adversary.catalogue import Entry
from adversary.oracle import Oracle, Record, Reply, reply_labels
from adversary.sizes import sizes

NEVER = -1
ANY = -1  # an aim: any wrong label will do
_SLACK = 1e-5  # float32 arithmetic on the edge of the ball

Tell = Callable[[int, int, int], None]
"""(victims done, of how many, of them successful)."""


def silent(_done: int, _of: int, _won: int) -> None:
    """No progress."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What an attack achieved, a value a victim: (N,) each.

    y, clean, adversarial:  the true label; the endpoint's for x; the endpoint's for x_adv. REFUSED where it was.
    aim:                    the only label that counts as a success; ANY wrong one by default.
    size:                   of the perturbations as sent, in the attack's own norm.
    linf, l2:               the same in these.
    queries:                what the attack cost, in the unit of its budget.
    detected_at:            rows sent until the first refusal, the judging query included; NEVER without one.
    reached_at:             rows sent until the endpoint first answered wrongly within eps, whatever came of it; NEVER.
    trails:                 every call of the attack and the judging one, a tuple a victim.
    """

    attack: str
    eps: float
    norm: str
    y: Array
    clean: Array
    adversarial: Array
    aim: Array
    size: Array
    linf: Array
    l2: Array
    queries: Array
    detected_at: Array
    reached_at: Array
    x_adv: Array = field(repr=False)
    trails: tuple[tuple[Record, ...], ...] = field(repr=False, default=())

    @property
    def attacked(self) -> Array:
        """(N,) victims that the endpoint answers rightly without an attack."""
        return attacked(self.y, self.clean, self.aim)

    @property
    def success(self) -> Array:
        """(N,) answered, wrongly, within eps."""
        return self.attacked & fell(self.y, self.adversarial, self.aim) & (self.size <= allowed(self.eps))


def attacked(y: Array, clean: Array, aim: Array) -> Array:
    """(N,) whether there is anything to gain: answered rightly as they are, and not by the label aimed at."""
    return np.asarray((clean == y) & (aim != y))


def fell(y: Array, adversarial: Array, aim: Array) -> Array:
    """(N,) answered as the attack wants it; a refusal is no answer."""
    return np.asarray((adversarial != REFUSED) & np.where(aim == ANY, adversarial != y, adversarial == aim))


def allowed(eps: float) -> float:
    """The largest size that counts as within eps."""
    return eps * (1.0 + _SLACK) + _SLACK


def ask_singly(oracle: Oracle, x: Array) -> Array:
    """(N, ...) in a call each, one after the other, row i as identity i -> (N,) labels."""
    replies = oracle.replies([row[None] for row in x], concurrency=1, identities=range(len(x)))
    return np.array([reply_labels(reply, 1)[0] for reply in replies], np.int64)


def first_refusal(records: Sequence[Record]) -> int:
    """Rows sent until the first refusal, it included; NEVER without one."""
    rows = 0
    for record in records:
        rows += record.rows
        if record.refused:
            return rows
    return NEVER


def craft(
    entry: Entry, model: Any, x: Array, y: Array, *, eps: float, budget: int, seed: int, **options: Any
) -> Result:
    """A white-box attack on the model alone, or a trigger, which needs none (model: None)."""
    from adversary.gradients import one_thread  # noqa: PLC0415 - torch only where it is needed

    with one_thread():
        result = entry.load()(model, x, y, eps=eps, budget=budget, rng=np.random.default_rng(seed), **options)
    return replace(result, x_adv=_clipped(x, result.x_adv))


def judge(
    entry: Entry,
    oracle: Oracle,
    x: Array,
    y: Array,
    *,
    x_adv: Array,
    eps: float,
    queries: Array,
    clean: Array | None = None,
    aim: Array | None = None,
) -> Outcome:
    """Send inputs that were crafted elsewhere, a call each.

    clean:  the labels of x, where they are known, say from the undefended control; by default the endpoint is asked.
    """
    x_adv = _clipped(x, x_adv)
    clean = ask_singly(oracle, x) if clean is None else clean
    since = len(oracle.records)
    adversarial = ask_singly(oracle, x_adv)
    trails = tuple((record,) for record in oracle.records[since:])
    outcome = _outcome(
        entry, eps, x, x_adv, y=y, clean=clean, adversarial=adversarial, queries=queries, aim=_aim(aim, len(x)),
        detected_at=np.where(adversarial == REFUSED, 1, NEVER), reached_at=np.full(len(x), NEVER), trails=trails,
    )  # fmt: skip
    return replace(outcome, reached_at=np.where(outcome.success, 1, NEVER))


def hunt(
    entry: Entry,
    oracle: Oracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    seed: int,
    clean: Array | None = None,
    first: int = 0,
    per_victim: Mapping[str, Array] | None = None,
    tell: Tell = silent,
    **options: Any,
) -> Outcome:
    """A black-box attack through the wire, victim by victim.

    clean:       the labels of x, where they are known; by default each victim's is asked for before its attack.
    first:       the number of the first victim, where these are some of many: it picks the random stream.
    per_victim:  options with a row a victim (starts).
    """
    attack = entry.load()
    x_adv, queries = np.array(x, np.float32), np.zeros(len(x), np.int64)
    known, adversarial = np.full((2, len(x)), REFUSED, np.int64)
    aim = np.full(len(x), ANY, np.int64)
    reached = np.full(len(x), NEVER, np.int64)
    trails = []
    won = 0
    for i in range(len(x)):
        one = slice(i, i + 1)
        oracle.use(i)
        known[i] = oracle.labels(x[one])[0] if clean is None else clean[i]
        since = len(oracle.records)
        if known[i] == y[i]:
            rows = {name: values[one] for name, values in (per_victim or {}).items()}
            rng = np.random.default_rng([seed, first + i])
            with _watching(oracle, entry, x[one], int(y[i]), eps) as watch:
                result = attack(oracle, x[one], y[one], eps=eps, budget=budget, rng=rng, **rows, **options)
                x_adv[one] = _clipped(x[one], result.x_adv)
                queries[i], aim[i] = result.queries[0], _aim(result.aim, 1)[0]
                adversarial[i] = oracle.labels(x_adv[one])[0]
            reached[i] = watch.reached_at
            fallen = fell(y[one], adversarial[one], aim[one])[0]
            won += int(fallen and sizes(x[one], x_adv[one], entry.norm)[0] <= eps)
        trails.append(tuple(oracle.records[since:]))
        tell(i + 1, len(x), won)
    return _outcome(
        entry, eps, x, x_adv, y=y, clean=known, adversarial=adversarial, queries=queries, reached_at=reached, aim=aim,
        detected_at=np.array([first_refusal(trail) for trail in trails], np.int64), trails=tuple(trails),
    )  # fmt: skip


def hunt_together(
    entry: Entry,
    oracle: Oracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    seed: int,
    clean: Array,
    tell: Tell = silent,
    **options: Any,
) -> Outcome:
    """A black-box attack that works on all victims at once, as one caller; then each is sent as another.

    What it asked on its way is in every victim's trail.
    """
    oracle.use(0)
    result = entry.load()(oracle, x, y, eps=eps, budget=budget, rng=np.random.default_rng(seed), **options)
    way = tuple(oracle.records)
    outcome = judge(
        entry, oracle, x, y, x_adv=result.x_adv, eps=eps, queries=result.queries, clean=clean, aim=result.aim
    )
    tell(len(x), len(x), int(outcome.success.sum()))
    trails = tuple((*way, *trail) for trail in outcome.trails)
    rows = sum(record.rows for record in way)
    return replace(
        outcome,
        reached_at=np.where(outcome.success, rows + 1, NEVER),
        detected_at=np.array([first_refusal(trail) for trail in trails], np.int64),
        trails=trails,
    )


@dataclass(slots=True)
class _Watch:
    """Sees one victim's queries go by, and when the first was answered wrongly within eps."""

    x: Array
    y: int
    norm: Norm
    allowed: float
    rows: int = 0
    reached_at: int = NEVER

    def __call__(self, x: Array, reply: Reply, _record: Record) -> None:
        if self.reached_at == NEVER and not isinstance(reply, Refused):
            wrong = np.flatnonzero(reply_labels(reply, len(x)) != self.y)
            near = sizes(np.repeat(self.x, len(wrong), axis=0), x[wrong], self.norm) <= self.allowed
            if near.any():
                self.reached_at = self.rows + int(wrong[near][0]) + 1
        self.rows += len(x)


@contextmanager
def _watching(oracle: Oracle, entry: Entry, x: Array, y: int, eps: float) -> Iterator[_Watch]:
    watch = _Watch(x, y, entry.norm, allowed(eps))
    oracle.listeners.append(watch)
    try:
        yield watch
    finally:
        oracle.listeners.remove(watch)


def _aim(aim: Array | None, n: int) -> Array:
    return np.full(n, ANY, np.int64) if aim is None else np.asarray(aim, np.int64)


def _clipped(x: Array, x_adv: Array) -> Array:
    """What may be sent at all: the shape of x, finite, in [0, 1]."""
    return np.clip(np.nan_to_num(np.asarray(x_adv, np.float32).reshape(x.shape)), 0.0, 1.0)


def _outcome(entry: Entry, eps: float, x: Array, x_adv: Array, **values: Any) -> Outcome:
    delta = x_adv.astype(np.float64) - x
    size, linf, l2 = sizes(x, x_adv, entry.norm), norms(delta, "linf"), norms(delta, "l2")
    return Outcome(entry.name, eps, entry.norm, x_adv=x_adv, size=size, linf=linf, l2=l2, **values)
