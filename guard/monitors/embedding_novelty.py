"""How far each row lies, in the auxiliary's embedding, from clean inputs that the served model answers alike.

Source:  FDINet, Yao et al. 2023, arXiv:2306.11338 (distortion of features as evidence of extraction; there of all
         layers against class anchors, here the mean distance to the nearest clean rows of one embedding).
Answers: extraction with foreign natural images (Knockoff, CopycatCNN), generated ones and noise.
         Known bypass: images of the model's own kind, and images made to lie near them: nothing is out of place there.
Args:    rows: sketches with embeddings, (E,) of length 1. probs: (N, C). Learns the embeddings and answers of at most
         `rows` clean rows, and how far these lie from each other, class by class.
Returns: (N,) about -ln of the share of clean rows of the same answer that lie farther out; higher = more out of place.
Cost:    0.03 ms a row (2,000 x 64); no upstream row. Array: (rows, E) float16, at most 256 KB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from guard.features import AUXILIARY
from guard.monitors._clean import FEWEST_OF_GROUP, Groups, clean_embeddings, ranked, tail_curves
from guard.registry import register
from guard.types import Array, Equipment, Material, Past, Seen


@register("monitor", "embedding_novelty")
@dataclass(frozen=True)
class EmbeddingNovelty:
    """neighbours: nearest clean rows whose distance is averaged; rows: kept of the clean ones."""

    needs: ClassVar[tuple[str, ...]] = (AUXILIARY,)
    neighbours: Annotated[int, Field(ge=1, le=20)] = 5
    rows: Annotated[int, Field(ge=FEWEST_OF_GROUP, le=2000)] = 2000

    def learn(self, material: Material) -> Mapping[str, Array]:
        """The reference, and each class's quantiles of a row's distance to the others. Raises ValueError."""
        reference, labels = clean_embeddings(material, self.rows)
        if len(reference) < FEWEST_OF_GROUP:
            raise ValueError(f"learns from at least {FEWEST_OF_GROUP} clean rows, and there are {len(reference)}")
        groups = Groups.of(labels)
        distances = _distances(reference, labels, reference, labels, groups, self.neighbours, others=True)
        curves = tail_curves(distances, labels, groups)
        return {"reference": reference, "labels": labels, "classes": groups.known, "curves": curves}

    def equip(self, equipment: Equipment) -> "_Working":
        """The monitor at work."""
        arrays = equipment.arrays
        reference, labels = arrays["reference"].astype(np.float64), arrays["labels"].astype(np.int64)
        groups = Groups(arrays["classes"].astype(np.int64))
        known = groups.at(labels)
        parts = (reference, *(reference[known == i] for i in range(1, len(groups))))
        return _Working(self.neighbours, parts, groups, arrays["curves"].astype(np.float64))


@dataclass(frozen=True, eq=False)
class _Working:
    """parts: (R, E) float64 a group."""

    neighbours: int
    parts: tuple[Array, ...]
    groups: Groups
    curves: Array

    def judge_answers(self, rows: tuple[Seen, ...], past: Past, probs: Array) -> Array:
        """(N, C) -> (N,)."""
        del past
        if not rows:
            return np.zeros(0)
        embedded = np.array([row.sketch.embedding for row in rows], dtype=np.float64)
        group, found = self.groups.at(probs.argmax(axis=1)), np.empty(len(rows))
        for one in set(group.tolist()):
            own = group == one
            found[own] = _least(2.0 - 2.0 * embedded[own] @ self.parts[one].T, self.neighbours)
        return ranked(found, group, self.curves)


def _distances(
    some: Array, labels: Array, reference: Array, known: Array, groups: Groups, k: int, *, others: bool = False
) -> Array:
    """(N,) the mean distance to the k nearest of the same group. others: `some` is the reference itself."""
    squared = 2.0 - 2.0 * some.astype(np.float64) @ reference.astype(np.float64).T
    own = groups.at(labels)[:, None]
    squared[(own != groups.at(known)[None]) & (own != 0)] = np.inf
    if others:
        np.fill_diagonal(squared, np.inf)
    return _least(squared, k)


def _least(squared: Array, k: int) -> Array:
    """(N, R) squared distances -> (N,) the mean of the k least."""
    least = np.partition(squared, k - 1, axis=1)[:, :k]
    return np.asarray(np.sqrt(np.maximum(least, 0.0)).sum(axis=1) / k)
