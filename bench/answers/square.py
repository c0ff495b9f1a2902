"""Square attack (linf 8/255, 2,500 queries, probabilities told) on CIFAR-10's victim behind each output protection.

In process: the proxy's engine between attacker and model, every row chosen. The images are rightly labelled ones of the
test set, the first of a drawn order; no option was chosen on them. What a protection costs honest callers is of the
whole test set. A row's attack is kept and not done again.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adversary import shelf
from adversary.attack import Array
from adversary.data.cache import root
from adversary.scores import rate
from bench.answers import climbing
from bench.answers.climbing import RULES, Attacked, attack
from bench.answers.served import BARE, Subject, Victim, Way, said, subject, way
from bench.answers.wire import Cell, Form, ask, read, stand
from bench.outputs import calibration_error, spread

EPS, BUDGET, SEED = 8 / 255, 2500, 0
INITIAL, PAPER = 0.8, 0.05
_SLACK = 1e-6  # float32
BLOCK = 100
_FEW = 100  # queries, as published beside the 2,500
NOISE = way("low_confidence_noise", sigma=0.5, threshold=0.7)
AAA, SINE = way("aaa"), way("aaa", form="sine", period=6.0)


@dataclass(frozen=True, slots=True)
class Row:
    """What is attacked, and how. many: images; initial: the first squares' part of the image."""

    way: Way
    rule: str = "down"
    many: int = 50
    initial: float = INITIAL


ROWS = (
    Row(BARE, many=200), Row(AAA, many=200), Row(way("low_confidence_noise")), Row(NOISE), Row(AAA, "undone"),
    Row(AAA, "both"), Row(AAA, "up"), Row(BARE, initial=PAPER), Row(AAA, initial=PAPER), Row(way("rounding")),
    Row(way("label_only")),
)  # fmt: skip


def victims(on: Subject, many: int) -> Subject:
    """The first so many rightly labelled test images of a drawn order."""
    order = np.random.default_rng(SEED).permutation(len(on.x))
    order = order[: 2 * many + 50]
    right = order[on.model.labels(on.x[order]) == on.y[order]][:many]
    return Subject(on.name, on.model, on.x[right], on.y[right], on.own, on.classes)


def measured(
    on: Subject | None = None, rows: tuple[Row, ...] = ROWS, budget: int = BUDGET, wired: int = 10
) -> dict[str, Any]:
    """Every row, and what each way costs honest callers on the whole test set. wired: images attacked over gRPC."""
    on = subject("cifar10") if on is None else on
    bare = said(on.model.logits(on.x), "probabilities")
    honest = {str(one): _honest(on, one, bare) for one in dict.fromkeys(row.way for row in rows)}
    return {
        "eps": EPS, "budget": budget, "seed": SEED, "accuracy": rate(bare.argmax(axis=1) == on.y).plain(),
        "honest": honest, "attacks": list(_attacks(on, rows, budget)), "wire": through(on, wired) if wired else {},
    }  # fmt: skip


def _honest(on: Subject, one: Way, bare: Array) -> dict[str, Any]:
    told = Victim.of(on, one).guarded.many(on.x, bare)
    wide = told.astype(np.float64)
    return {
        "changed": rate(told.argmax(axis=1) != bare.argmax(axis=1)).plain(),
        "calibration_error": calibration_error(wide, on.y), "interval_95": list(spread(wide, on.y)),
        "touched": rate((told != bare).any(axis=1)).plain(),
    }  # fmt: skip


def _attacks(on: Subject, rows: tuple[Row, ...], budget: int) -> Iterator[dict[str, Any]]:
    for row in rows:
        few, victim = victims(on, row.many), Victim.of(on, row.way)
        made = _in_blocks(few, victim, row, budget)
        wrong = verified(few, victim, made)
        spent = made.queries[wrong]
        sys.stderr.write(f"{row.way}, {row.rule}, {row.initial}: robust {rate(~wrong)}, n {len(wrong)}\n")
        yield {
            "way": str(row.way), "rule": row.rule, "initial": row.initial, "robust": rate(~wrong).plain(),
            "robust_at_100": rate(~(wrong & (made.queries <= _FEW))).plain(),
            "median_queries": float(np.median(spent)) if len(spent) else None, "queries": made.queries.tolist(),
        }  # fmt: skip


def _in_blocks(few: Subject, victim: Victim, row: Row, budget: int) -> Attacked:
    """A block's seed is its number: a row of more images goes on where one of fewer ended."""
    parts = [
        _kept(few.part(slice(at, at + BLOCK)), victim, row, budget, at // BLOCK) for at in range(0, len(few.x), BLOCK)
    ]
    return Attacked(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("queries", "x_adv")))


def _kept(few: Subject, victim: Victim, row: Row, budget: int, block: int) -> Attacked:
    shelved = shelf.Shelf(root() / "bench-answers")
    name = "square_" + shelf.key(
        row=[str(row.way), row.rule, row.initial], budget=budget, seed=SEED + block, x=shelf.digest(few.x),
        climbing=hashlib.sha256(Path(climbing.__file__).read_bytes()).hexdigest(), answers=_answers(few, victim),
    )  # fmt: skip
    known = shelved.get(name)
    if known is None:
        made = attacked(victim, few, row, budget, block)
        shelved.put(name, {"queries": made.queries, "x_adv": made.x_adv}, {"row": str(row)})
        return made
    return Attacked(known[0]["queries"], known[0]["x_adv"])


def _answers(few: Subject, victim: Victim) -> str:
    """A digest of what is told of the images, and of images near them: another model or protection tells otherwise."""
    rng = np.random.default_rng(SEED)
    near = np.clip(few.x + rng.choice((-EPS, EPS), few.x.shape), 0.0, 1.0).astype(np.float32)
    return shelf.digest(np.concatenate([victim(few.x), victim(near)]))


def attacked(ask: climbing.Ask, few: Subject, row: Row, budget: int, block: int = 0) -> Attacked:
    """All images, by the row's rule; the attacker who undoes a bend knows its period."""
    period = float(dict(row.way.options).get("period", 2.0))
    return attack(
        ask, few.x, few.y, lambda: RULES[row.rule](period), eps=EPS, budget=budget, seed=SEED + block,
        initial=row.initial,
    )  # fmt: skip


def verified(few: Subject, victim: Victim, made: Attacked) -> Array:
    """(N,) whether the last input is within eps and labelled wrongly, asked again, bare and protected."""
    near = np.abs(made.x_adv.astype(np.float64) - few.x).max(axis=(1, 2, 3)) <= EPS + _SLACK
    answers = victim.bare(made.x_adv), victim(made.x_adv)
    wrong = [answer.argmax(axis=1) != few.y for answer in answers]
    return np.asarray((made.queries > 0) & near & wrong[0] & wrong[1])


def through(on: Subject | None = None, many: int = 10, budget: int = 100) -> dict[str, Any]:
    """The attack through `guard serve` and in process: the same answers, so the same attack, to the last bit."""
    on = subject("cifar10") if on is None else on
    few, found = victims(on, many), dict[str, Any]()
    ways = (BARE, AAA, NOISE)
    with stand(on, [Cell(one, "probabilities", Form("FP32", raw=True)) for one in ways], replicas=1) as here:
        for i, one in enumerate(ways):
            victim, equal = Victim.of(on, one), list[bool]()

            def asking(x: Array, name: str = str(i), victim: Victim = victim, equal: list[bool] = equal) -> Array:
                told = read(here.proxies[0](ask(x, name)))
                equal.extend((told == victim(x)).all(axis=1).tolist())
                return told

            wired, local = (attacked(answer, few, Row(one), budget) for answer in (asking, victim))
            same = (wired.queries == local.queries) & (wired.x_adv == local.x_adv).all(axis=(1, 2, 3))
            found[str(one)] = {"answers_equal": rate(equal).plain(), "attacks_equal": rate(same).plain()}
    return found
