"""Image filters that several stages share: plain functions on unit form, numpy and OpenCV.

Every filter takes (N, H, W, C) float32 in [0, 1] and returns a new array of the same shape, dtype and bounds, each
image on its own; bit depth takes any shape. Edges are mirrored with the edge pixel repeated
(`reflect` to SciPy).
Raises ValueError where the shape is not one that the filter knows.
"""

from typing import Literal

import cv2
import numpy as np

from guard.types import Array

MedianSize = Literal[2, 3, 5]

_IMAGES = 4
_GREY = 1
_COLOUR = 3


def _require_images(x: Array, channels: tuple[int, ...] = ()) -> None:
    if x.ndim != _IMAGES:
        raise ValueError("needs images, not vectors")
    if channels and x.shape[-1] not in channels:
        raise ValueError(f"needs images of {' or '.join(map(str, channels))} channels, not {x.shape[-1]}")


def bit_depth(x: Array, bits: int) -> Array:
    """The nearest of 2^bits levels, any shape."""
    top = np.float32(2**bits - 1)
    return np.asarray(np.rint(x * top) / top, dtype=np.float32)


def median(x: Array, size: MedianSize) -> Array:
    """The median of size x size pixels; of an even number of them the upper one, as SciPy has it."""
    _require_images(x)
    if 0 in x.shape:
        return x.copy()
    return _median_2(x) if size == 2 else _median_odd(x, size)  # noqa: PLR2004 - the one even size


def _median_2(x: Array) -> Array:
    """Pixel and its neighbours above and to the left: the second largest of four, by six comparisons."""
    padded = np.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0)), mode="symmetric")
    a, b = padded[:, :-1, :-1], padded[:, :-1, 1:]
    c, d = padded[:, 1:, :-1], padded[:, 1:, 1:]
    losers = np.maximum(np.minimum(a, b), np.minimum(c, d))
    return np.asarray(np.maximum(losers, np.minimum(np.maximum(a, b), np.maximum(c, d))))


def _median_odd(x: Array, size: int) -> Array:
    edge = size // 2
    out = np.empty_like(x)
    for image, target in zip(x, out, strict=True):
        for channel in range(x.shape[-1]):
            wide = cv2.copyMakeBorder(image[..., channel], edge, edge, edge, edge, cv2.BORDER_REFLECT)
            target[..., channel] = cv2.medianBlur(wide, size)[edge:-edge, edge:-edge]
    return out


def non_local_means(x: Array, search: int, patch: int, strength: int) -> Array:
    """Each pixel: the mean of pixels in a search window, weighted by how alike the patches around them are.

    In 8 bits and through OpenCV with channels taken as they come, as the code of Xu et al. did.
    """
    _require_images(x, (_GREY, _COLOUR))
    out = np.empty_like(x)
    for image, target in zip(_to_bytes(x), out, strict=True):
        if x.shape[-1] == _COLOUR:
            smooth = cv2.fastNlMeansDenoisingColored(image, None, strength, strength, patch, search)
        else:
            smooth = cv2.fastNlMeansDenoising(image[..., 0], None, strength, patch, search)[..., None]
        target[...] = smooth / np.float32(255)
    return out


def jpeg(x: Array, quality: int) -> Array:
    """There and back through JPEG, colour subsampled as libjpeg does by default."""
    _require_images(x, (_GREY, _COLOUR))
    out = np.empty_like(x)
    for image, target in zip(_to_bytes(x), out, strict=True):
        _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), (cv2.IMWRITE_JPEG_QUALITY, quality))
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR if x.shape[-1] == _COLOUR else cv2.IMREAD_GRAYSCALE)
        target[...] = np.asarray(decoded).reshape(image.shape)[..., ::-1] / np.float32(255)  # OpenCV orders BGR
    return out


def _to_bytes(x: Array) -> Array:
    return np.ascontiguousarray(np.rint(x * 255).astype(np.uint8))
