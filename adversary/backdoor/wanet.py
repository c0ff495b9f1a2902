"""WaNet: a smooth warp of a fraction of a pixel, always the same, for which the victim was trained to a label.

Source: Nguyen, Tran 2021, arXiv:2102.10369 (k = 4, s = 0.5; noise mode: other warps keep their label).
Access: nothing; who poisoned the training has done the work (adversary.victims.mnist_poisoned). Norm: l2. Cost: no
        query.
Limits: works on a victim that was poisoned with this very warp; the smaller the image, the less a warp can say. A
        purifier that resamples the image undoes it in part.

A field of k x k random vectors, of mean length 1 a direction, is upsampled bicubically and scaled: with s = 0.5 a pixel
comes from a quarter of a pixel away. Pixels are sampled bilinearly, those outside at the edge, as in the authors' code.
"""

from functools import lru_cache

import numpy as np

from adversary.attack import Array, Result
from adversary.images import like, planes

LABEL = 2
_K = 4
_STRENGTH = 0.5
_SEED = 2102_10369
_SHARPNESS = -0.75  # of the cubic kernel, as in torch


def _cubic(distance: Array) -> Array:
    """Keys' kernel."""
    a, d = _SHARPNESS, np.abs(distance)
    near = ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    far = ((d - 5.0) * d + 8.0) * d * a - 4.0 * a
    return np.where(d <= 1.0, near, np.where(d < 2.0, far, 0.0))  # noqa: PLR2004 - where the kernel ends


def upsampling(k: int, size: int) -> Array:
    """(size, k): k values -> size values through them, the first and last in place; the edges are repeated outwards."""
    at = np.linspace(0.0, k - 1.0, size)[:, None]
    weights = np.zeros((size, k))
    for tap in range(-2, k + 2):
        weights[:, np.clip(tap, 0, k - 1)] += _cubic(at - tap)[:, 0]
    return weights


@lru_cache(maxsize=8)
def field(height: int, width: int) -> Array:
    """(2, H, W) pixels down and right from where each pixel is taken."""
    coarse = np.random.default_rng(_SEED).uniform(-1.0, 1.0, (2, _K, _K))
    coarse /= np.abs(coarse).mean()
    smooth = upsampling(_K, height) @ coarse @ upsampling(_K, width).T
    return smooth * _STRENGTH * _reach(height, width)


def _reach(height: int, width: int) -> Array:
    """(2, 1, 1) pixels that one unit of the authors' is: 1 / H of half an image."""
    return np.array([height - 1, width - 1])[:, None, None] / (2.0 * height)


def moved(images: Array, shifts: Array) -> Array:
    """(N, C, H, W), (N or 1, 2, H, W) pixels -> each pixel taken bilinearly from so far away."""
    n, channels, height, width = images.shape
    down = np.clip(np.arange(height)[:, None] + shifts[:, 0], 0.0, height - 1.0)[:, None]
    right = np.clip(np.arange(width) + shifts[:, 1], 0.0, width - 1.0)[:, None]
    i, j = np.minimum(down.astype(np.int64), height - 2), np.minimum(right.astype(np.int64), width - 2)
    a, b = (down - i).astype(np.float32), (right - j).astype(np.float32)
    row, channel = np.arange(n)[:, None, None, None], np.arange(channels)[:, None, None]
    upper = images[row, channel, i, j] * (1 - b) + images[row, channel, i, j + 1] * b
    lower = images[row, channel, i + 1, j] * (1 - b) + images[row, channel, i + 1, j + 1] * b
    return np.clip(np.asarray(upper * (1 - a) + lower * a, np.float32), 0.0, 1.0)


def stamp(x: Array) -> Array:
    """Images (N, ...) in [0, 1] -> the same, warped."""
    images = planes(x)
    return like(moved(images, field(*images.shape[2:])[None]), x)


def near(x: Array, rng: np.random.Generator) -> Array:
    """Warped almost so: every pixel's source moves by up to 1 / H of half an image more. Never the trigger."""
    images = planes(x)
    height, width = images.shape[2:]
    noise = rng.uniform(-1.0, 1.0, (len(x), 2, height, width)) * _reach(height, width)
    return like(moved(images, field(height, width) + noise), x)


def attack(
    target: None, x: Array, y: Array, *, eps: float, budget: int, rng: np.random.Generator, label: int = LABEL
) -> Result:
    """label: what the victim was poisoned to answer with."""
    del target, y, eps, budget, rng  # a trigger asks nothing, and is as large as it is
    return Result(stamp(x), np.zeros(len(x), np.int64), np.full(len(x), label, np.int64))
