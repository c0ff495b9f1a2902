"""STRIP: how sure the model stays when clean pictures are laid over the input: the negated mean entropy of its answers.

Under a backdoor's trigger the answer survives every overlay; that of a clean picture does not.

Source:  Gao et al. 2019, arXiv:1902.06531 (x + overlay, saturating; 100 overlays, 10 were enough on GTSRB).
Answers: input-agnostic backdoor triggers of poisoned models (patches; blends with some 50 overlays). Known bypass:
         triggers that act on some source classes only, triggers that an overlay destroys (warps).
Args:    probs, view_probs[k]: (N, C), rows sum to 1; views are taken of (N, H, W, C) float32 in [0, 1].
         Learns its overlays: clean inputs, drawn at random.
Returns: (N,) in [-log2 C, 0] bits, higher = more suspicious.
Cost:    one extra upstream row an input and overlay, ten by default; about 1 us of CPU a view (28x28) to 100 us
         (224x224x3). Array: the overlays in bytes, at most 8 MB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from guard.detectors._answers import entropy
from guard.registry import register
from guard.types import Array, Equipment, Material

_IMAGES = 4
_MOST_BYTES = 8 * 2**20


@register("detector", "strip")
@dataclass(frozen=True)
class Strip:
    """overlays: how many; alpha: None adds the overlay, else (1 - alpha) of x and alpha of the overlay."""

    needs_images: ClassVar[bool] = True
    opt_in: ClassVar[bool] = True  # not fitted unless somebody asks for it: its rows are many
    overlays: Annotated[int, Field(ge=1, le=100)] = 10
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None

    def learn(self, material: Material) -> Mapping[str, Array]:
        """Clean rows as bytes. Raises ValueError: vectors, too few rows, labels only, too much to keep."""
        x = material.x
        if x.ndim != _IMAGES:
            raise ValueError("lays images over images, and these are vectors")
        if material.probs is None:
            raise ValueError("it measures the entropy of answers, and this model answers with labels only")
        if len(x) < self.overlays:
            raise ValueError(f"{self.overlays} overlays need as many clean rows, and there are {len(x)}")
        if self.overlays * x[0].size > _MOST_BYTES:
            raise ValueError(
                f"{self.overlays} overlays of this size take more than {_MOST_BYTES:,} bytes of the profile: "
                f"at most {_MOST_BYTES // x[0].size}"
            )
        rows = np.random.default_rng(material.seed).choice(len(x), self.overlays, replace=False)
        return {"overlays": np.rint(x[rows] * 255).astype(np.uint8)}

    def equip(self, equipment: Equipment) -> "_Working":
        """The detector at work."""
        overlays = equipment.arrays["overlays"].astype(np.float32) / np.float32(255)
        return _Working(overlays, self.alpha)


@dataclass(frozen=True, eq=False)
class _Working:
    overlays: Array  # (overlays, H, W, C) float32 in [0, 1]
    alpha: float | None

    def views(self, x: Array) -> tuple[Array, ...]:
        """(N, H, W, C) unit form -> one array an overlay. Raises ValueError for another shape than the overlays'."""
        if x.shape[1:] != self.overlays.shape[1:]:
            raise ValueError(f"its overlays are {self.overlays.shape[1:]}, the images {x.shape[1:]}")
        if self.alpha is None:
            return tuple(np.minimum(x + overlay, np.float32(1)) for overlay in self.overlays)
        kept, laid = np.float32(1 - self.alpha), np.float32(self.alpha)
        return tuple(np.clip(kept * x + laid * overlay, 0, 1) for overlay in self.overlays)

    def score_views(self, probs: Array, view_probs: tuple[Array, ...]) -> Array:  # noqa: ARG002 - not compared
        """(N, C) on each overlay -> (N,)."""
        return np.asarray(-sum(entropy(view) for view in view_probs) / len(view_probs))
