"""The report of a finished campaign, put together from what its units found."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import yaml

from adversary import atlas, judge, judge_doubts, judge_leaks, serving
from adversary.attack import Array
from adversary.campaign import TARGETS, Attack, TargetName, Written, title
from adversary.catalogue import CATALOGUE
from adversary.data.cache import sha256
from adversary.judge import Evidence
from adversary.replay import Replayed
from adversary.report import (
    SCHEMA_VERSION,
    AttackPart,
    Callers,
    DataPart,
    Document,
    Endpoints,
    ExtractionPart,
    Failure,
    Honest,
    HonestOn,
    InversionPart,
    MembershipPart,
    ModelPart,
    Run,
    TargetPart,
    Technique,
)
from adversary.unit import Unit, budget_of, eps_of

_PACKAGES = ("guard-sidecar", "numpy", "torch", "onnxruntime", "onnxruntime-gpu", "grpcio", "opencv-python-headless")
Units = Mapping[Unit, Mapping[str, Array]]


@dataclass(frozen=True, slots=True, eq=False)
class Rebuilt:
    """x: (N, ...); y, answered, recognised: (N,) labels wanted, given by the endpoint, seen by another network."""

    x: Array
    y: Array
    answered: Array
    recognised: Array


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The report, and what its pictures are made of.

    evidence, inputs:  of evasions, by title: both sides' evidence, the victims' inputs.
    rebuilt:           of inversions, by title: what both sides gave, and the endpoint's labels for it.
    """

    document: Document
    evidence: Mapping[str, Mapping[TargetName, Evidence]]
    inputs: Mapping[str, Array]
    rebuilt: Mapping[str, Mapping[TargetName, Rebuilt]] = field(default_factory=dict)


def judged(done: Replayed, written: Written, run: Run) -> Judged:
    """Attacks of which a unit failed are left out; `failures` names them."""
    lost = {unit.attack for unit in done.failures}
    whole = [attack for attack in done.campaign.attacks if title(attack) not in lost]
    evasions = [attack for attack in whole if attack.entry.goal == "evasion"]
    evidence = {title(attack): _evidence(done, attack) for attack in evasions}
    parts = [_part(attack, evidence[title(attack)]) for attack in evasions]
    doubted = [_doubted(part, parts) for part in parts]
    honest = HonestOn(control=_callers(done, "control"), guarded=_callers(done, "guarded"))
    targets = Endpoints(control=_target(done, "control"), guarded=_target(done, "guarded"))
    failures = tuple(Failure(unit=unit.name, reason=reason) for unit, reason in done.failures.items())
    campaign = done.campaign
    document = Document(
        schema_version=SCHEMA_VERSION,
        campaign=campaign.name,
        description=campaign.description,
        campaign_yaml=written.text,
        campaign_sha256=written.digest,
        overrides=written.overrides,
        seeds=campaign.seeds,
        identities=_identities(done),
        atlas_version=atlas.VERSION,
        data=DataPart(
            source=done.inputs.source, note=done.inputs.note, sha256=done.inputs.digest, inputs=len(done.inputs.x)
        ),
        model=ModelPart(name=campaign.model.name, version=campaign.model.version, onnx_sha256=done.model_sha256),
        targets=targets,
        honest=honest,
        attacks=tuple(doubted),
        extractions=tuple(_extraction(done, attack) for attack in whole if attack.entry.goal == "extraction"),
        memberships=tuple(_membership(done, attack) for attack in whole if attack.entry.goal == "membership"),
        inversions=tuple(_inversion(done, attack) for attack in whole if attack.entry.goal == "inversion"),
        failures=failures,
        warnings=judge_doubts.of_campaign(targets.guarded, honest, failures),
        versions=_versions(),
        code_sha256=serving.code_digest("adversary"),
        run=run,
    )
    rebuilt = {title(attack): _rebuilt(done, attack) for attack in whole if attack.entry.goal == "inversion"}
    return Judged(document, evidence, {title(attack): _inputs(done, attack) for attack in evasions}, rebuilt)


def _units(done: Replayed, target: TargetName, attack: Attack) -> list[Unit]:
    return [unit for unit in done.found if (unit.target, unit.attack) == (target, title(attack))]


def _evidence(done: Replayed, attack: Attack) -> dict[TargetName, Evidence]:
    return {
        target: judge.gather([done.found[unit] for unit in _units(done, target, attack)], eps_of(attack))
        for target in TARGETS
    }


def _inputs(done: Replayed, attack: Attack) -> Array:
    return np.concatenate([done.inputs.x[done.plan.drawn.rows(unit)] for unit in _units(done, "control", attack)])


def _part(attack: Attack, evidence: Mapping[TargetName, Evidence]) -> AttackPart:
    return AttackPart(
        **_told(attack),
        norm=attack.entry.norm,
        eps=eps_of(attack),
        control=judge.side(evidence["control"]),
        guarded=judge.side(evidence["guarded"]),
    )


def _told(attack: Attack) -> dict[str, Any]:
    entry = attack.entry
    return {
        "title": title(attack),
        "attack": attack.attack,
        "family": entry.family,
        "access": entry.access,
        "origin": entry.origin,
        "source": entry.source,
        "atlas": tuple(Technique(id=technique.id, name=technique.name) for technique in atlas.techniques(entry)),
        "budget": budget_of(attack),
        "options": {**attack.options, **attack.per_victim},
        "expect": attack.expect,
        "warnings": (),
    }


def _extraction(done: Replayed, attack: Attack) -> ExtractionPart:
    control, guarded = (
        judge_leaks.copied([done.found[unit] for unit in units], [unit.seed for unit in units])
        for units in _both(done, attack)
    )
    part = ExtractionPart(**_told(attack), control=control, guarded=guarded)
    return part.model_copy(update={"warnings": judge_doubts.of_extraction(part, attack.entry.budget)})


def _membership(done: Replayed, attack: Attack) -> MembershipPart:
    control, guarded = (judge_leaks.inferred([done.found[unit] for unit in units]) for units in _both(done, attack))
    part = MembershipPart(**_told(attack), control=control, guarded=guarded)
    return part.model_copy(update={"warnings": judge_doubts.of_membership(part, attack.entry.budget)})


def _inversion(done: Replayed, attack: Attack) -> InversionPart:
    control, guarded = (judge_leaks.inverted([done.found[unit] for unit in units]) for units in _both(done, attack))
    part = InversionPart(**_told(attack), control=control, guarded=guarded)
    return part.model_copy(update={"warnings": judge_doubts.of_inversion(part, attack.entry.budget)})


def _both(done: Replayed, attack: Attack) -> list[list[Unit]]:
    return [_units(done, target, attack) for target in TARGETS]


def _rebuilt(done: Replayed, attack: Attack) -> dict[TargetName, Rebuilt]:
    found = {}
    for target, units in zip(TARGETS, _both(done, attack), strict=True):
        names = ("rebuilt", "y", "answered", "recognised")
        found[target] = Rebuilt(*(np.concatenate([done.found[unit][name] for unit in units]) for name in names))
    return found


def _doubted(part: AttackPart, parts: Sequence[AttackPart]) -> AttackPart:
    doubts = judge_doubts.of_attack(part, parts, CATALOGUE[part.attack].budget)
    return part.model_copy(update={"warnings": doubts})


def _callers(done: Replayed, target: TargetName) -> Callers:
    alone = [done.found[unit] for unit in done.found if (unit.kind, unit.target) == ("benign", target)]
    asked = [found for unit, found in done.found.items() if unit.target == target]
    beside = [found for found in asked if "beside_labels" in found]
    return Callers(alone=_alone(alone), beside=_beside(beside))


def _alone(units: Sequence[Mapping[str, Array]]) -> Honest:
    if not units:
        return _nobody()
    (unit,) = units
    flagged = [bool(unit["caller_flagged"][unit["caller"] == caller].any()) for caller in np.unique(unit["caller"])]
    return judge.honest(unit["y"], unit["labels"], unit["flagged"], np.array(flagged, bool))


def _beside(units: Sequence[Mapping[str, Array]]) -> Honest:
    """One caller a unit."""
    sent = [unit for unit in units if len(unit["beside_labels"])]
    if not sent:
        return _nobody()
    y, labels, flagged = (
        np.concatenate([unit[f"beside_{name}"] for unit in sent]) for name in ("y", "labels", "flagged")
    )
    return judge.honest(y, labels, flagged, np.array([unit["beside_caller_flagged"].any() for unit in sent], bool))


def _nobody() -> Honest:
    nothing = np.zeros(0, np.int64)
    return judge.honest(nothing, nothing, nothing, nothing)


def _target(done: Replayed, name: TargetName) -> TargetPart:
    served, target = done.targets[name], done.campaign.target(name)
    text = "" if served.settings is None else yaml.safe_dump(serving.without_paths(served.settings), sort_keys=False)
    return TargetPart(
        address=target.address or "",
        settings=text,
        settings_sha256=sha256(text.encode()) if text else "",
        profile=served.profile,
        fresh=served.fresh,
        audit=served.fresh,
    )


def _identities(done: Replayed) -> str:
    identities = done.campaign.identities
    keys = "made-up keys" if identities.keys_file is None else "keys of a file"
    return f"a caller a {identities.per}, told by the header {identities.header}; {keys}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """In a few words."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
