"""MagNet's first detector: how badly an autoencoder of clean inputs reconstructs x.

Source:  Meng, Chen 2017, arXiv:1705.09064 (mean of |x - ae(x)|^p; p = 1 on CIFAR-10, 1 and 2 on MNIST).
Answers: perturbations that move x off the data's manifold, large linf above all. Known bypass: attacks that include
         the autoencoder (Carlini, Wagner 2017, arXiv:1711.08478); small perturbations of photographs.
Args:    x: (N, ...) unit form.
Returns: (N,) in [0, 1], higher = more suspicious.
Cost:    one pass of the autoencoder; no upstream row.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from guard.registry import register
from guard.types import Array, Equipment, Network

_AUTOENCODER = "autoencoder"


@register("detector", "magnet_reconstruction")
@dataclass(frozen=True)
class MagnetReconstruction:
    """norm: the power of the differences, 1 or 2."""

    needs: ClassVar[tuple[str, ...]] = (_AUTOENCODER,)
    norm: Literal[1, 2] = 1

    def equip(self, equipment: Equipment) -> "_Working":
        """The detector at work."""
        return _Working(self.norm, equipment.networks[_AUTOENCODER])


@dataclass(frozen=True, eq=False)
class _Working:
    norm: int
    autoencoder: Network

    def score(self, x: Array) -> Array:
        """(N, ...) unit form -> (N,). Raises ValueError where the autoencoder gives another shape."""
        back = self.autoencoder(x)["x"]
        if back.shape != x.shape:
            raise ValueError(f"the autoencoder makes {back.shape[1:]} of inputs of {x.shape[1:]}")
        gaps = np.abs(x.astype(np.float64) - back).reshape(len(x), -1) ** self.norm
        return np.asarray(gaps.mean(axis=1))
