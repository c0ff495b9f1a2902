"""Image filters that several stages share: plain functions on unit form, numpy and OpenCV.

Every filter takes (N, H, W, C) float32 in [0, 1] and returns a new array of the same shape, dtype and bounds, each
image on its own; bit depth takes any shape. Edges are mirrored with the edge pixel repeated
(`reflect` to SciPy). Large batches go some rows at a time, so that what is worked on stays in the cache.
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
_BLOCK = 1 << 16  # floats; some of these fit a core's cache
_TAU = 0.25  # Chambolle's step; he proves convergence to 1/8 and sees it to 1/4


def require_images(x: Array, channels: tuple[int, ...] = ()) -> None:
    """Raises ValueError, in words, where x is not images, or not of so many channels."""
    if x.ndim != _IMAGES:
        raise ValueError("needs images, not vectors")
    if channels and x.shape[-1] not in channels:
        raise ValueError(f"needs images of {' or '.join(map(str, channels))} channels, not {x.shape[-1]}")


def bit_depth(x: Array, bits: int) -> Array:
    """The nearest of 2^bits levels, any shape; levels to the last bit of float32."""
    top, out = np.float32(2**bits - 1), np.empty(x.shape, np.float32)
    source, target = x.reshape(-1), out.reshape(-1)
    step = 2 * _BLOCK  # one array is worked on
    for start in range(0, source.size, step):
        block = target[start : start + step]
        np.multiply(source[start : start + step], top, out=block)
        np.rint(block, out=block)
        np.multiply(block, 1 / top, out=block)
    return out


def median(x: Array, size: MedianSize) -> Array:
    """The median of size x size pixels; of an even number of them the upper one, as SciPy has it."""
    require_images(x)
    out = np.empty_like(x, order="C")
    if 0 in x.shape:
        return out
    if size == 2:  # noqa: PLR2004 - the one even size
        step = max(1, _BLOCK // x[0].size)
        for start in range(0, len(x), step):
            _median_2(np.ascontiguousarray(x[start : start + step]), out[start : start + step])
    else:
        _median_odd(x, size, out)
    return out


def _median_2(x: Array, out: Array) -> None:
    """Pixel and its neighbours above and to the left: the second largest of four, from sorted pairs of neighbours.

    All rows lie in a row, so that neighbours are a fixed step apart; what that gets wrong at edges is mended after.
    """
    _, _, width, channels = x.shape
    low, high, losers = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    x_, low_, high_, losers_, out_ = (array.reshape(-1) for array in (x, low, high, losers, out))
    left, above = channels, width * channels
    np.minimum(x_[left:], x_[:-left], out=low_[left:])
    np.maximum(x_[left:], x_[:-left], out=high_[left:])
    low[:, :, 0] = high[:, :, 0] = x[:, :, 0]
    np.maximum(low_[above:], low_[:-above], out=losers_[above:])
    np.minimum(high_[above:], high_[:-above], out=out_[above:])
    np.maximum(losers_[above:], out_[above:], out=out_[above:])
    out[:, 0] = high[:, 0]


def _median_odd(x: Array, size: int, out: Array) -> None:
    edge = size // 2
    for image, target in zip(x, out, strict=True):
        for channel in range(x.shape[-1]):
            wide = cv2.copyMakeBorder(image[..., channel], edge, edge, edge, edge, cv2.BORDER_REFLECT)
            target[..., channel] = cv2.medianBlur(wide, size)[edge:-edge, edge:-edge]


def non_local_means(x: Array, search: int, patch: int, strength: int) -> Array:
    """Each pixel: the mean of pixels in a search window, weighted by how alike the patches around them are.

    In 8 bits and through OpenCV with channels taken as they come, as the code of Xu et al. did.
    """
    require_images(x, (_GREY, _COLOUR))
    out = np.empty_like(x)
    for image, target in zip(x, out, strict=True):
        if x.shape[-1] == _COLOUR:
            smooth = cv2.fastNlMeansDenoisingColored(_to_bytes(image), None, strength, strength, patch, search)
        else:
            smooth = cv2.fastNlMeansDenoising(_to_bytes(image), None, strength, patch, search)
        np.divide(smooth.reshape(target.shape), np.float32(255), out=target)
    return out


def jpeg(x: Array, quality: int) -> Array:
    """There and back through JPEG, colour subsampled as libjpeg does by default."""
    require_images(x, (_GREY, _COLOUR))
    out = np.empty_like(x)
    for image, target in zip(x, out, strict=True):
        np.divide(_through_jpeg(_to_bytes(image), quality).reshape(target.shape), np.float32(255), out=target)
    return out


def _through_jpeg(image: Array, quality: int) -> Array:
    """(H, W, 1 or 3) uint8 RGB -> (H, W[, 3]) uint8; OpenCV orders BGR."""
    options = (cv2.IMWRITE_JPEG_QUALITY, quality)
    if image.shape[-1] == _GREY:
        _, encoded = cv2.imencode(".jpg", image, options)
        return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE))
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))


def _to_bytes(image: Array) -> Array:
    """(H, W, C) in [0, 1] -> the same in uint8, the nearest."""
    return np.asarray(cv2.convertScaleAbs(np.ascontiguousarray(image), alpha=255)).reshape(image.shape)


def total_variation(x: Array, weight: float, iterations: int) -> Array:
    """The u that makes half of |u - x|^2 plus weight times the total variation of u small, channel by channel.

    Rudin, Osher, Fatemi 1992 with isotropic differences, by Chambolle 2004 (JMIV 20): so many steps of a fixed point
    iteration on the dual field, from zero.
    """
    require_images(x)
    out = np.empty_like(x, order="C")
    if 0 in x.shape:
        return out
    _, height, width, channels = x.shape
    for image, target in zip(x, out, strict=True):
        flat = np.ascontiguousarray(image).reshape(height, width * channels)
        smooth = _chambolle(flat, channels, np.float32(weight), iterations)
        np.clip(smooth.reshape(image.shape), 0, 1, out=target)
    return out


def _chambolle(x: Array, channels: int, weight: np.float32, iterations: int) -> Array:
    """(H, W * channels) -> the same. Differences to the right are `channels` values apart."""
    step = np.float32(_TAU / weight)
    across, down, to_right, to_below = (np.zeros_like(x) for _ in range(4))
    u = x.copy()
    for _ in range(iterations):
        np.subtract(u[:, channels:], u[:, :-channels], out=to_right[:, :-channels])
        np.subtract(u[1:], u[:-1], out=to_below[:-1])
        to_right *= step
        to_below *= step
        length = np.sqrt(to_right * to_right + to_below * to_below)  # OpenCV's hangs on where the array lies
        length += 1
        across += to_right
        across /= length
        down += to_below
        down /= length
        _plus_divergence(x, across, down, channels, weight, u)
    return u


def _plus_divergence(x: Array, across: Array, down: Array, channels: int, weight: np.float32, out: Array) -> None:
    """Weight times the divergence, and x; the fields are zero where a difference would leave the image."""
    np.add(across, down, out=out)
    out[:, channels:] -= across[:, :-channels]
    out[1:] -= down[:-1]
    out *= weight
    out += x
