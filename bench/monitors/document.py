"""From runs to figures, as plain data, section by section; and the units of work that each section needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adversary.attack import Array
from adversary.runner import NEVER
from adversary.scores import Rate, finite, rate
from bench.detection.work import Work
from bench.monitors import attacks, benign, budget, hunts, thefts, traffic
from bench.monitors.ground import DATA
from bench.monitors.guarded import DEFAULT, DETECTORS, Defence
from bench.monitors.planned import DISGUISED, OARS, PLAIN, planned
from bench.monitors.wire import Wired

ALONE = ("benign", "evasion", "adaptive", "extraction", "budget", "wire")
WHOLE = {f"whole-{name}": name for name in ("benign", "evasion", "adaptive")}
"""The same with detectors of single inputs beside the monitors."""
SECTIONS = (*ALONE, *WHOLE)
SYBILS = ("sybil-1", "sybil-10", "sybil-100")
OARS_WAYS = ("alone", "fresh-10", "fresh-100")
WIRED = ("hop-skip-jump", "nes", "square")
SHARE = 0.05
"""Of the queries that an attack needs on the bare victim."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. runs: of each attack; callers: of each kind of benign traffic; most: their rows, 0: all."""

    data: tuple[str, ...] = DATA
    runs: int = 20
    callers: int = 3000
    copies: int = 1
    wired: int = 5
    most: int = 0
    attacks: tuple[str, ...] = PLAIN
    defence: Defence = DEFAULT


Units = Callable[[str, Scale], Sequence[Work]]
Figures = Callable[[str, Scale], dict[str, Any]]


def _blocks(data: str, scale: Scale) -> list[benign.Benign]:
    return [
        benign.Benign(data, kind, block, most=scale.most, defence=scale.defence)
        for kind in traffic.KINDS
        for block in range(benign.blocks(kind, scale.callers))
    ]


def _benign(data: str, scale: Scale) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in traffic.KINDS:
        some = [block for block in _blocks(data, scale) if block.kind == kind]
        parts = [block.made() for block in some]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        asked = whole["rows"] > 0
        level, refused = whole["level"][asked], whole["refused"][asked]
        blame: dict[str, int] = {}
        for block in some:
            for name, count in block.blame().items():
                blame[name] = blame.get(name, 0) + count
        found[kind] = {
            "callers": int(asked.sum()), "queries": int(whole["rows"].sum()), "blocks": len(some),
            "watch": rate(level >= 1).plain(), "alarms": rate((level >= 2) | (refused > whole["own"][asked])).plain(),
            "hostile": rate(level >= 3).plain(), "refused": rate(refused > 0).plain(), "blame": blame,
            "flagged": Rate(int(whole["own"].sum()), int(whole["rows"].sum())).plain(),
        }  # fmt: skip
    return found


def _evasion_units(data: str, scale: Scale) -> list[Work]:
    bare = attacks.bare_units(data, scale.runs, scale.attacks)
    return [*bare, *hunts.units(data, scale.attacks, "plain", scale.runs, scale.defence)]


def _evasion(data: str, scale: Scale) -> dict[str, Any]:
    return {name: _one_evasion(data, name, scale) for name in scale.attacks}


def _one_evasion(data: str, name: str, scale: Scale) -> dict[str, Any]:
    reached = attacks.bare(data, name, scale.runs)["reached"]
    run, plan = hunts.hunted(data, name, "plain", scale.runs, scale.defence), planned(data, name)
    needed, at = attacks.needed(reached), median(run.flagged)
    searching = (reached == NEVER) | (reached > 10)
    both = (reached != NEVER) & (run.flagged != NEVER)
    return {
        "norm": plan.entry.norm, "eps": plan.eps, "budget": plan.budget,
        "bare_success": rate(reached != NEVER).plain(), "needed": finite(needed),
        "before": rate(run.before).plain(), "before_of_searching": rate(run.before[searching]).plain(),
        "queries_to_detection": finite(at), "worst": int(run.flagged.max(initial=NEVER)),
        "share_of_needed": finite(at / needed), "within_share": rate(
            run.flagged[both] <= np.maximum(1, SHARE * reached[both])
        ).plain(),
        "flagged": run.flagged.tolist(), "reached_bare": reached.tolist(), "reached_guarded": run.reached.tolist(),
        "blame": counted(run.blame),
    }  # fmt: skip


def _adaptive_units(data: str, scale: Scale) -> list[Work]:
    made: list[Work] = [*attacks.bare_units(data, scale.runs, OARS), *attacks.bare_units(data, scale.runs, DISGUISED)]
    for way in OARS_WAYS:
        made += hunts.units(data, OARS, way, scale.runs, scale.defence)
    for way in (*SYBILS, "hidden"):
        made += hunts.units(data, DISGUISED, way, scale.runs, scale.defence)
    return made


def _adaptive(data: str, scale: Scale) -> dict[str, Any]:
    ways = [(way, OARS) for way in OARS_WAYS] + [(way, DISGUISED) for way in (*SYBILS, "hidden")]
    return {way: {name: _one_adaptive(data, name, way, scale) for name in names} for way, names in ways}


def _one_adaptive(data: str, name: str, way: str, scale: Scale) -> dict[str, Any]:
    reached = attacks.bare(data, name, scale.runs)["reached"]
    run = hunts.hunted(data, name, way, scale.runs, scale.defence)
    return {
        "budget": hunts.Hunt(data, name, way, 0, 1, 1).plan.budget,
        "bare_success": rate(reached != NEVER).plain(), "success": rate(run.won).plain(),
        "at_once": rate(run.won & (run.reached <= 10)).plain(), "detected": rate(run.before).plain(),
        "queries_to_detection": finite(median(run.flagged)),
        "queries_to_success": finite(attacks.needed(run.reached)), "answered": finite(float(np.median(run.answered))),
        "reached": run.reached.tolist(), "flagged": run.flagged.tolist(), "blame": counted(run.blame),
    }  # fmt: skip


def _extraction_units(data: str, scale: Scale) -> list[Work]:
    made: list[Work] = [
        thefts.Theft(data, name, seed, scale.defence) for name in thefts.THIEVES for seed in range(scale.runs)
    ]
    for guarded in (False, True):
        made += [thefts.Copying(data, seed, guarded, scale.defence) for seed in range(scale.copies)]
    return made


def _extraction(data: str, scale: Scale) -> dict[str, Any]:
    found: dict[str, Any] = {"thieves": {}, "copies": {}}
    for name in thefts.THIEVES:
        at, blame = thefts.noticed(data, name, scale.runs, scale.defence)
        published = thefts.PUBLISHED.get(name) if data == "mnist" else None
        found["thieves"][name] = {
            "within_1000": rate((at != NEVER) & (at <= 1000)).plain(), "queries_to_detection": finite(median(at)),
            "worst": int(at.max(initial=NEVER)), "published": published,
            "within_published": None if published is None else rate((at != NEVER) & (at <= published)).plain(),
            "flagged": at.tolist(), "blame": counted(np.array(blame)),
        }  # fmt: skip
    for guarded in (False, True):
        runs = [thefts.Copying(data, seed, guarded, scale.defence).made() for seed in range(scale.copies)]
        found["copies"]["guarded" if guarded else "bare"] = {
            "sent": [int(run["sent"]) for run in runs], "answered": [int(run["answered"]) for run in runs],
            "flagged": [int(run["flagged"]) for run in runs],
            "agreement": rate(np.concatenate([run["agrees"] for run in runs])).plain(),
        }  # fmt: skip
    return found


def _budget_units(data: str, scale: Scale) -> list[Work]:
    return budget.units(data, scale.runs, scale.copies, scale.most)


def _budget(data: str, scale: Scale) -> dict[str, Any]:
    return budget.figures(data, scale.runs, scale.copies, scale.most)


def _wire_units(data: str, scale: Scale) -> list[Work]:
    return [Wired(data, name, scale.wired, which, defence=scale.defence) for name in WIRED for which in (False, True)]


def _wire(data: str, scale: Scale) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in WIRED:
        runs = {which: Wired(data, name, scale.wired, which, defence=scale.defence).made() for which in (False, True)}
        at, won = runs[True]["refused"], runs[True]["reached"]
        found[name] = {
            "control_success": rate(runs[False]["success"]).plain(),
            "control_refused": rate(runs[False]["refused"] != NEVER).plain(),
            "success": rate(runs[True]["success"]).plain(),
            "before": rate((at != NEVER) & ((won == NEVER) | (at < won))).plain(),
            "queries_to_detection": finite(median(at)),
        }  # fmt: skip
    return found


def scaled(section: str, scale: Scale) -> Scale:
    """What a section is measured at: with detectors, or without."""
    return replace(scale, defence=replace(scale.defence, detectors=DETECTORS if section in WHOLE else ()))


_UNITS: Mapping[str, Units] = {
    "benign": _blocks, "evasion": _evasion_units, "adaptive": _adaptive_units, "extraction": _extraction_units,
    "budget": _budget_units, "wire": _wire_units,
}  # fmt: skip
_FIGURES: Mapping[str, Figures] = {
    "benign": _benign, "evasion": _evasion, "adaptive": _adaptive, "extraction": _extraction, "budget": _budget,
    "wire": _wire,
}  # fmt: skip


def units(section: str, data: str, scale: Scale) -> Sequence[Work]:
    """What there is to do for a section."""
    return _UNITS[WHOLE.get(section, section)](data, scaled(section, scale))


def figures(section: str, data: str, scale: Scale) -> dict[str, Any]:
    """What came of it."""
    return _FIGURES[WHOLE.get(section, section)](data, scaled(section, scale))


def median(places: Array) -> float:
    """Of places that may be NEVER, which counts as infinitely late."""
    return float(np.median(np.where(places == NEVER, np.inf, places))) if len(places) else float("nan")


def counted(names: Array) -> dict[str, int]:
    """How often each name is there; the empty one is nobody."""
    values, counts = np.unique(names, return_counts=True)
    return {str(name) or "nobody": int(count) for name, count in zip(values, counts, strict=True)}
