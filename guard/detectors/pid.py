"""PID: prediction inconsistency: how unlikely the auxiliary network finds what the served model answers.

Adversarial examples made for one network seldom move an adversarially trained other one the same way. How far the two
disagree on clean inputs depends on how sure the served model is, so the default measure weighs both: the odds of an
answer that was flipped against an honest one. Honest are the answers to clean inputs; flipped ones are made up from
them: the served model's second choice put first, by a margin from hair's breadth to far more than it ever is. No attack
is run to learn this.

Source:  Han, Lin, Zhao, Wang, He, Li, Wang, Wang, Shen 2025, arXiv:2506.03765 (an auxiliary gives the primary model's
         label of an adversarial example a low confidence); the odds are this project's.
Answers: static and transferred evasion of any norm. Known bypass: attacks that fool both networks at once and end
         with the confidence of clean inputs; an adversarially trained auxiliary makes those dear, not impossible.
Args:    x: (N, ...) unit form, probs: (N, C), rows sum to 1.
Returns: (N,), higher = more suspicious.
Cost:    one pass of the auxiliary network, then about 0.1 ms a batch; no upstream row. Arrays: less than 1 KB.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from guard.detectors._answers import jensen_shannon, log_of, log_softmax
from guard.detectors._odds import learn_odds, log_odds
from guard.features import AUXILIARY, FEWEST_ROWS, logits_of
from guard.registry import register
from guard.types import Array, Equipment, Material, Network

Measure = Literal["odds", "log_probability", "margin", "cross_entropy", "divergence"]

_MOST_ROWS = 20_000
_COPIES = 3
_NARROW, _WIDE, _FAR = 1e-3, 2.0, 20.0  # margins of flipped answers, nats
_NARROW_SHARE = 1 / 3
_SURE = 15.0  # a larger margin says no more


@register("detector", "pid")
@dataclass(frozen=True)
class Pid:
    """measure: of the inconsistency; temperature: of the auxiliary's softmax.

    odds:            natural logarithm of the odds that the answer was flipped; learned.
    log_probability: minus the auxiliary's log-probability of the served model's label, in [0, inf).
    margin:          the auxiliary's log-probability of its own label less that of the served model's, in [0, inf).
    cross_entropy:   of the served model's whole answer in the auxiliary's, [0, inf).
    divergence:      Jensen-Shannon, of the two answers, in [0, ln 2].
    """

    needs: ClassVar[tuple[str, ...]] = (AUXILIARY,)
    measure: Measure = "odds"
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0

    @property
    def learn(self) -> Callable[[Material], Mapping[str, Array]] | None:
        """What the odds take; None for the other measures."""
        return self._learn if self.measure == "odds" else None

    def _learn(self, material: Material) -> Mapping[str, Array]:
        """Raises ValueError: too few rows, labels only."""
        if material.probs is None:
            raise ValueError("it needs the model's answer to each input, and this model answers with labels only")
        if len(material.x) < FEWEST_ROWS:
            raise ValueError(f"learns from at least {FEWEST_ROWS} clean rows, and there are {len(material.x)}")
        rng = np.random.default_rng(material.seed)
        rows = np.sort(rng.permutation(len(material.x))[:_MOST_ROWS])
        probs = material.probs[rows]
        auxiliary = _log_probs(material.networks[AUXILIARY], material.x[rows], probs, self.temperature)
        best, second = np.argsort(probs, axis=1)[:, :-3:-1].T
        honest = _evidence(auxiliary, best, _margin(probs))
        flipped = [_evidence(auxiliary, second, _made_up(len(rows), rng)) for _ in range(_COPIES)]
        return learn_odds(honest, np.concatenate(flipped))

    def equip(self, equipment: Equipment) -> "_Working":
        """The detector at work."""
        return _Working(self.measure, self.temperature, equipment.networks[AUXILIARY], equipment.arrays)


@dataclass(frozen=True, eq=False)
class _Working:
    measure: Measure
    temperature: float
    auxiliary: Network
    arrays: Mapping[str, Array]

    def score_answer(self, x: Array, probs: Array) -> Array:
        """(N, ...) unit form, (N, C) -> (N,). Raises ValueError where the networks disagree about the classes."""
        log_probs = _log_probs(self.auxiliary, x, probs, self.temperature)
        label = probs.argmax(axis=1)
        if self.measure == "odds":
            return log_odds(_evidence(log_probs, label, _margin(probs)), self.arrays)
        if self.measure == "cross_entropy":
            return np.asarray(-(probs * log_probs).sum(axis=1))
        if self.measure == "divergence":
            return jensen_shannon(log_probs, log_of(probs))
        of_label = log_probs[np.arange(len(x)), label]
        return np.asarray(log_probs.max(axis=1) - of_label if self.measure == "margin" else -of_label)


def _log_probs(auxiliary: Network, x: Array, probs: Array, temperature: float) -> Array:
    """The auxiliary's log-probabilities, (N, C) as the served model's."""
    logits = logits_of(auxiliary, x)
    if logits.shape != probs.shape:
        raise ValueError(f"the auxiliary network has {logits.shape[1]} classes, the model {probs.shape[1]}")
    if probs.shape[1] < 2:  # noqa: PLR2004 - with one class there is nothing to disagree about
        raise ValueError("the model has one class")
    return log_softmax(logits, temperature)


def _margin(probs: Array) -> Array:
    """(N, C) -> (N,) by how many nats the served model's label leads."""
    second, best = np.partition(log_of(probs), [-2, -1], axis=1)[:, -2:].T
    return np.asarray(best - second)


def _made_up(rows: int, rng: np.random.Generator) -> Array:
    """(rows,) margins: some of attacks that stop at the boundary, most of any size, larger than honest ones too."""
    narrow = np.exp(rng.uniform(np.log(_NARROW), np.log(_WIDE), rows))
    return np.where(rng.random(rows) < _NARROW_SHARE, narrow, rng.uniform(0, _FAR, rows))


def _evidence(auxiliary: Array, label: Array, margin: Array) -> Array:
    """(N, C) log-probabilities, (N,) served labels and their margins -> (N, 3)."""
    rows = np.arange(len(label))
    rivals = auxiliary.copy()
    rivals[rows, label] = -np.inf
    lead = rivals.max(axis=1) - auxiliary[rows, label]  # the auxiliary's, of its best other class
    return np.stack([lead, np.log(margin + 0.05), np.minimum(margin, _SURE) / 5], axis=1)
