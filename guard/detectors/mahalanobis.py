"""Mahalanobis distance of the auxiliary network's features to the nearest class of clean inputs.

Source:  Lee, Lee, Lee, Shin 2018, arXiv:1807.03888 (class means, one covariance; here of one layer, without their
         logistic regression on attacks); relative: Ren et al. 2021, arXiv:2106.09022.
Answers: inputs unlike any clean class, such as digits sent to a model of photographs. Known bypass: attacks that match
         the features (Carlini, Wagner 2017, arXiv:1705.07263, for its kin). Small perturbations it does not see: they
         move the features of an adversarially trained network too little (AUROC about 0.5 on CIFAR-10 at 8/255).
Args:    x: (N, ...) unit form. Learns from at most 20,000 clean rows; at most 512 features, wider ones projected.
Returns: (N,) squared distance; relative: less that to all clean rows as one class. Higher = more suspicious.
Cost:    one pass of the auxiliary network, then about 10 us a row (128 features); no upstream row.
         Arrays: (F, F) and (classes, F) float32, at most 1 MB and 2 KB a class (relative: 2 MB).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from guard.features import AUXILIARY, at_work, features_of, learn_features, squared_distances, whitening_of
from guard.registry import register
from guard.types import Array, Equipment, Material, Network

_MOST_ROWS = 20_000


@register("detector", "mahalanobis")
@dataclass(frozen=True)
class Mahalanobis:
    """relative: less the distance to all classes at once, which takes away what is unusual in every input."""

    needs: ClassVar[tuple[str, ...]] = (AUXILIARY,)
    relative: bool = False

    def learn(self, material: Material) -> Mapping[str, Array]:
        """Class means by the served model's answers, and what whitens. Raises ValueError for too few rows."""
        features, labels, arrays = learn_features(material, _MOST_ROWS)
        found, own = np.unique(labels, return_inverse=True)
        means = np.stack([features[own == i].mean(axis=0) for i in range(len(found))])
        learned = arrays | {"means": means, "whitening": whitening_of(features - means[own])}
        if self.relative:
            middle = features.mean(axis=0, keepdims=True)
            learned |= {"middle": middle, "whitening_of_all": whitening_of(features - middle)}
        return {name: array.astype(np.float32) for name, array in learned.items()}

    def equip(self, equipment: Equipment) -> "_Working":
        """The detector at work."""
        arrays = at_work(equipment.arrays)
        spaces = [_Space(arrays["whitening"], arrays["means"] @ arrays["whitening"])]
        if self.relative:
            spaces.append(_Space(arrays["whitening_of_all"], arrays["middle"] @ arrays["whitening_of_all"]))
        return _Working(equipment.networks[AUXILIARY], arrays, tuple(spaces))


@dataclass(frozen=True, eq=False)
class _Space:
    whitening: Array  # (F, F)
    centres: Array  # (classes, F), whitened

    def least(self, features: Array) -> Array:
        """(N, F) -> (N,) squared distance to the nearest centre."""
        return np.asarray(squared_distances(features @ self.whitening, self.centres).min(axis=1))


@dataclass(frozen=True, eq=False)
class _Working:
    network: Network
    arrays: Mapping[str, Array]
    spaces: tuple[_Space, ...]

    def score(self, x: Array) -> Array:
        """(N, ...) unit form -> (N,)."""
        features = features_of(self.network, x, self.arrays)
        nearest, *whole = [space.least(features) for space in self.spaces]
        return np.asarray(nearest - sum(whole))
