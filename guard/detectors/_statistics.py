"""A handful of numbers that describe an input: levels, extremes, and how rough it is at the finest scale.

Every number is of one input alone and does not grow with its size. Float64 throughout.
"""

from collections.abc import Mapping

import numpy as np

from guard.types import Array

IMAGES = 4
SMALLEST = 4
_COLOURS = 3
_FAINT = 1e-3  # differences well below this count as none
_SHARES = (10, 4, 2)  # a tenth, a quarter, a half
_BLACK, _WHITE = 1 / 512, 1 - 1 / 512  # half a level of 8 bits


def statistics_of(x: Array, arrays: Mapping[str, Array]) -> Array:
    """(N, ...) unit form -> (N, S). Raises ValueError for images that are too small."""
    if x.ndim == IMAGES:
        if min(x.shape[1:3]) < SMALLEST:
            raise ValueError(f"needs images of at least {SMALLEST} pixels a side, not {x.shape[1]} x {x.shape[2]}")
        return np.concatenate([_roughness(_planes(x)), _levels(x)], axis=1)
    return np.concatenate([_oddness(x, arrays), _levels(x)], axis=1)


def _levels(x: Array) -> Array:
    """Mean, contrast, extremes, and the shares of values at the bounds."""
    flat = x.reshape(len(x), -1)
    shares = [np.sqrt((flat <= _BLACK).mean(axis=1)), np.sqrt((flat >= _WHITE).mean(axis=1))]
    mean, contrast = flat.mean(axis=1, dtype=np.float64), flat.std(axis=1, dtype=np.float64)
    return np.stack([mean, np.log(contrast + 10 * _FAINT), flat.min(axis=1), flat.max(axis=1), *shares], axis=1)


def _planes(x: Array) -> Array:
    """(N, H, W, C) -> (N, planes, H, W): brightness, and how the first channels differ: noise shows there most."""
    if x.shape[3] == 1:
        return np.asarray(x.transpose(0, 3, 1, 2), dtype=np.float64)
    channels = np.ascontiguousarray(x.transpose(0, 3, 1, 2), dtype=np.float64)
    first = channels[:, :_COLOURS]
    return np.concatenate([channels.mean(axis=1, keepdims=True), first[:, :-1] - first[:, 1:]], axis=1)


def _roughness(planes: Array) -> Array:
    """Energies of four differences, how neighbouring ones go together, and how quiet the quiet parts are, a plane."""
    across, down = np.diff(planes, axis=3), np.diff(planes, axis=2)
    corner = np.diff(across, axis=2)
    second = np.diff(np.diff(corner, axis=3), axis=2)  # Immerkaer's noise kernel
    energies = [_mean_product(d, d) for d in (across, down, corner, second)]
    together = [
        _mean_product(across[..., 1:], across[..., :-1]) / (energies[0] + _FAINT**2 * 10),
        _mean_product(down[:, :, 1:], down[:, :, :-1]) / (energies[1] + _FAINT**2 * 10),
    ]
    sizes = np.abs(corner).reshape(*corner.shape[:2], -1)
    ranks = [sizes.shape[2] // share for share in _SHARES]
    quiet = np.log(np.partition(sizes, ranks, axis=2)[..., ranks] + _FAINT).reshape(len(planes), -1)
    return np.concatenate([*(np.log(energy + _FAINT**2) / 2 for energy in energies), *together, quiet], axis=1)


def _mean_product(one: Array, other: Array) -> Array:
    """(N, planes, H, W) each -> (N, planes)."""
    return np.asarray(np.einsum("npij,npij->np", one, other) / (one.shape[2] * one.shape[3]))


def _oddness(x: Array, arrays: Mapping[str, Array]) -> Array:
    """(N, D): the distance from clean rows and the oddest feature, logarithms."""
    gaps = x.astype(np.float64) - arrays["centre"]
    white = gaps @ arrays["whitening"] if "whitening" in arrays else gaps / arrays["spread"]
    odd = [(white**2).mean(axis=1), np.abs(gaps / arrays["spread"]).max(axis=1)]
    return np.stack([np.log(value + _FAINT) for value in odd], axis=1)
