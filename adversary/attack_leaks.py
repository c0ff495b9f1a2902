"""One extraction, membership inference or inversion against one endpoint: run and judged, without a control beside it.

The copy is held against the endpoint's own answers, asked for when all is over.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from adversary import judge_leaks, runner, runner_extraction, runner_inversion, runner_membership
from adversary.asking import Noticed
from adversary.attack import Array
from adversary.catalogue import Entry, Goal
from adversary.drawing import GREY, OWN, candidates
from adversary.inputs import Inputs
from adversary.oracle import Oracle, Record
from adversary.report import Copied, Inferred, Inverted
from adversary.report_goals import estimate
from adversary.report_text import number, per_cent
from adversary.runner import Tell
from adversary.serving import Verdict
from adversary.unit import wants


def run(
    entry: Entry, oracle: Oracle, data: Inputs, *, n: int, seed: int, options: Mapping[str, Any], tell: Tell
) -> dict[str, Any]:
    """What the judge says, as data for JSON. Raises ValueError where the data lack what the attack needs."""
    classes = int(data.y.max()) + 1
    given = {"own_x": data.clean[:OWN], "own_y": data.clean_y[:OWN], "classes": classes}
    asked = wants(entry)
    known: dict[str, Any] = {"budget": entry.budget, "seed": seed, "tell": tell, **options}
    known |= {name: value for name, value in given.items() if name in asked}
    part = _WORK[entry.goal](entry, oracle, data, n, known)
    return {"goal": entry.goal, **part.model_dump(mode="json")}


def _copy(entry: Entry, oracle: Oracle, data: Inputs, n: int, known: Mapping[str, Any]) -> Copied:
    if not len(data.pool):
        raise ValueError(f"{entry.name} needs inputs to send: the data have no pool")
    x, y = data.x[:n], data.y[:n]
    theft = runner_extraction.steal(entry, oracle, data.pool[:], data.pool_y, judged=x, **known)
    unit = {"copied": theft.labels, "spent": theft.sent, "answered": theft.answered, "y": y}
    unit |= _watched((theft.trail,))
    return judge_leaks.copied([{**unit, "bare": runner.ask_singly(oracle, x)}], [known["seed"]])


def _guess(entry: Entry, oracle: Oracle, data: Inputs, n: int, known: Mapping[str, Any]) -> Inferred:
    if n // 2 > len(data.learned):
        raise ValueError(f"{n // 2:,} members are wanted; the data have {len(data.learned):,}")
    outsiders = n - n // 2
    made = candidates(data, data.x[:outsiders], data.y[:outsiders], n, np.random.default_rng(known["seed"]))
    inference = runner_membership.infer(entry, oracle, made["candidates"], made["candidates_y"], **known)
    unit = {"member": made["member"], "scores": inference.scores, "queries": inference.queries}
    return judge_leaks.inferred([{**unit, **_watched((inference.trail,))}])


def _rebuild(entry: Entry, oracle: Oracle, data: Inputs, n: int, known: Mapping[str, Any]) -> Inverted:
    real_x, real_y, classes = data.clean[:OWN], data.clean_y[:OWN], int(data.y.max()) + 1
    start = np.full((n, *data.x.shape[1:]), GREY, np.float32)
    rebuilt = runner_inversion.invert(entry, oracle, start, np.arange(n) % classes, **known)
    unit = {
        "y": rebuilt.y,
        "answered": rebuilt.answered,
        "queries": rebuilt.queries,
        "recognised": runner_inversion.recognised(rebuilt.x, real_x, real_y, known["seed"]),
        "likeness": runner_inversion.likeness(rebuilt.x, real_x, real_y, classes),
    }
    return judge_leaks.inverted([{**unit, **_watched(rebuilt.trails)}])


def _watched(trails: tuple[tuple[Record, ...], ...]) -> dict[str, Array]:
    """By what the client saw: nobody else's log is at hand."""
    return Noticed.arrays([Noticed(t, tuple(Verdict(r.refused, caller=False) for r in t)) for t in trails])


_WORK: dict[Goal, Callable[[Entry, Oracle, Inputs, int, Mapping[str, Any]], Copied | Inferred | Inverted]] = {
    "extraction": _copy,
    "membership": _guess,
    "inversion": _rebuild,
}


def shown(found: Mapping[str, Any]) -> dict[str, object]:
    """The figures for a terminal."""
    goal = found["goal"]
    fields = {name: value for name, value in found.items() if name != "goal"}
    if goal == "extraction":
        copied = Copied.model_validate(fields)
        return {
            "agreement of the copy with the endpoint": per_cent(copied.agreement),
            "task accuracy of the copy": per_cent(copied.task_accuracy),
            "accuracy of the endpoint": per_cent(copied.model_accuracy),
            "rows answered": number(copied.answered),
            "rows refused": per_cent(copied.watched.refused_queries),
        }
    if goal == "membership":
        inferred = Inferred.model_validate(fields)
        return {
            "AUROC": estimate(inferred.auroc),
            "advantage": estimate(inferred.advantage),
            "members found at 1 % false": per_cent(inferred.tpr_at_1_fpr),
            "rows refused": per_cent(inferred.watched.refused_queries),
        }
    inverted = Inverted.model_validate(fields)
    return {
        "recognised by another network": per_cent(inverted.recognised),
        "nearest to the mean of its class": per_cent(inverted.nearest),
        "answered as wanted": per_cent(inverted.answered),
        "rows refused": per_cent(inverted.watched.refused_queries),
    }
