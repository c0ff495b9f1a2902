"""Which examples the page shows, and what is said under them."""

from collections.abc import Mapping, Sequence

import numpy as np

from adversary.attack import REFUSED, Array
from adversary.report_page import Card, Shot
from adversary.runner import NEVER
from demo.document import Duel
from demo.verdicts import Verdict
from guard import registry
from guard.settings import build_stage

PURIFIERS = (("median", {"size": 2}), ("bit_depth", {"bits": 1}))
_REFUSED, _PASSED = 3, 1


def purify(x: Array) -> Array:
    """(N, 1, 28, 28) in [0, 1] through Guard's own purifiers, the ones that are named on the page."""
    registry.load()
    unit = np.moveaxis(np.asarray(x, np.float32), 1, -1)
    for name, options in PURIFIERS:
        unit = build_stage("purifier", name, options).purify(unit)
    return np.ascontiguousarray(np.moveaxis(unit, -1, 1))


def chosen(duel: Duel) -> list[int]:
    """Inputs that fool the bare model: some that Guard refused, then some that it let through."""
    bare, guarded = duel.bare.outcome, duel.guarded.outcome
    stopped = np.flatnonzero(bare.success & ~guarded.success)[:_REFUSED]
    passed = np.flatnonzero(bare.success & guarded.success)[:_PASSED]
    return [*stopped.tolist(), *passed.tolist()]


def cards(duel: Duel, x: Array, purified: Array, verdicts: Mapping[str, Verdict]) -> Sequence[Card]:
    """A card an example: clean, attacked, purified; for attacks through the wire also how far they came past Guard."""
    made = _walked if duel.guarded.records else _crafted
    return [made(duel, i, x, purified, verdicts) for i in chosen(duel)]


def _clean(duel: Duel, i: int, x: Array) -> Shot:
    return Shot(x[i, 0], "clean", f"answer {duel.bare.outcome.clean[i]}")


def _purified(duel: Duel, i: int, purified: Array) -> Shot:
    label = duel.purified[i]
    return Shot(purified[i, 0], "purified", f"answer {label}", bool(label == duel.bare.outcome.y[i]))


def _crafted(duel: Duel, i: int, x: Array, purified: Array, verdicts: Mapping[str, Verdict]) -> Card:
    bare, guarded = duel.bare.outcome, duel.guarded.outcome
    verdict = verdicts.get(duel.guarded.decisions[i])
    p = "" if verdict is None or verdict.p_value is None else f" (p = {verdict.p_value:.2g})"
    refused = guarded.adversarial[i] == REFUSED
    said = f"refused{p}" if refused else f"answer {guarded.adversarial[i]}{p}"
    attacked = Shot(
        bare.x_adv[i, 0], f"attacked, l2 {bare.l2[i]:.1f}", f"bare: {bare.adversarial[i]}; Guard: {said}", bool(refused)
    )
    return _clean(duel, i, x), attacked, _purified(duel, i, purified)


def _walked(duel: Duel, i: int, x: Array, purified: Array, verdicts: Mapping[str, Verdict]) -> Card:
    del verdicts  # a walk has thousands of them
    bare, guarded = duel.bare.outcome, duel.guarded.outcome
    at = guarded.detected_at[i]
    noticed = "never refused" if at == NEVER else f"first refused at query {at:,}"
    return (
        _clean(duel, i, x),
        Shot(bare.x_adv[i, 0], f"bare, l2 {bare.l2[i]:.1f}", f"answer {bare.adversarial[i]}", good=False),
        Shot(guarded.x_adv[i, 0], f"guarded, l2 {guarded.l2[i]:.1f}", noticed, bool(not guarded.success[i])),
        _purified(duel, i, purified),
    )
