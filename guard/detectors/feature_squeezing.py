"""Feature squeezing: L1 gap between the model's answers on x and on squeezed x, the largest over the squeezers.

Source:  Xu, Evans, Qi 2018, arXiv:1704.01155 (joint detection).
Answers: static evasion with small linf, l2 or l0. Known bypass: adaptive attacks that keep the squeezed answers too
         (He et al. 2017, arXiv:1706.04701), and high-confidence transfer with a large eps.
Args:    probs, view_probs[k]: (N, C), rows sum to 1; views are taken of (N, H, W, C) float32 in [0, 1]
         (vectors: bit depth only).
Returns: (N,) in [0, 2]; higher = more suspicious.
Cost:    one extra upstream row per input and squeezer; filters 0.01 to 0.1 ms an image, non-local means 1 ms (28x28) to
         60 ms (224x224x3) of CPU.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field

from guard import filters
from guard.registry import register
from guard.types import Array

_SMALL = 64
_GREY, _COLOUR = 1, 3
_SEARCH = range(3, 36, 2)
_PATCH = range(1, 16, 2)
_BITS = range(1, 9)
_STRENGTH = range(1, 256)
_FORMS = "bit_depth_BITS (1 to 8), median_SIZE (2, 3, 5), non_local_means_SEARCH_PATCH_STRENGTH (odd, odd, 1 to 255)"


@register("detector", "feature_squeezing")
@dataclass(frozen=True)
class FeatureSqueezing:
    """By default the paper's squeezers for the input's shape: MNIST's for grey, CIFAR-10's, ImageNet's."""

    squeezers: Annotated[tuple[str, ...], Field(max_length=8)] = ()

    def __post_init__(self) -> None:
        for name in self.squeezers:
            _squeezer(name)
        if len(set(self.squeezers)) != len(self.squeezers):
            raise ValueError("squeezers: one is listed twice")

    @property
    def needs_images(self) -> bool:
        """Bit depth alone takes vectors, too."""
        return not self.squeezers or any(not name.startswith("bit_depth") for name in self.squeezers)

    def views(self, x: Array) -> tuple[Array, ...]:
        """(N, ...) unit form -> one squeezed array a squeezer."""
        return tuple(_squeezer(name)(x) for name in self.squeezers or _usual(x.shape[1:]))

    def score_views(self, probs: Array, view_probs: tuple[Array, ...]) -> Array:
        """(N, C) on x and on each view -> (N,)."""
        gaps = [np.abs(probs - view).sum(axis=1) for view in view_probs]
        return np.asarray(np.max(gaps, axis=0))


def _usual(shape: tuple[int, ...]) -> tuple[str, ...]:
    if len(shape) != 3:  # noqa: PLR2004 - height, width, channels
        raise ValueError("the usual squeezers need images, not vectors; name squeezers, such as bit_depth_4")
    height, width, channels = shape
    if channels == _GREY:
        return "bit_depth_1", "median_2"
    if channels != _COLOUR:
        return "bit_depth_5", "median_2"
    small = max(height, width) <= _SMALL
    return "bit_depth_5", "median_2", "non_local_means_13_3_2" if small else "non_local_means_11_3_4"


def _squeezer(name: str) -> Callable[[Array], Array]:
    """The filter that a name such as median_2 stands for. Raises ValueError."""
    form = re.fullmatch(r"(bit_depth|median|non_local_means)((?:_[0-9]{1,3})+)", name)
    numbers = [int(digits) for digits in form[2].split("_")[1:]] if form else []
    match form and form[1], numbers:
        case "bit_depth", [bits] if bits in _BITS:
            return partial(filters.bit_depth, bits=bits)
        case "median", [(2 | 3 | 5) as size]:
            return partial(filters.median, size=size)
        case "non_local_means", [search, patch, strength] if (
            search in _SEARCH and patch in _PATCH and strength in _STRENGTH
        ):
            return partial(filters.non_local_means, search=search, patch=patch, strength=strength)
    raise ValueError(f"{name!r} is not a squeezer; there are: {_FORMS}")
