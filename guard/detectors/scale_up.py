"""SCALE-UP: how often the model keeps its label while the image's values are multiplied: scaled prediction consistency.

A backdoor's trigger dominates what is left of a picture that has been multiplied into white; a clean picture changes
its class. This is the paper's data-free variant; its data-limited one normalises by class, which takes answers to the
multiplied versions of clean images that nobody has asked the model for when a stage learns.

Source:  Guo, Li, Chen, Guo, Sun, Liu 2023, arXiv:2302.03251 (label consistency over multiples 1 to 11).
Answers: backdoor triggers of poisoned models (patches, blends). Known bypass: triggers trained to fade when amplified,
         and warps of images that are black and white already, which nothing amplifies.
Args:    probs, view_probs[k]: (N, C), rows sum to 1; views are taken of (N, H, W, C) float32 in [0, 1].
Returns: (N,) in [0, 2): the share of multiples 2 to n whose label is that of x, and among equal shares, as less than
         one step, the mean probability that the multiples give that label; higher = more suspicious.
Cost:    ten extra upstream rows an input by default; about 1 us of CPU a view (28x28) to 100 us (224x224x3).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from guard.registry import register
from guard.types import Array

_IMAGES = 4


@register("detector", "scale_up")
@dataclass(frozen=True)
class ScaleUp:
    """Multiples 2 to `multiples` of x, clipped at white."""

    needs_images: ClassVar[bool] = True
    opt_in: ClassVar[bool] = True  # not fitted unless somebody asks for it: its rows are many
    multiples: Annotated[int, Field(ge=2, le=32)] = 11

    def views(self, x: Array) -> tuple[Array, ...]:
        """(N, H, W, C) unit form -> one array a multiple. Raises ValueError for vectors."""
        if x.ndim != _IMAGES:
            raise ValueError("multiplies the brightness of images, and these are vectors")
        return tuple(np.minimum(x * np.float32(k), np.float32(1)) for k in range(2, self.multiples + 1))

    def score_views(self, probs: Array, view_probs: tuple[Array, ...]) -> Array:
        """(N, C) on x and on each multiple -> (N,)."""
        label = probs.argmax(axis=1)
        rows = np.arange(len(label))
        kept = sum((view.argmax(axis=1) == label).astype(np.float64) for view in view_probs)
        confidence = sum(view[rows, label].astype(np.float64) for view in view_probs)
        steps = len(view_probs)
        return np.asarray(kept / steps + np.clip(confidence / steps, 0, 1) / (steps + 1))
