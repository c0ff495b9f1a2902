"""Everything that is sent, and what came back: clean traffic, crafted inputs, the walk through the wire, the clock."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from adversary import runner
from adversary.attack import Array, Refused
from adversary.oracle import Endpoint, Headers, Oracle, Record, reply_labels
from demo.caching import digest
from demo.plan import MODEL, WALK, Crafted, Plan
from demo.prepare import Images
from demo.screen import Tell

_WARM_UP = 20


@dataclass(frozen=True, slots=True, eq=False)
class Clean:
    """Benign traffic. labels: (N,) by row, REFUSED where it was; decisions: their ids; callers: who sent the row."""

    labels: Array
    decisions: tuple[str, ...]
    callers: Array


@dataclass(frozen=True, slots=True, eq=False)
class Attacked:
    """One attack on one endpoint. decisions: of the final inputs; records: every call, for attacks through the wire."""

    outcome: runner.Outcome
    decisions: tuple[str, ...]
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Latency:
    """Seconds a call, pairwise: (N,) bare, (N,) guarded."""

    bare: Array
    guarded: Array


def callers(kind: str, n: int) -> tuple[Headers, ...]:
    """So many identities; Guard knows them by their API keys."""
    return tuple((("x-api-key", f"{kind}-{i}"),) for i in range(n))


@contextmanager
def asking(address: str, kind: str, n: int, budget: int) -> Iterator[Oracle]:
    """An oracle on an endpoint, as n callers of one kind."""
    with Oracle(Endpoint(address, MODEL, identities=callers(kind, n)), budget) as oracle:
        yield oracle


def decisions_of(records: Sequence[Record], x: Array) -> tuple[str, ...]:
    """The decision id of each row's own call, the last one where it was sent twice."""
    known = {record.digest: record.decision_id for record in records}
    return tuple(known.get(digest(row[None]), "") for row in x)


def clean(address: str, images: Images, plan: Plan, tell: Tell) -> Clean:
    """Every clean image in a call of its own, dealt out among the benign callers."""
    x, labels = images.clean_x, np.empty(len(images.clean_x), np.int64)
    callers_of, refused = np.arange(len(x)) % plan.callers, 0
    with asking(address, "benign", plan.callers, len(x)) as oracle:
        for rows in np.array_split(np.arange(len(x)), 20):
            replies = oracle.replies([x[i : i + 1] for i in rows], identities=callers_of[rows].tolist())
            labels[rows] = [reply_labels(reply, 1)[0] for reply in replies]
            refused += sum(isinstance(reply, Refused) for reply in replies)
            tell(int(rows[-1]) + 1, f"{refused} refused")
        return Clean(labels, decisions_of(oracle.records, x), callers_of)


def crafted(address: str, attack: Crafted, images: Images, made: tuple[Array, Array], known: Array | None) -> Attacked:
    """Send what was crafted on the victim, each input as a fresh caller, so that only the input itself speaks.

    known: the clean labels of the victims; None: ask for them (the control does).
    """
    x, y = images.victims_x, images.victims_y
    kind = f"crafter-{attack.title}".replace(" ", "")
    with asking(address, kind, len(x), 2 * len(x)) as oracle:
        outcome = runner.judge(
            attack.entry, oracle, x, y, x_adv=made[0], eps=attack.eps, queries=made[1], clean=known
        )  # fmt: skip
        return Attacked(outcome, decisions_of(oracle.records, outcome.x_adv))


def walk(address: str, images: Images, plan: Plan, tell: Tell) -> Attacked:
    """HopSkipJump through the wire, each victim's attacker a fresh caller."""
    x, y = images.walkers_x, images.walkers_y
    with asking(address, "walker", len(x), len(x) * (plan.walk_budget + 2)) as oracle:
        outcome = runner.hunt(
            WALK, oracle, x, y, eps=plan.walk_eps, budget=plan.walk_budget, seed=plan.seed,
            per_victim={"starts": images.starts}, batch=plan.walk_batch,
            tell=lambda done, _, won: tell(done, f"{won} successful, {oracle.spent:,} queries"),
        )  # fmt: skip
        return Attacked(outcome, decisions_of(oracle.records, outcome.x_adv), tuple(oracle.records))


def answers(address: str, x: Array) -> Array:
    """The labels an endpoint gives to some inputs, one a call."""
    with asking(address, "asker", 1, len(x)) as oracle:
        return runner.ask_singly(oracle, x)


def latency(bare: str, guarded: str, x: Array, tell: Tell) -> Latency:
    """One call to each in turn, the first of a pair alternating. Pairs with a refusal do not count."""
    taken: list[tuple[float, float]] = []
    with asking(bare, "clock", 1, 2 * len(x)) as left, asking(guarded, "clock", 1, 2 * len(x)) as right:
        for i, row in enumerate(x):
            order = (left, right) if i % 2 else (right, left)
            refused = [isinstance(oracle.query(row[None]), Refused) for oracle in order]
            if i >= _WARM_UP and not any(refused):
                taken.append((left.records[-1].seconds, right.records[-1].seconds))
            tell(i + 1)
    pairs = np.asarray(taken, np.float64).reshape(-1, 2)
    return Latency(pairs[:, 0], pairs[:, 1])
