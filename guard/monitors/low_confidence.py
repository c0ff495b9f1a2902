"""How unsure the served model is of each answer, compared with its answers of the same class to clean inputs.

Source:  HODA, Sadeghzadeh et al. 2021, arXiv:2106.11424 (queries that steal a model are harder than benign ones; there
         hardness needs the model's earlier epochs, here it is read from the answer).
Answers: extraction by synthetic or foreign inputs, boundary attacks that stay near ties.
         Known bypass: queries that the model is sure of, as generators of data-free thieves learn to make, and small
         noise on natural images (MNIST at 0.1: 1 of 10 callers crosses ln 1,000 within 1,000 queries, seed 0).
Args:    probs: (N, C) rows that sum to 1. Learns, for each class that has enough clean rows, the quantiles of the odds
         against the answer: a caller who asks only about a hard class is no attacker.
Returns: (N,) about -ln of the share of clean rows of the same answer that are less sure; higher = less sure.
Cost:    0.02 ms a row; no upstream row. Arrays: at most 101 x 7 numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from guard.monitors._clean import FEWEST_OF_GROUP, Groups, ranked, tail_curves
from guard.registry import register
from guard.types import Array, Equipment, Material, Past, Seen

_LEAST = 1e-9


@register("monitor", "low_confidence")
@dataclass(frozen=True)
class LowConfidence:
    """No options."""

    def learn(self, material: Material) -> Mapping[str, Array]:
        """The quantiles by class. Raises ValueError: too few rows, labels only."""
        if material.probs is None:
            raise ValueError("it needs the probability of each answer, and this model answers with labels only")
        if len(material.probs) < FEWEST_OF_GROUP:
            raise ValueError(f"learns from at least {FEWEST_OF_GROUP} clean rows, and there are {len(material.probs)}")
        labels = material.probs.argmax(axis=1).astype(np.int64)
        groups = Groups.of(labels)
        return {"classes": groups.known, "curves": tail_curves(_against(material.probs), labels, groups)}

    def equip(self, equipment: Equipment) -> "_Working":
        """The monitor at work."""
        arrays = equipment.arrays
        return _Working(Groups(arrays["classes"].astype(np.int64)), arrays["curves"].astype(np.float64))


@dataclass(frozen=True, eq=False)
class _Working:
    groups: Groups
    curves: Array

    def judge_answers(self, rows: tuple[Seen, ...], past: Past, probs: Array) -> Array:
        """(N, C) -> (N,)."""
        del rows, past
        return ranked(_against(probs), self.groups.at(probs.argmax(axis=1)), self.curves)


def _against(probs: Array) -> Array:
    """(N, C) -> (N,) the logarithm of the odds against the likeliest class."""
    best = np.minimum(np.maximum(probs.max(axis=1).astype(np.float64), _LEAST), 1.0 - _LEAST)
    return np.asarray(np.log1p(-best) - np.log(best))
