"""MagNet's second detector: divergence of the model's answers on x and on its reconstruction by an autoencoder.

Source:  Meng, Chen 2017, arXiv:1705.09064 (Jensen-Shannon divergence at temperatures 10 and 40 of the softmax).
Answers: small perturbations that the reconstruction takes away. Known bypass: attacks that include the autoencoder
         (Carlini, Wagner 2017, arXiv:1711.08478).
Args:    probs, view_probs[0]: (N, C), rows sum to 1; softmax(log p / T) is softmax(logits / T). The view is taken of
         (N, ...) unit form.
Returns: (N,) in [0, ln 2], higher = more suspicious.
Cost:    one pass of the autoencoder and one extra upstream row an input.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from guard.detectors._answers import jensen_shannon, log_of, log_softmax
from guard.registry import register
from guard.types import Array, Equipment, Network

_AUTOENCODER = "autoencoder"


@register("detector", "magnet_divergence")
@dataclass(frozen=True)
class MagnetDivergence:
    """temperature: of both answers; higher ones count small changes of unlikely classes."""

    needs: ClassVar[tuple[str, ...]] = (_AUTOENCODER,)
    temperature: Annotated[float, Field(gt=0, le=1000)] = 10.0

    def equip(self, equipment: Equipment) -> "_Working":
        """The detector at work."""
        return _Working(self.temperature, equipment.networks[_AUTOENCODER])


@dataclass(frozen=True, eq=False)
class _Working:
    temperature: float
    autoencoder: Network

    def views(self, x: Array) -> tuple[Array, ...]:
        """(N, ...) unit form -> its reconstruction. Raises ValueError where the autoencoder gives another shape."""
        back = self.autoencoder(x)["x"]
        if back.shape != x.shape:
            raise ValueError(f"the autoencoder makes {back.shape[1:]} of inputs of {x.shape[1:]}")
        return (np.clip(back, 0, 1).astype(np.float32),)

    def score_views(self, probs: Array, view_probs: tuple[Array, ...]) -> Array:
        """(N, C) on x and on its reconstruction -> (N,)."""
        one, other = (log_softmax(log_of(p), self.temperature) for p in (probs, view_probs[0]))
        return jensen_shannon(one, other)
