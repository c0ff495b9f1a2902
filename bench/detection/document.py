"""From pieces to figures: what the table says, as plain data."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adversary.attack import Array
from adversary.data.cache import sha256
from adversary.scores import Rate, finite, rate, threshold_at
from bench.detection import adaptive, backdoors, costs, craft, fitted, pieces, purify, scoring
from bench.detection.attacks import ATTACKS, Planned
from bench.detection.figures import RATES, detected
from bench.detection.pieces import QUIET, UNTOUCHED, Scale
from bench.detection.subjects import subject

CHOSEN, EVASION, EVERY = "a few, chosen", "against adversarial inputs", "every detector"
BEST = "the best of these for each image"
BELOW = 0.2
"""p-value of the cheap detectors below which the dear ones look, in the escalating variant."""


def planned(data: str, scale: Scale) -> tuple[Planned, ...]:
    """The attacks on a victim."""
    return tuple(one for one in ATTACKS[data] if not scale.attacks or one.name in scale.attacks)


def only(data: str, which: str, scale: Scale) -> tuple[str, ...]:
    """The names of the detectors of a combination."""
    names = tuple(key.partition("/")[2] for key in fitted.profile(data, scale.clean).stages if key[:9] == "detector/")
    if which == CHOSEN:
        return tuple(name for name in names if name in fitted.CHOSEN)
    return names if which == EVERY else tuple(name for name in names if name not in fitted.AGAINST_TRIGGERS)


def rule(data: str, which: str, budget: float, scale: Scale, below: float | None = None) -> scoring.Rule:
    """A combination as the engine runs it."""
    weights = fitted.CHOSEN if which == CHOSEN else {}
    profile = fitted.profile(data, scale.clean)
    return scoring.rule(profile, budget, only=only(data, which, scale), below=below, weights=weights)


def victim(data: str, scale: Scale) -> dict[str, Any]:
    """What is attacked, and what guards it."""
    on, profile = subject(data), fitted.profile(data, scale.clean)
    return {
        "sha256": on.sha256,
        "accuracy": on.accuracy,
        "data": on.source,
        "attacked": pieces.hunted(data, scale),
        "quiet": min(scale.quiet, len(on.quiet_x)),
        "networks": {name: sha256(raw)[:16] for name, raw in fitted.networks_of(data).items()},
        "calibration_rows": profile.notes.get("calibration"),
        "learned_rows": profile.notes.get("learned_rows"),
        "detectors": list(only(data, EVERY, scale)),
    }


def attack(data: str, one: Planned, cell: craft.Crafted) -> dict[str, Any]:
    """What an attack came to on the bare model."""
    won = cell.l2[cell.won]
    return {
        "attack": one.name,
        "source": one.entry.source,
        "norm": one.entry.norm,
        "eps": one.eps,
        "budget": one.budget,
        "options": dict(one.options),
        "success": rate(cell.won).plain(),
        "median_l2": finite(float(np.median(won))) if len(won) else None,
        "data": data,
    }


def detectors(data: str, scale: Scale) -> dict[str, Any]:
    """Every detector, and the combinations, on every attack."""
    quiet = pieces.said(pieces.scores(data, QUIET, scale))
    untouched = pieces.said(pieces.scores(data, UNTOUCHED, scale))
    hostile, attacks = {}, []
    for one in planned(data, scale):
        cell = craft.cell(data, one.name, pieces.hunted(data, scale))
        attacks.append(attack(data, one, cell))
        hostile[one.name] = _only(pieces.said(pieces.scores(data, one.name, scale)), cell.won)
    singles = {
        name: {
            UNTOUCHED: detected(quiet.scores[name], untouched.scores[name]).plain(),
            **{which: detected(quiet.scores[name], said.scores[name]).plain() for which, said in hostile.items()},
        }
        for name in quiet.scores
    }
    combined = [
        combination(data, which, budget, below, scale, quiet, hostile)
        for which in (CHOSEN, EVASION, EVERY)
        for budget in RATES
        for below in ((None,) if which == EVERY else (None, BELOW))
    ]
    return {"attacks": attacks, "detectors": singles, "combinations": [one for one in combined if one is not None]}


def _only(said: scoring.Said, rows: Array) -> scoring.Said:
    return scoring.Said(
        {name: values[rows] for name, values in said.scores.items()},
        {name: values[rows] for name, values in said.p_values.items()},
        said.upstream_rows,
    )


def combination(
    data: str,
    which: str,
    budget: float,
    below: float | None,
    scale: Scale,
    quiet: scoring.Said,
    hostile: dict[str, scoring.Said],
) -> dict[str, Any] | None:
    """All of them together, at a budget; None where nothing escalates."""
    one = rule(data, which, budget, scale, below)
    if below is not None and one.cheap is None:
        return None
    rates = {name: one.rate(said) for name, said in hostile.items()}
    known = {name: found for name, found in rates.items() if found.n}
    worst = min(known, key=lambda name: known[name].value, default=None)
    return {
        "detectors": which,
        "budget": budget,
        "escalate_below": below,
        "false_positives": one.rate(quiet).plain(),
        "looked_at_closely": rate(one.escalated(quiet)).plain(),
        "attacks": {name: found.plain() for name, found in rates.items()},
        "mean": finite(float(np.mean([found.value for found in known.values()]))) if known else None,
        "worst": worst,
        "worst_rate": known[worst].plain() if worst else None,
    }


def false_positives(data: str, scale: Scale) -> dict[str, Any]:
    """Of other clean inputs, every detector on, in calls of one and of 32 rows."""
    quiet = pieces.said(pieces.scores(data, QUIET, scale))
    singly = pieces.said(pieces.scores(data, QUIET, scale, rows=scale.singly, batch=1))
    profile, found = fitted.profile(data, scale.clean), []
    for budget in RATES:
        for which in (EVERY, EVASION, CHOSEN):
            one = rule(data, which, budget, scale)
            together, alone = one.flagged(quiet), one.flagged(singly)
            found.append(
                {
                    "detectors": which,
                    "budget": budget,
                    "batch_32": rate(together).plain(),
                    "batch_1": rate(alone).plain(),
                    "decisions_that_differ": int((together[: len(alone)] != alone).sum()),
                }
            )
    return {"data": data, "calibration_rows": profile.notes.get("calibration"), "rates": found}


def purifiers(data: str, scale: Scale) -> dict[str, Any]:
    """Accuracy behind each, on clean and on attacked inputs."""
    made: dict[str, Any] = {}
    for name in (purify.BARE, *purify.names(data)):
        clean, rows = pieces.Purified(data, name, QUIET, scale).right()
        made[name] = {
            "upstream_rows": rows,
            "clean": rate(clean).plain(),
            "robust": {
                one.name: rate(pieces.Purified(data, name, one.name, scale).right()[0]).plain()
                for one in planned(data, scale)
            },
        }
        if name != purify.BARE and data in adaptive.EPS and scale.aware:
            won = pieces.Known(data, None, name, scale).found()["won"]
            made[name]["robust_adaptive"] = rate(~won.astype(bool)).plain()
    return made


def aware(data: str, scale: Scale) -> list[dict[str, Any]]:
    """Attackers who know the detectors, and the best of them all, row by row; before two combinations."""
    quiet = pieces.said(pieces.scores(data, QUIET, scale))
    rules = {(which, budget): rule(data, which, budget, scale) for which in (CHOSEN, EVASION) for budget in RATES}
    made, passed = [], {key: np.zeros(scale.aware, bool) for key in rules}
    won_once = np.zeros(scale.aware, bool)
    for one in adaptive.variants(data):
        piece = pieces.Known(data, one, "", scale)
        won, said = piece.found()["won"].astype(bool), piece.said()
        won_once |= won
        through = {key: won & ~known.flagged(said) for key, known in rules.items()}
        for key, rows in through.items():
            passed[key] |= rows
        alone = {
            name: rate((said.scores[name] > threshold_at(quiet.scores[name], RATES[1]))[won]).plain()
            for name in quiet.scores
        }
        made.append({**_aware(one.name, won, through), "alone_at_5_fpr": alone})
    return [*made, _aware(BEST, won_once, passed)]


def _aware(name: str, won: Array, through: Mapping[tuple[str, float], Array]) -> dict[str, Any]:
    """detected: of the successful inputs; passes: of all images, success without a flag."""
    entry: dict[str, Any] = {"attacker": name, "success": rate(won).plain(), "detected": {}, "passes": {}}
    for (which, budget), rows in through.items():
        entry["detected"].setdefault(which, {})[_per_cent(budget)] = rate(~rows[won]).plain()
        entry["passes"].setdefault(which, {})[_per_cent(budget)] = rate(rows).plain()
    return entry


def _per_cent(share: float) -> str:
    return f"{100 * share:g}"


def triggers(scale: Scale) -> list[dict[str, Any]]:
    """STRIP and SCALE-UP on the poisoned victim."""
    return [
        one.plain()
        for i, (name, _, _) in enumerate(backdoors.DETECTORS)
        for one in backdoors.passed(name, pieces.Triggers(i, scale).scores())
    ]


def spent(data: str, scale: Scale) -> list[dict[str, Any]]:
    """What every stage costs."""
    return [one.plain() for one in costs.measure(subject(data), scale.clean)]


__all__ = ["Rate", "aware", "detectors", "false_positives", "purifiers", "spent", "triggers", "victim"]
