"""The whole: what is to be done, in phases, and the document when it is."""

import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

from adversary.data.cache import DataUnavailable
from bench.detection import adaptive, backdoors, bars, craft, document, fitted, pieces, purify
from bench.detection.attacks import ATTACKS
from bench.detection.pieces import QUIET, UNTOUCHED, Fit, Known, Networks, Purified, Scale, Score, Triggers
from bench.detection.work import Work, run

FULL = Scale()
QUICK = Scale(hunted=40, quiet=200, singly=40, aware=0, stamped=0, clean=1500, attacks=("fgsm", "bim"))
DATA = ("mnist", "fashion", "cifar10", "photos")
_VERSIONS = ("numpy", "torch", "onnxruntime", "opencv-python-headless", "opencv-python")


def phases(data: Sequence[str], scale: Scale) -> list[list[Work]]:
    """Crafting and fitting, then all that needs them."""
    first: list[Work] = [Fit(name, scale) for name in data]
    then: list[Work] = [Triggers(i, scale) for i in range(len(backdoors.DETECTORS))] if scale.stamped else []
    for name in data:
        attacks = [one.name for one in document.planned(name, scale)]
        if attacks:
            first += craft.units(name, pieces.hunted(name, scale), attacks)
        then += _scoring(name, attacks, scale)
        then += _behind_purifiers(name, attacks, scale) if scale.purified else []
        then += _knowing(name, scale)
    return [first, then]


def _scoring(data: str, attacks: Sequence[str], scale: Scale) -> list[Score]:
    sets = [QUIET, *([UNTOUCHED] if attacks else []), *attacks]
    made = [piece for name in sets for piece in pieces.scores(data, name, scale)]
    return [*made, *pieces.scores(data, QUIET, scale, rows=scale.singly, batch=1)]


def _behind_purifiers(data: str, attacks: Sequence[str], scale: Scale) -> list[Purified]:
    if not attacks:
        return []
    return [
        Purified(data, purifier, name, scale)
        for purifier in (purify.BARE, *purify.names(data))
        for name in (QUIET, *attacks)
    ]


def _knowing(data: str, scale: Scale) -> list[Known]:
    if data not in adaptive.EPS or not scale.aware:
        return []
    aware = [Known(data, one, "", scale) for one in adaptive.variants(data)]
    return [*aware, *(Known(data, None, name, scale) for name in purify.names(data))]


def measured(data: Sequence[str], scale: Scale, jobs: int, command: str) -> dict[str, Any]:
    """Do what is not done, then tell all of it. Raises DataUnavailable."""
    untrained = [one for one in map(Networks, data) if one.missing]
    if scale == FULL and untrained:
        run([untrained], jobs)
    run(phases(data, scale), jobs)
    found: dict[str, Any] = {"made": made(command), "data": {name: _data(name, scale) for name in data}}
    found["false_positives"] = [document.false_positives(name, scale) for name in data]
    found["backdoors"] = document.triggers(scale) if scale.stamped else []
    found["bars"] = [one.plain() for one in bars.judged(found)]
    return found


def _data(name: str, scale: Scale) -> dict[str, Any]:
    part: dict[str, Any] = {"victim": document.victim(name, scale)}
    if ATTACKS[name]:
        part |= document.detectors(name, scale)
        if scale.purified:
            part["purifiers"] = document.purifiers(name, scale)
        if name in adaptive.EPS and scale.aware:
            part["adaptive"] = document.aware(name, scale)
    if scale == FULL:
        part["costs"] = document.spent(name, scale)
    return part


def made(command: str) -> dict[str, Any]:
    """The command, the machine, the versions."""
    versions = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"command": command, "seed": craft.SEED, "machine": _machine(), "versions": versions}


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}"


__all__ = ["DATA", "FULL", "QUICK", "DataUnavailable", "fitted", "measured", "phases"]
