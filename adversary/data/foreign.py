"""Images of one data set in the form of another: what a thief sends who has none of the victim's own kind.

Grey from colour by ITU-R BT.601 luma, colour from grey by repeating it, sizes by area (shrinking) or linearly.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from adversary.attack import Array
from adversary.images import channel_axis

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_WHITE = np.float32(255.0)
_GREY = 2  # axes of one grey image
_COLOUR = 3


def fit(images: NDArray[np.uint8], shape: tuple[int, ...]) -> Array:
    """(N, H, W) or (N, H, W, 3) uint8 -> (N, *shape) float32 in [0, 1]. Raises ValueError where shape is no image's."""
    if len(shape) not in {_GREY, _COLOUR}:
        raise ValueError(f"inputs of shape {shape} are not images")
    axis = channel_axis(shape) if len(shape) == _COLOUR else None
    channels = 1 if axis is None else shape[axis]
    height, width = shape if axis is None else tuple(n for i, n in enumerate(shape) if i != axis)
    planes = _channels(images.astype(np.float32) / _WHITE, channels)
    method = cv2.INTER_AREA if height < images.shape[1] else cv2.INTER_LINEAR
    sized = np.empty((len(images), height, width, channels), np.float32)
    for i, image in enumerate(planes):
        sized[i] = cv2.resize(image, (width, height), interpolation=method).reshape(height, width, channels)
    moved = sized[..., 0] if axis is None else np.moveaxis(sized, 3, 1 + axis)
    return np.ascontiguousarray(np.clip(moved, 0.0, 1.0))


def _channels(x: Array, channels: int) -> Array:
    """(N, H, W) or (N, H, W, 3) -> (N, H, W, channels)."""
    if x.ndim == 1 + _GREY:
        return np.repeat(x[..., None], channels, axis=3)
    return x if channels == x.shape[3] else np.repeat((x @ _LUMA)[..., None], channels, axis=3)
