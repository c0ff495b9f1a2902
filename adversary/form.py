"""What a model wants its inputs to be: bounds, normalisation by channel, layout. Attacks know [0, 1] in x's own layout.

[0, 1] is mapped onto the bounds; the mean is taken off and the rest divided by the standard deviation, both in units
of the bounds (0.485 of [0, 1] is 123.675 of [0, 255]); then the axes are moved.

Args:    x: (N, C, H, W), (N, H, W, C) or any (N, ...), in [0, 1].
Returns: the same rows as the model takes them, float; x itself where nothing is to be done.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adversary.images import channel_axis

Array = NDArray[Any]
Layout = Literal["as_given", "nchw_to_nhwc", "nhwc_to_nchw", "flat"]
LAYOUTS: tuple[Layout, ...] = ("as_given", "nchw_to_nhwc", "nhwc_to_nchw", "flat")
_IMAGES = 4  # axes of rows of images
_MOVES = {"nchw_to_nhwc": (1, -1), "nhwc_to_nchw": (-1, 1)}  # where the channels are, and where they go


@dataclass(frozen=True, slots=True)
class Form:
    """Raises ValueError where its parts do not go together.

    mean, std:  a value for all channels, or one for each; none: 0 and 1.
    layout:     what becomes of the axes. `flat`: one row of values, as they lie.
    """

    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Layout = "as_given"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, not {self.low:g} and {self.high:g}")
        if not all(value > 0.0 for value in self.std):
            raise ValueError("every std must be above 0")
        if len({1, len(self.mean), len(self.std)} - {0}) > 2:  # noqa: PLR2004 - one for all, and one number of channels
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} stds: give as many of both")

    def of(self, x: Array) -> Array:
        """Raises ValueError where x has no such axes or channels."""
        if (self.low, self.high, self.mean, self.std) != (0.0, 1.0, (), ()):
            x = np.asarray(x, np.float64) * (self.high - self.low) + self.low
        if self.mean or self.std:
            x = (x - self._by_channel(self.mean or (0.0,), x)) / self._by_channel(self.std or (1.0,), x)
        if self.layout == "flat":
            return x.reshape(len(x), -1)
        return np.moveaxis(x, *self._move(x)) if self.layout in _MOVES else x

    def _move(self, x: Array) -> tuple[int, int]:
        if x.ndim != _IMAGES:
            raise ValueError(f"layout {self.layout} is for images, not for inputs of shape {x.shape[1:]}")
        return _MOVES[self.layout]

    def _by_channel(self, values: tuple[float, ...], x: Array) -> Array:
        if len(values) == 1:
            return np.array(values[0])
        axis = self._move(x)[0] % x.ndim if self.layout in _MOVES else _channels(x)
        if x.shape[axis] != len(values):
            raise ValueError(f"{len(values)} means or stds for the {x.shape[axis]} channels of {x.shape[1:]}")
        return np.array(values).reshape(-1, *(1 for _ in x.shape[axis + 1 :]))


def _channels(x: Array) -> int:
    return 1 + channel_axis(x.shape[1:]) if x.ndim == _IMAGES else 1
