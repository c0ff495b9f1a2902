"""ModelGuard-S: answers replaced by one of few that `guard fit` learned, within a budget of distortion.

Source:  Tang, Dai, DiValentin, Ding, Hass, Gong, Chen 2024, USENIX Security (ModelGuard). Quantising makes the mutual
         information between answers and what is told of them small, whatever the thief's training or his recovery of
         perturbed answers: no thief needs to be imagined. Each class has centres, grown with k-means until all clean
         answers lie within eps in L1; an answer becomes the first centre, the one that stands for most clean answers
         first, within eps of it. Theirs adds a centre where none is near, as it serves; here nothing is remembered:
         such an answer is moved towards its nearest centre by eps and no further.
Not built: ModelGuard-W, which solves a linear programme a row against a thief who takes answers at their word, and MAD
         (Orekondy, Schiele, Fritz 2020, arXiv:1906.10908), which needs a surrogate's gradients for each answer: both
         are undone by the recoveries (D-DAE, pBayes) that the quantiser was made against, and cost more.
Answers: extraction by soft labels, recovery of what is hidden, small steps of score-based attacks (most do not show).
         Known bypass: extraction by hard labels; an answer outside eps of all centres still tells which way it lies.
Args:    probs: (N, C), rows sum to 1; suspicion: (N,) bool, rows to protect.
Returns: (N, C), rows sum to 1, L1 to what was there at most eps. Arrays: centres (K, C) float32, at most 4 MB, their
         classes; of a class without clean answers the one centre is flat but for the clean answers' mean confidence.
Cost:    40 us a batch; a row of ten classes 1 us, of a thousand 30 us. Learning takes a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from guard.outputs import _rows
from guard.registry import register
from guard.types import Array, Bools, Equipment, Material

_MAX_ROWS = 1000  # of a class, to learn from
_MAX_CENTRES = 64  # of a class
_MAX_BYTES = 4 * 1024**2
_ROUNDS = 5  # of k-means after each new centre
_SLACK = 1e-6  # centres are float32


@register("output", "modelguard")
@dataclass(frozen=True)
class ModelGuard:
    """eps: the most that an answer may be moved, in L1 (2 is everything)."""

    eps: Annotated[float, Field(gt=0, le=2)] = 1.0

    def learn(self, material: Material) -> Mapping[str, Array]:
        """The centres of each class, the one for most answers first."""
        probs = _rows.answers_of(material)
        top = probs.argmax(axis=1)
        most = max(1, _MAX_BYTES // (4 * probs.shape[1]) // max(1, len(np.unique(top))))
        found = [
            _centres(probs[top == label][:_MAX_ROWS], self.eps, min(most, _MAX_CENTRES)) for label in np.unique(top)
        ]
        labels = np.repeat(np.unique(top), [len(centres) for centres in found])
        return {
            "centres": np.concatenate(found).astype(np.float32),
            "labels": labels.astype(np.int32),
            "confidence": np.array(probs.max(axis=1).mean()),
        }

    def equip(self, equipment: Equipment) -> "_Working":
        """With the centres."""
        arrays = equipment.arrays
        return _Working(self.eps, _rows.exact(arrays["centres"]), arrays["labels"], float(arrays["confidence"]))


@dataclass(frozen=True, eq=False)
class _Working:
    eps: float
    centres: NDArray[np.float64]
    labels: Array
    confidence: float

    def protect(self, probs: Array, suspicion: Bools) -> Array:
        """(N, C), (N,) -> (N, C)."""
        _rows.require_classes(probs, self.centres.shape[1])
        rows = np.flatnonzero(suspicion)
        p = _rows.exact(probs[rows])
        top, made = p.argmax(axis=1), np.empty_like(p)
        for label in np.unique(top):
            of = top == label
            made[of] = _quantised(p[of], self._centres_of(int(label)), self.eps)
        return _rows.replaced(probs, rows, made, top)

    def _centres_of(self, label: int) -> NDArray[np.float64]:
        own = np.asarray(self.centres[self.labels == label])
        if len(own):
            return own
        classes = self.centres.shape[1]
        flat = np.full((1, classes), (1 - self.confidence) / max(1, classes - 1))
        flat[0, label] = self.confidence
        return flat


def _quantised(p: NDArray[np.float64], centres: NDArray[np.float64], eps: float) -> NDArray[np.float64]:
    """(M, C) of one class -> the first centre within eps, else eps of the way to the nearest."""
    far = _distances(p, centres)
    near = far <= eps + _SLACK
    within = np.asarray(near.any(axis=1))
    chosen = np.where(within, near.argmax(axis=1), far.argmin(axis=1))
    share = eps / np.maximum(far[np.arange(len(p)), chosen], eps).reshape(-1, 1)
    moved = p + share * (centres[chosen] - p)
    return np.asarray(np.where(within.reshape(-1, 1), centres[chosen], moved))  # no last bit tells what was there


def _distances(p: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M, C), (K, C) -> (M, K) in L1."""
    return np.stack([np.abs(p - centre).sum(axis=1) for centre in centres], axis=1)


def _centres(probs: NDArray[np.float64], eps: float, most: int) -> NDArray[np.float64]:
    """(M, C) clean answers of one class -> (K, C): more and more centres until each answer lies within eps of one."""
    centres = probs.mean(axis=0, keepdims=True)
    while True:
        for _ in range(_ROUNDS):
            owner = _distances(probs, centres).argmin(axis=1)
            centres = np.stack([probs[owner == i].mean(axis=0) for i in np.unique(owner)])
        far = _distances(probs, centres).min(axis=1)
        if far.max() <= eps or len(centres) == most:
            break
        centres = np.concatenate([centres, probs[[far.argmax()]]])
    stands_for = (_distances(probs, centres) <= eps).sum(axis=0)
    return np.asarray(centres[np.argsort(-stands_for, kind="stable")])
