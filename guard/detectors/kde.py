"""Kernel density: how far the auxiliary's features lie from clean inputs that the served model answers alike.

Source:  Feinman, Curtin, Shintre, Gardner 2017, arXiv:1703.00410 (Gaussian kernels on the last hidden layer among
         training inputs of the predicted class).
Answers: inputs whose answer is not that of their neighbours (AUROC 0.7 to 0.8 on CIFAR-10, where `pid` has more).
         Known bypass: an attack that lowers the score as well (Carlini, Wagner 2017, arXiv:1705.07263): unfit as the
         only defence.
Args:    x: (N, ...) unit form, probs: (N, C), rows sum to 1. Learns a reference of at most `rows` clean rows, classes
         in turn by the served model's answers. An answer that the reference lacks is held against all of it.
Returns: (N,) minus the logarithm of the mean kernel, at least 0; higher = more suspicious.
Cost:    one pass of the auxiliary network, then about 0.2 ms a row (2,000 x 128); no upstream row.
         Array: (rows, F) float16, at most 2 MB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from guard.features import AUXILIARY, FEWEST_ROWS, at_work, features_of, learn_features, squared_distances
from guard.registry import register
from guard.types import Array, Equipment, Material, Network


@register("detector", "kde")
@dataclass(frozen=True)
class KernelDensity:
    """bandwidth: of the kernels, in units of the features; None: the median distance to the nearest of one's class."""

    needs: ClassVar[tuple[str, ...]] = (AUXILIARY,)
    bandwidth: Annotated[float, Field(gt=0)] | None = None
    rows: Annotated[int, Field(ge=FEWEST_ROWS, le=2000)] = 2000

    def learn(self, material: Material) -> Mapping[str, Array]:
        """The reference's features and classes, and the bandwidth. Raises ValueError: too few rows, labels only."""
        if material.probs is None:
            raise ValueError("it needs the model's answer to each input, and this model answers with labels only")
        features, labels, arrays = learn_features(material, self.rows)
        scale = max(float(np.abs(features).max()), 1e-6)
        width = self.bandwidth or _nearest_of_class(features, labels)
        return {
            **arrays,
            "reference": (features / scale).astype(np.float16),
            "labels": labels.astype(np.int32),
            "scale": np.asarray([scale], dtype=np.float32),
            "bandwidth": np.asarray([width / scale], dtype=np.float32),
        }

    def equip(self, equipment: Equipment) -> "_Working":
        """The detector at work."""
        return _Working(equipment.networks[AUXILIARY], at_work(equipment.arrays))


@dataclass(frozen=True, eq=False)
class _Working:
    network: Network
    arrays: Mapping[str, Array]

    def score_answer(self, x: Array, probs: Array) -> Array:
        """(N, ...) unit form, (N, C) -> (N,)."""
        features = features_of(self.network, x, self.arrays) / self.arrays["scale"]
        squared = squared_distances(features, self.arrays["reference"])
        alike = self.arrays["labels"][None] == probs.argmax(axis=1)[:, None]
        alike |= ~alike.any(axis=1, keepdims=True)
        exponents = np.where(alike, -squared / (2 * float(self.arrays["bandwidth"][0]) ** 2), -np.inf)
        largest = exponents.max(axis=1, keepdims=True)
        total = np.log(np.exp(exponents - largest).sum(axis=1)) + largest[:, 0]
        return np.asarray(np.log(alike.sum(axis=1)) - total)


def _nearest_of_class(features: Array, labels: Array) -> float:
    """The median over rows of the distance to the nearest other row of the same class."""
    squared = squared_distances(features, features)
    squared[labels[:, None] != labels[None]] = np.inf
    np.fill_diagonal(squared, np.inf)
    nearest = squared.min(axis=1)
    found = np.sqrt(nearest[np.isfinite(nearest)])
    return max(float(np.median(found)), 1e-6) if len(found) else 1.0
