"""Who the victim has learned from: what confidences, losses, learned judges and labels still tell behind protections.

The victim that remembers (adversary.victims.cifar10_overfit): its 2,500 members against the first 2,500 test images.
In process: the proxy's engine, every row chosen. What learns (membership_noise, modelguard) does so from rows of the
`clean` split, which are neither members nor judged; shadows learn from the `pool` split.

    of the answer alone     confidence (its largest probability); entropy; sorted (a small network over the sorted
                            answer, taught on shadow models that stand behind the same protection with another secret:
                            Salem et al. 2019, arXiv:1806.01246)
    with the true label     loss (Yeom et al. 2018, arXiv:1709.01604); modified entropy (Song, Mittal 2021,
                            arXiv:2003.10595)
    by labels alone         right or wrong (the gap attack); augmented copies (adversary.privacy.membership_label_only)

Whoever has the true label sees whether the answer is right. Members are right more often, so with labels kept nothing
that uses the true label falls below the gap attack; beside it stands what the loss tells among right answers alone.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adversary.attack import Array
from adversary.data import cifar10
from adversary.gradients import one_thread
from adversary.privacy import membership_label_only, shadows
from adversary.scores import rate
from bench.answers.served import BARE, Guarded, Subject, Victim, Way, overfitted, profile, said, way
from bench.outputs import calibration_error, spread

SEED = 0
WAYS = (
    BARE, way("membership_noise"), way("membership_noise", eps=0.2), way("label_only"), way("top_k", k=1),
    way("rounding"), way("temperature"), way("aaa"), way("aaa", period=4.0), way("modelguard"),
)  # fmt: skip
ANSWER, WITH_LABEL = ("confidence", "entropy", "sorted"), ("loss", "modified entropy")
_LEAST = 1e-30
_SHOWN, _FLOOR = 3, -14.0  # of the sorted answer
_ELSE = b"the attacker's own copy of Guard has another secret"


@dataclass(frozen=True, slots=True)
class Scale:
    """candidates: 0: all; shadows, and what they learn from; label_only: candidates, copies of each; resamples."""

    candidates: int = 0
    shadows: int = 1
    own: int = 5000
    epochs: int = 30
    label_only: int = 1000
    copies: int = 30
    resamples: int = 300
    ways: tuple[Way, ...] = WAYS


def measured(scale: Scale | None = None) -> dict[str, Any]:
    """Every way, and the attack by labels."""
    scale = Scale() if scale is None else scale
    on = overfitted()
    half = (scale.candidates or len(on.x)) // 2
    on = part(on, half)
    pool = cifar10.load().pool
    own_x, own_y = cifar10.unit(pool.images[: scale.own]), pool.labels[: scale.own].astype(np.int64)
    with one_thread():
        known = shadows.train(own_x, own_y, count=scale.shadows, epochs=scale.epochs, rng=np.random.default_rng(SEED))
        told = [one.oracle.probabilities(own_x) for one in known]
        learned = Known(own_x, np.concatenate([np.asarray(one) for one in told]),
                        np.concatenate([one.inside for one in known]))  # fmt: skip
        bare = said(on.model.logits(on.x), "probabilities")
        ways = {str(one): _of(on, one, bare, learned, scale) for one in scale.ways}
        labels = _by_labels(on, own_x, own_y, scale)
    return {
        "members": half, "others": half, "own": len(on.own), "seed": SEED, "ways": ways, "labels": labels,
        "accuracy": {"members": rate(bare[:half].argmax(axis=1) == on.y[:half]).plain(),
                     "others": rate(bare[half:].argmax(axis=1) == on.y[half:]).plain()},
    }  # fmt: skip


def part(on: Subject, half: int) -> Subject:
    """So many members, and as many others."""
    middle = len(on.x) // 2
    rows = np.concatenate([np.arange(half), middle + np.arange(half)])
    return Subject(on.name, on.model, on.x[rows], on.y[rows], on.own, on.classes)


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What shadows say of the attacker's inputs, one shadow after the other, and which of these they learned from."""

    x: Array
    probs: Array
    inside: Array

    def behind(self, on: Subject, protection: Way) -> Array:
        """Their answers, protected as the victim's are, under another secret."""
        guarded = Guarded.of(profile(on, protection, "probabilities"), protection, _ELSE)
        answers = self.probs.astype(np.float32)
        x = np.concatenate([self.x] * (len(answers) // len(self.x)))
        return guarded.many(x, answers)


def _of(on: Subject, protection: Way, bare: Array, known: Known, scale: Scale) -> dict[str, Any]:
    told = Victim.of(on, protection).guarded.many(on.x, bare)
    half = len(told) // 2
    judge = shadows.judge(ordered(known.behind(on, protection)), known.inside, np.random.default_rng(SEED))
    scores = {
        "confidence": told.max(axis=1), "entropy": -entropy(told), "sorted": judge(ordered(told)),
        "loss": told[np.arange(len(told)), on.y], "modified entropy": -modified_entropy(told, on.y),
    }  # fmt: skip
    right = told.argmax(axis=1) == on.y
    among = scores["loss"][:half][right[:half]], scores["loss"][half:][right[half:]]
    areas = {name: interval(score[:half], score[half:], scale.resamples) for name, score in scores.items()}
    areas["right or wrong"] = interval(right[:half] * 1.0, right[half:] * 1.0, scale.resamples)
    areas["loss, right answers alone"] = interval(*among, scale.resamples)
    shown = ", ".join(f"{name} {one['value']:.3f}" for name, one in areas.items())
    sys.stderr.write(f"{protection}: {shown}\n")
    others = told[half:].astype(np.float64)
    return {
        "changed": rate(told.argmax(axis=1) != bare.argmax(axis=1)).plain(), "auroc": areas,
        "calibration_error": calibration_error(others, on.y[half:]), "interval_95": list(spread(others, on.y[half:])),
    }  # fmt: skip


def entropy(probs: Array) -> Array:
    """(N, C) -> (N,)."""
    p = np.asarray(probs, np.float64)
    return np.asarray(-(p * np.log(np.maximum(p, _LEAST))).sum(axis=1))


def modified_entropy(probs: Array, y: Array) -> Array:
    """(N, C), (N,) -> (N,): small where the true label is sure and the others are not."""
    p = np.asarray(probs, np.float64)
    own = np.eye(p.shape[1], dtype=bool)[y]
    log, log_not = np.log(np.maximum(p, _LEAST)), np.log(np.maximum(1.0 - p, _LEAST))
    return np.asarray(np.where(own, -(1.0 - p) * log, -p * log_not).sum(axis=1))


def ordered(probs: Array) -> Array:
    """(N, C) -> (N, 3) in [0, 1]: the largest probabilities' logarithms, and the largest one's shortfall from 1."""
    p = -np.sort(-np.asarray(probs, np.float64), axis=1)
    first = np.maximum(1.0 - p[:, :1], np.exp(_FLOOR))
    logs = np.log(np.maximum(np.concatenate([first, p[:, 1:_SHOWN]], axis=1), np.exp(_FLOOR)))
    return np.asarray(1.0 - logs / _FLOOR, np.float32)


def auroc(members: Array, others: Array) -> float:
    """That a member scores higher than another, ties half."""
    both = np.concatenate([members, others])
    _, at, count = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[at.ravel()]
    n = len(members)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(others)))


def interval(members: Array, others: Array, resamples: int) -> dict[str, Any]:
    """With the 95 % bootstrap, members and others drawn apart."""
    rng = np.random.default_rng(SEED)
    drawn = [auroc(rng.choice(members, len(members)), rng.choice(others, len(others))) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": auroc(members, others), "interval_95": [float(low), float(high)],
            "n": [len(members), len(others)]}  # fmt: skip


class _Labels:
    """A label oracle of the bare victim, which every protection that keeps labels answers like."""

    def __init__(self, ask: Callable[[Array], Array]) -> None:
        self._ask = ask

    def labels(self, x: Array) -> Array:
        """(N, ...) -> (N,)."""
        return np.asarray(self._ask(np.asarray(x, np.float32)).argmax(axis=1), np.int64)


def _by_labels(on: Subject, own_x: Array, own_y: Array, scale: Scale) -> Mapping[str, Any]:
    few = part(on, min(scale.label_only, len(on.x)) // 2)
    guesses = membership_label_only.attack(
        _Labels(Victim.of(few, BARE)), few.x, few.y, budget=scale.copies, rng=np.random.default_rng(SEED),
        own_x=own_x, own_y=own_y, epochs=scale.epochs, known=min(1000, len(own_x)),
    )  # fmt: skip
    half = len(few.x) // 2
    return {"copies": scale.copies, "auroc": interval(guesses.scores[:half], guesses.scores[half:], scale.resamples)}
