"""What monitors on embeddings keep of clean inputs, and how they hold each row against those that are answered alike.

A *group* is a class that has enough clean rows to speak for itself; group 0 is all of them, and stands in for classes
that have not. So a caller who asks about one kind of thing is compared with that kind of thing.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guard.features import AUXILIARY, FEWEST_ROWS, in_turn
from guard.types import Array, Floats, Material

FEWEST_OF_GROUP = 40
MOST_GROUPS = 100
_LEVELS = np.array([0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98])
_RANKS: list[float] = (-np.log1p(-_LEVELS)).tolist()
_LEAST_STEP = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """known: (G - 1,) the classes that are groups of their own, ascending; group i + 1 is known[i]."""

    known: NDArray[np.int64]

    @classmethod
    def of(cls, labels: NDArray[np.int64], fewest: int = FEWEST_OF_GROUP) -> "Groups":
        """The classes with at least so many rows; none where there would be more than MOST_GROUPS."""
        classes, counts = np.unique(labels, return_counts=True)
        known = classes[counts >= fewest]
        return cls(known.astype(np.int64) if len(known) <= MOST_GROUPS else np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.known) + 1

    def at(self, labels: Array) -> NDArray[np.int64]:
        """(N,) labels -> (N,) groups."""
        if not len(self.known):
            return np.zeros(len(labels), np.int64)
        place = np.minimum(self.known.searchsorted(labels), len(self.known) - 1)
        return np.asarray((place + 1) * (self.known[place] == labels), dtype=np.int64)

    def members(self, labels: Array) -> NDArray[np.float64]:
        """(N,) labels -> (G, N) weights that average over each group's rows; each row sums to 1."""
        group = self.at(labels)
        chosen = (np.arange(len(self))[:, None] == group[None]) | (np.arange(len(self)) == 0)[:, None]
        return np.asarray(chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1))


def clean_labels(material: Material) -> NDArray[np.int64]:
    """(N,) the served model's answers, the auxiliary's where it answers with labels only. Raises ValueError."""
    if len(material.x) < FEWEST_ROWS:
        raise ValueError(f"learns from at least {FEWEST_ROWS} clean rows, and there are {len(material.x)}")
    answers = material.networks[AUXILIARY](material.x)["logits"] if material.probs is None else material.probs
    return np.asarray(answers.argmax(axis=1), dtype=np.int64)


def clean_embeddings(material: Material, most: int) -> tuple[Floats, NDArray[np.int64]]:
    """(R, E) float16 embeddings of at most so many clean rows, classes in turn, and their (R,) labels."""
    labels = clean_labels(material)
    rows = in_turn(labels, most, material.seed)
    return embedding_of(material.networks[AUXILIARY](material.x[rows])).astype(np.float16), labels[rows]


def embedding_of(answer: Mapping[str, Array]) -> Floats:
    """The embedding among a network's outputs. Raises ValueError where it has none."""
    if "embedding" not in answer:
        raise ValueError("the auxiliary network has no output 'embedding'")
    return np.asarray(answer["embedding"], dtype=np.float32)


def tail_curves(scores: Array, labels: Array, groups: Groups) -> NDArray[np.float64]:
    """(N,) scores of clean rows -> (G, Q) the scores at fixed quantiles of each group, strictly ascending."""
    group = groups.at(labels)
    parts = [scores, *(scores[group == i] for i in range(1, len(groups)))]
    curves = np.stack([np.quantile(part, _LEVELS) for part in parts])
    step = _LEAST_STEP * max(1.0, float(np.abs(curves).max()))
    rising: NDArray[np.float64] = np.maximum.accumulate(curves, axis=1) + step * np.arange(len(_LEVELS))
    return rising


def ranked(scores: Array, group: NDArray[np.int64], curves: Array) -> NDArray[np.float64]:
    """(N,) scores -> (N,) about -ln of the share of their group's clean rows above; straight lines at both ends."""
    found = [_rank(score, curve) for score, curve in zip(scores.tolist(), curves[group].tolist(), strict=True)]
    return np.array(found, dtype=np.float64)


def _rank(score: float, curve: list[float]) -> float:
    last = min(max(bisect_left(curve, score), 1), len(curve) - 1)
    slope = (_RANKS[last] - _RANKS[last - 1]) / (curve[last] - curve[last - 1])
    return _RANKS[last] + slope * (score - curve[last])
