"""The judge of attacks that are no evasions: copies, memberships, inversions. Figures over seeds, with intervals.

AUROC by ranks (Mann and Whitney 1947), ties counted half. True-positive rate at 1 % false positives after Carlini et
al. 2022, arXiv:2112.03570: an attack that is right about few, but sure of them, is worse than its AUROC says.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from adversary.attack import Array
from adversary.judge import counted, median, share, watched
from adversary.report import Copied, CopyPoint, Estimate, Inferred, Inverted
from adversary.scores import tpr_at_fpr

RESAMPLES = 1000
_BOOTSTRAP_SEED = 95
_TAILS = (0.025, 0.975)
_FPR = 0.01
Units = Sequence[Mapping[str, Array]]


def copied(units: Units, seeds: Sequence[int]) -> Copied:
    """Extraction units, one a seed."""
    last = [(unit["copied"][-1], unit) for unit in units]
    return Copied(
        agreement=share(np.concatenate([labels == unit["bare"] for labels, unit in last])),
        task_accuracy=share(np.concatenate([labels == unit["y"] for labels, unit in last])),
        model_accuracy=share(np.concatenate([unit["bare"] == unit["y"] for unit in units])),
        answered=median(np.array([unit["answered"][-1] for unit in units])),
        copies=tuple(point for unit, seed in zip(units, seeds, strict=True) for point in _points(unit, seed)),
        watched=watched(units),
    )


def _points(unit: Mapping[str, Array], seed: int) -> list[CopyPoint]:
    return [
        CopyPoint(
            seed=seed,
            sent=int(sent),
            answered=int(answered),
            agreement=share(labels == unit["bare"]),
            task_accuracy=share(labels == unit["y"]),
        )
        for sent, answered, labels in zip(unit["spent"], unit["answered"], unit["copied"], strict=True)
    ]


def inferred(units: Units) -> Inferred:
    """Membership units, one a seed."""
    scores, member, queries = (
        np.concatenate([unit[name] for unit in units]) for name in ("scores", "member", "queries")
    )
    inside, outside = scores[member], scores[~member]
    found, _ = tpr_at_fpr(outside, inside, _FPR)
    return Inferred(
        members=len(inside),
        outsiders=len(outside),
        auroc=_estimate(auroc, inside, outside),
        advantage=_estimate(advantage, inside, outside),
        tpr_at_1_fpr=counted(np.array(found.hits), np.array(found.n)),
        cost=median(queries),
        watched=watched(units),
    )


def auroc(inside: Array, outside: Array) -> float:
    """The chance that a member scores above an outsider, ties counted half."""
    ranked = np.sort(outside)
    below, up_to = np.searchsorted(ranked, inside, "left"), np.searchsorted(ranked, inside, "right")
    return float((below + up_to).mean() / (2 * len(outside)))


def advantage(inside: Array, outside: Array) -> float:
    """True- less false-positive rate where a score above 0 says: a member (Yeom et al. 2018, arXiv:1709.01604)."""
    return float((inside > 0.0).mean() - (outside > 0.0).mean())


def _estimate(figure: Callable[[Array, Array], float], inside: Array, outside: Array) -> Estimate:
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    drawn = [figure(rng.choice(inside, len(inside)), rng.choice(outside, len(outside))) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, _TAILS)
    return Estimate(value=figure(inside, outside), interval_95=(float(low), float(high)))


def inverted(units: Units) -> Inverted:
    """Inversion units, one a seed."""
    y, answered, recognised, queries = (
        np.concatenate([unit[name] for unit in units]) for name in ("y", "answered", "recognised", "queries")
    )
    likeness = np.concatenate([unit["likeness"] for unit in units])
    return Inverted(
        wanted=len(y),
        answered=share(answered == y),
        recognised=share(recognised == y),
        nearest=share(likeness.argmax(axis=1) == y),
        likeness=median(likeness[np.arange(len(y)), y]),
        cost=median(queries),
        watched=watched(units),
    )
