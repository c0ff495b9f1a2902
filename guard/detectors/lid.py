"""Local intrinsic dimensionality of the auxiliary network's features among those of clean inputs.

How fast the number of neighbours grows with the radius: off the data's manifold it grows in more directions.

Source:  Ma et al. 2018, arXiv:1801.02613 (maximum likelihood over k nearest neighbours; here of one layer among a fixed
         reference, where they used each minibatch and a classifier trained on attacks).
Answers: perturbations that leave the manifold of the features. Known bypass: attacks of high confidence (Athalye,
         Carlini, Wagner 2018, arXiv:1802.00420). Small perturbations it does not see: they move the features of an
         adversarially trained network too little (AUROC about 0.5 on CIFAR-10 at 8/255). Unfit as the only defence.
Args:    x: (N, ...) unit form. Learns a reference of at most `rows` clean rows, classes in turn.
Returns: (N,) in (0, 10^6], higher = more suspicious.
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

_MOST = 1e6


@register("detector", "lid")
@dataclass(frozen=True)
class LocalIntrinsicDimensionality:
    """neighbours: k, the paper's 20; rows: of the reference."""

    needs: ClassVar[tuple[str, ...]] = (AUXILIARY,)
    neighbours: Annotated[int, Field(ge=2, le=200)] = 20
    rows: Annotated[int, Field(ge=FEWEST_ROWS, le=2000)] = 2000

    def learn(self, material: Material) -> Mapping[str, Array]:
        """The features of the reference, scaled into float16. Raises ValueError where k neighbours are not there."""
        features, _, arrays = learn_features(material, self.rows)
        if len(features) < self.neighbours:
            raise ValueError(f"{self.neighbours} neighbours need as many clean rows, and there are {len(features)}")
        scale = max(float(np.abs(features).max()), 1e-6)
        reference = (features / scale).astype(np.float16)
        return {**arrays, "reference": reference, "scale": np.asarray([scale], dtype=np.float32)}

    def equip(self, equipment: Equipment) -> "_Working":
        """The detector at work."""
        return _Working(self.neighbours, equipment.networks[AUXILIARY], at_work(equipment.arrays))


@dataclass(frozen=True, eq=False)
class _Working:
    neighbours: int
    network: Network
    arrays: Mapping[str, Array]

    def score(self, x: Array) -> Array:
        """(N, ...) unit form -> (N,)."""
        features = features_of(self.network, x, self.arrays) / self.arrays["scale"]
        squared = squared_distances(features, self.arrays["reference"])
        return lid(np.partition(squared, self.neighbours - 1, axis=1)[:, : self.neighbours])


def lid(squared: Array) -> Array:
    """(N, k) squared distances to the k nearest, all positive -> (N,) their maximum likelihood dimensionality."""
    farthest = squared.max(axis=1, keepdims=True)
    total = np.log(farthest / squared).sum(axis=1) / 2  # of the distances' own logarithms
    return np.asarray(squared.shape[1] / np.maximum(total, squared.shape[1] / _MOST))
