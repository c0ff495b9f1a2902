"""Rotations and shifts of images on a fixed lattice, so that a judge can tell whether an image is one of them.

Source: Engstrom, Tran, Tsipras, Schmidt, Madry 2019, arXiv:1712.02779: 31 angles up to 30 degrees, 5 shifts a direction
        up to 3 of 28 pixels, sampled bilinearly; what enters at the border is black.
Sizes:  1.0 is a warp at the edge of that range; a warp's size is its largest part: angle, shift down, shift right.
"""

from collections.abc import Iterator

import numpy as np

from adversary.images import Array, like, planes

MOST_DEGREES = 30.0
_MOST_SHIFT = 3 / 28
_ANGLES = 31
_SHIFTS = 5
_SAME = 1e-4  # float32 on its way through an attack
_VALUES_AT_ONCE = 1 << 21


def lattice(eps: float = 1.0) -> Array:
    """All warps within eps <= 1: (K, 3) rows of angle, shift down, shift right, each a share of the largest."""
    if eps > 1.0:
        raise ValueError("the warps end at eps 1")
    angles, shifts = np.linspace(-1.0, 1.0, _ANGLES), np.linspace(-1.0, 1.0, _SHIFTS)
    every = np.stack(np.meshgrid(angles, shifts, shifts, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(every[np.abs(every).max(axis=1) <= eps + 1e-9])


def warp(x: Array, warps: Array) -> Array:
    """One image (...) and (K, 3) warps -> (K, ...) float32."""
    image = planes(x[None])[0]
    height, width = image.shape[1:]
    down, right = _sources(height, width, warps)
    framed = np.pad(np.asarray(image, np.float32), ((0, 0), (1, 1), (1, 1)))
    down, right = np.clip(down + 1.0, 0.0, height + 1.0), np.clip(right + 1.0, 0.0, width + 1.0)
    i = np.minimum(down.astype(np.int64), height)
    j = np.minimum(right.astype(np.int64), width)
    a, b = (down - i).astype(np.float32), (right - j).astype(np.float32)
    upper = framed[:, i, j] * (1 - b) + framed[:, i, j + 1] * b
    lower = framed[:, i + 1, j] * (1 - b) + framed[:, i + 1, j + 1] * b
    return like(np.moveaxis(upper * (1 - a) + lower * a, 1, 0), x[None])


def _sources(height: int, width: int, warps: Array) -> tuple[Array, Array]:
    """Where each pixel of each warped image comes from: two (K, H, W)."""
    angle = np.deg2rad(warps[:, 0] * MOST_DEGREES)[:, None, None]
    most = round(_MOST_SHIFT * height), round(_MOST_SHIFT * width)
    middle = (height - 1) / 2.0, (width - 1) / 2.0
    down = np.arange(height)[None, :, None] - middle[0] - (warps[:, 1] * most[0])[:, None, None]
    right = np.arange(width)[None, None, :] - middle[1] - (warps[:, 2] * most[1])[:, None, None]
    cos, sin = np.cos(angle), np.sin(angle)
    return middle[0] + cos * down - sin * right, middle[1] + sin * down + cos * right


def size(x: Array, x_adv: Array) -> float:
    """One image and what came of it -> the size of the smallest warp that explains it, infinite where none does."""
    if np.array_equal(x, x_adv):
        return 0.0
    every = lattice()
    every = every[np.argsort(np.abs(every).max(axis=1), kind="stable")]
    for part in _parts(every, max(1, _VALUES_AT_ONCE // x.size)):
        apart = np.abs(warp(x, part) - x_adv).reshape(len(part), -1).max(axis=1)
        if (apart <= _SAME).any():
            return float(np.abs(part[np.argmax(apart <= _SAME)]).max())
    return float("inf")


def _parts(warps: Array, most: int) -> Iterator[Array]:
    return (warps[start : start + most] for start in range(0, len(warps), most))
