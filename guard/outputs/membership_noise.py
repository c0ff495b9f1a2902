"""Membership noise: confidences of a clean answer in place of the answer's own, so that members look like others.

Source:  Jia, Salem, Backes, Zhang, Gong 2019, arXiv:1909.10594 (MemGuard): noise that leaves a membership classifier at
         0.5 and the label as it is, added with the probability that keeps the expected L1 distortion within eps, the
         same noise for the same query. Theirs is crafted against a classifier trained on the members. Here nobody is
         told who is a member: the answer's probabilities, sorted, are replaced by those of a clean answer that a secret
         and a coarse digest of the input draw, from answers of the same class where 16 or more were learned, and each
         class keeps its rank. What is drawn does not hang on what was there, so that no classifier of confidences does
         better than by chance on replaced rows. It is more noise than their least, and its price is calibration.
Answers: membership inference by confidence, entropy, or a classifier over sorted answers (Shokri et al. 2017,
         arXiv:1610.05820; Salem et al. 2019). Known bypass: inference by label alone (Choquette-Choo et al. 2021,
         arXiv:2007.14321), by the gap between training and test accuracy (Yeom et al. 2018), by whether inputs nearby
         keep their label; with a small eps the rows that keep their answer; an average over inputs nearby.
Args:    x: (N, ...) the inputs; probs: (N, C), rows sum to 1; suspicion: (N,) bool, rows to protect.
Returns: (N, C), rows sum to 1, the order of classes kept. Arrays: profiles (R, C) float32, at most 2 MB, their classes.
         Learn from inputs that the model was not trained on, else others are made to look like members.
Cost:    50 us a batch; a row of ten classes 20 us (the digest of 32x32x3), of a thousand 80 us.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from guard import keyed
from guard.outputs import _rows
from guard.registry import register
from guard.types import Array, Bools, Equipment, Material

_MAX_BYTES = 2 * 1024**2
_MAX_PROFILES = 10_000
_ENOUGH = 16  # of one class


@register("output", "membership_noise")
@dataclass(frozen=True)
class MembershipNoise:
    """eps: the expected L1 distortion of an answer; from 2 on every answer is replaced."""

    eps: Annotated[float, Field(gt=0, le=2)] = 2.0

    def learn(self, material: Material) -> Mapping[str, Array]:
        """Sorted clean answers and their classes."""
        probs = _rows.answers_of(material)
        most = min(_MAX_PROFILES, max(1, _MAX_BYTES // (4 * probs.shape[1])))
        kept = np.random.default_rng(material.seed).permutation(len(probs))[:most]
        profiles = -np.sort(-probs[kept], axis=1)
        return {"profiles": profiles.astype(np.float32), "labels": probs[kept].argmax(axis=1).astype(np.int32)}

    def equip(self, equipment: Equipment) -> "_Working":
        """With the profiles, and the secret that draws among them."""
        profiles, labels = _rows.exact(equipment.arrays["profiles"]), equipment.arrays["labels"]
        return _Working(self.eps, profiles, labels, equipment.secret)


@dataclass(frozen=True, eq=False)
class _Working:
    eps: float
    profiles: NDArray[np.float64]
    labels: Array
    secret: bytes

    def protect_keyed(self, x: Array, probs: Array, suspicion: Bools) -> Array:
        """(N, ...), (N, C), (N,) -> (N, C)."""
        _rows.require_classes(probs, self.profiles.shape[1])
        rows = np.flatnonzero(suspicion)
        p = _rows.exact(probs[rows])
        order = np.argsort(-p, axis=1, kind="stable")
        draws = [draw.random(2) for draw in keyed.generators(x[rows], self.secret)]
        chance = np.array(draws).reshape(-1, 2)
        made = np.empty_like(p)
        np.put_along_axis(made, order, self._profiles_of(order[:, 0], chance[:, 0]), axis=1)
        far = np.abs(made - p).sum(axis=1)
        noisy = chance[:, 1] * far < self.eps  # with probability min(1, eps / far)
        return _rows.replaced(probs, rows[noisy], made[noisy], order[noisy, 0])

    def _profiles_of(self, labels: Array, chance: Array) -> NDArray[np.float64]:
        """(N,) classes, (N,) in [0, 1) -> (N, C) a drawn profile each."""
        chosen = np.empty(len(labels), np.int64)
        for label in np.unique(labels):
            of = labels == label
            own = np.flatnonzero(self.labels == label)
            own = own if len(own) >= _ENOUGH else np.arange(len(self.profiles))
            chosen[of] = own[(chance[of] * len(own)).astype(np.int64)]
        return np.asarray(self.profiles[chosen])
