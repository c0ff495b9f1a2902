"""From measurements to one plain document: what the table, the page and results.json all show."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import guard
from adversary import scores
from adversary.attack import REFUSED, Array
from adversary.runner import NEVER
from adversary.scores import Rate, finite, rate
from demo.measure import Attacked, Clean, Latency
from demo.plan import FALSE_POSITIVE_RATE, PAPER_DETECTION, PAPER_FPR, Crafted, Plan
from demo.verdicts import Verdict, rows_until_flagged

Verdicts = Mapping[str, Verdict]


@dataclass(frozen=True, slots=True, eq=False)
class Duel:
    """One attack on both endpoints. purified: (N,) the bare model's labels of the purified inputs."""

    title: str
    access: str
    budget: int
    bare: Attacked
    guarded: Attacked
    purified: Array
    like_paper: bool = False


def clean_part(bare: Clean, guarded: Clean, y: Array, verdicts: Verdicts) -> dict[str, Any]:
    """Clean accuracy and false positives."""
    flagged = {
        int(caller)
        for caller, decision in zip(guarded.callers, guarded.decisions, strict=True)
        if decision in verdicts and verdicts[decision].caller_flagged
    }
    return {
        "images": len(y),
        "bare_accuracy": rate(bare.labels == y).plain(),
        "guarded_accuracy": rate(guarded.labels == y).plain(),
        "changed_answers": rate((bare.labels != guarded.labels) & (guarded.labels != REFUSED)).plain(),
        "refused": rate(guarded.labels == REFUSED).plain(),
        "budget": FALSE_POSITIVE_RATE,
        "callers_flagged": Rate(len(flagged), len(set(guarded.callers.tolist()))).plain(),
    }


def attack_part(duel: Duel, verdicts: Verdicts) -> dict[str, Any]:
    """One row of the table."""
    bare, guarded = duel.bare.outcome, duel.guarded.outcome
    won = bare.success
    return {
        "title": duel.title,
        "access": duel.access,
        "norm": guarded.norm,
        "eps": guarded.eps,
        "budget": duel.budget,
        "victims": int(guarded.attacked.sum()),
        "bare_success": scores.success_rate(bare).plain(),
        "guarded_success": scores.success_rate(guarded).plain(),
        "detected": rate((guarded.detected_at != NEVER)[won]).plain(),
        "queries_to_detection": finite(scores.queries_to_detection(guarded)),
        "queries_to_flagged_caller": _until_flagged(duel.guarded, verdicts),
        "median_queries": finite(scores.median_of(guarded.queries[guarded.attacked])),
        "bare_median_queries": finite(scores.median_of(bare.queries[bare.attacked])),
        "bare_median_l2": finite(scores.median_of(bare.l2[won])),
        "right_when_purified": rate((duel.purified == bare.y)[won]).plain(),
    }


def _until_flagged(attacked: Attacked, verdicts: Verdicts) -> float | None:
    if not attacked.records:
        return None
    by_caller: dict[int, list[Any]] = {}
    for record in attacked.records:
        by_caller.setdefault(record.identity, []).append(record)
    rows = np.array([rows_until_flagged(records, verdicts) for records in by_caller.values()])
    return finite(scores.median_of(rows[rows != NEVER]))


def paper_part(clean: Clean, duels: Sequence[Duel], verdicts: Verdicts) -> dict[str, Any]:
    """Feature squeezing at the paper's false-positive rate: its p-values of the same run against 0.04."""

    def passed(decisions: Sequence[str]) -> Array:
        values = [verdicts[d].p_value for d in decisions if d in verdicts]
        return np.array([p <= PAPER_FPR for p in values if p is not None], bool)

    detected = {
        duel.title: rate(passed(np.asarray(duel.guarded.decisions)[duel.bare.outcome.success].tolist()))
        for duel in duels
        if duel.like_paper
    }
    return {
        "false_positive_rate": {"asked": PAPER_FPR, "measured": rate(passed(clean.decisions)).plain()},
        "detected": {title: found.plain() for title, found in detected.items()},
        "mean": finite(float(np.mean([found.value for found in detected.values()]))),
        "paper": PAPER_DETECTION,
        "source": "Xu, Evans, Qi 2018, arXiv:1704.01155",
    }


def latency_part(taken: Latency) -> dict[str, Any]:
    """The added latency as a ratio of interleaved calls."""
    ratios = taken.guarded / taken.bare
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75)) if len(ratios) else (np.nan,) * 3
    return {
        "pairs": len(ratios),
        "ratio": finite(float(middle)),
        "quartiles": [finite(float(low)), finite(float(high))],
        "bare_median_ms": finite(1000 * scores.median_of(taken.bare)),
        "guarded_median_ms": finite(1000 * scores.median_of(taken.guarded)),
    }


def provenance(plan: Plan, command: Sequence[str], **digests: str) -> dict[str, Any]:
    """Command, sizes, seeds, versions, digests: what a repetition needs."""
    packages = ("torch", "onnxruntime", "onnxruntime-gpu", "numpy", "grpcio", "opencv-python-headless")
    return {
        "command": " ".join(command),
        "plan": asdict(plan),
        "versions": {"guard": guard.__version__, "python": platform.python_version(), **_versions(packages)},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "digests": digests,
    }


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def crafted_access(attack: Crafted) -> str:
    """How a crafted attack reaches the endpoint."""
    return f"{attack.entry.family}, crafted on the victim"
