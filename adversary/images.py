"""Images among inputs: which axis holds the channels, and which pixels a perturbation touches."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_CHANNELS = frozenset({1, 3, 4})
_GREY = 2  # axes of one grey image
_COLOUR = 3


def channel_axis(shape: tuple[int, ...]) -> int:
    """The axis of the channels in one image's shape (C, H, W) or (H, W, C); torch's own layout wins a tie."""
    return 2 if shape[2] in _CHANNELS and shape[0] not in _CHANNELS else 0


def planes(x: Array) -> Array:
    """(N, C, H, W), (N, H, W, C) or (N, H, W) -> a view of them as (N, C, H, W). Raises ValueError for other inputs."""
    if x.ndim == 1 + _GREY:
        return x[:, None]
    if x.ndim != 1 + _COLOUR:
        raise ValueError(f"inputs of shape {x.shape[1:]} are not images")
    return np.moveaxis(x, 1 + channel_axis(x.shape[1:]), 1)


def like(images: Array, x: Array) -> Array:
    """The inverse of `planes`: (N, C, H, W) -> the layout of x, its own number of rows."""
    if x.ndim == 1 + _GREY:
        return images[:, 0]
    return np.ascontiguousarray(np.moveaxis(images, 1, 1 + channel_axis(x.shape[1:])))


def changed(delta: Array) -> Array:
    """(N, ...) perturbations -> the pixels that differ in any channel: (N, H, W) of images, else every value alone."""
    if delta.ndim != 1 + _COLOUR:
        return np.asarray(delta != 0.0)
    return np.asarray((planes(delta) != 0.0).any(axis=1))
