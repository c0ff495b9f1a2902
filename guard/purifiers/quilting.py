"""Quilting: the image put together anew from patches of clean images.

Source:  Guo, Rana, Cisse, van der Maaten 2018, arXiv:1711.00117 (patches of 5x5 that overlap by 2), after Efros,
         Freeman 2001. They take one of the ten nearest patches at random and join patches along the seam of least
         error; here it is the nearest found, overlaps are averaged, and small images, which lose too much to patches
         of 5x5, get 3x3. Patches lie in the cells of pivots, and only the cells of the nearest pivots are searched
         (Sivic, Zisserman 2003): the error is within 2 % of a full search.
Answers: small perturbations of any form, since no pixel of the input is in the output. Known bypass: attacks that
         choose among patches through a differentiable stand-in (BPDA, Athalye et al. 2018, arXiv:1802.00420). Detail
         that the bank lacks is lost, and clean accuracy with it.
Args:    x: (N, H, W, C) float32 in [0, 1], sides at least a patch's.
Returns: the same shape, dtype and bounds.
Cost:    2 to 25 ms an image (28x28 to 224x224x3) with the default bank; no upstream row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field

from guard import filters
from guard.registry import register
from guard.types import Array, Equipment, Material

_FINE, _COARSE, _SMALL = 3, 5, 64
_OVERLAP = 2
_PIVOTS = 128
_PROBES = 4  # cells looked at
_SPARE = 2  # so many times the bank are drawn, because some are alike


@register("purifier", "quilting")
@dataclass(frozen=True)
class Quilting:
    """patch: side of a patch; 0: 3 for images of at most 64x64, else 5. bank: the most clean patches that are kept."""

    needs_images: ClassVar[bool] = True
    patch: Literal[0, 3, 5, 7] = 0
    bank: Annotated[int, Field(ge=100, le=50_000)] = 20_000

    def learn(self, material: Material) -> Mapping[str, Array]:
        """A bank of distinct patches of clean images, cell by cell. Raises ValueError."""
        patch = _checked(material.x, self.patch)
        draw = np.random.default_rng(material.seed)
        patches = np.unique(_drawn(material.x, patch, self.bank * _SPARE, draw), axis=0)
        patches = patches[draw.permutation(len(patches))[: self.bank]]
        pivots = patches[:_PIVOTS].astype(np.float32)
        nearest = np.concatenate([_nearest(part, pivots, 1)[:, 0] for part in _parts(patches)])
        ends = np.cumsum(np.bincount(nearest, minlength=len(pivots)))
        return {"patches": patches[np.argsort(nearest, kind="stable")], "pivots": pivots, "ends": ends}

    def equip(self, equipment: Equipment) -> "_Working":
        """With the bank. Raises ValueError where there is none."""
        if not {"patches", "pivots", "ends"} <= set(equipment.arrays):
            raise ValueError("needs its bank of clean patches; `guard fit` with this stage makes it")
        patches = equipment.arrays["patches"].astype(np.float32)
        halves = np.einsum("bd,bd->b", patches, patches) / 2
        return _Working(self.patch, patches, halves, equipment.arrays["pivots"], equipment.arrays["ends"])


@dataclass(frozen=True, eq=False)
class _Working:
    """patches: (B, D) in [0, 255], cell by cell; halves: (B,) half of their squares; pivots: (K, D); ends: (K,)."""

    patch: int
    patches: Array
    halves: Array
    pivots: Array
    ends: Array

    def purify(self, x: Array) -> Array:
        """(N, H, W, C) unit form -> the same. Raises ValueError for images of other channels than the bank's."""
        patch = _checked(x, self.patch)
        if patch**2 * x.shape[-1] != self.patches.shape[1]:
            raise ValueError(f"its bank is of {self.patches.shape[1]} values a patch, not {patch**2 * x.shape[-1]}")
        out = np.empty(x.shape, np.float32)
        for image, target in zip(x, out, strict=True):
            target[...] = self._quilt(image, patch)
        return out

    def _quilt(self, image: Array, patch: int) -> Array:
        rows, columns = (_places(side, patch) for side in image.shape[:2])
        wanted = _windows(image, patch)[np.ix_(rows, columns)].reshape(len(rows) * len(columns), -1)
        found = self.patches[self._search(wanted * np.float32(255))]
        tiles = found.reshape(len(rows), len(columns), patch, patch, image.shape[-1])
        total, count = np.zeros(image.shape, np.float32), np.zeros(image.shape[:2], np.float32)
        for i, j in np.ndindex(patch, patch):
            place = np.ix_(rows + i, columns + j)
            total[place] += tiles[:, :, i, j]
            count[place] += 1
        return np.clip(total / (count[..., None] * np.float32(255)), 0, 1)

    def _search(self, wanted: Array) -> Array:
        """(Q, D) in [0, 255] -> (Q,) places in the bank: the nearest patches in the cells looked at."""
        cells = _nearest(wanted, self.pivots, _PROBES)
        asking, order = cells.ravel(), np.argsort(cells, axis=None, kind="stable")
        bounds = np.searchsorted(asking[order], np.arange(len(self.pivots) + 1))
        best, least = np.zeros(len(wanted), np.int64), np.full(len(wanted), np.inf, np.float32)
        for cell in np.unique(asking):
            start, end = self.ends[cell - 1] if cell else 0, self.ends[cell]
            who = order[bounds[cell] : bounds[cell + 1]] // cells.shape[1]
            distance = self.halves[start:end] - wanted[who] @ self.patches[start:end].T
            place = distance.argmin(axis=1)
            value = distance[np.arange(len(who)), place]
            nearer = value < least[who]
            best[who[nearer]], least[who[nearer]] = start + place[nearer], value[nearer]
        return best


def _checked(x: Array, patch: int) -> int:
    """The patch's side. Raises ValueError for what is no image, or smaller."""
    filters.require_images(x)
    side = patch or (_FINE if max(x.shape[1:3]) <= _SMALL else _COARSE)
    if min(x.shape[1:3]) < side:
        raise ValueError(f"needs images of at least {side} x {side} pixels, not {x.shape[1]} x {x.shape[2]}")
    return side


def _places(side: int, patch: int) -> Array:
    """Where patches begin: a step apart, and one at the end."""
    return np.unique([*range(0, side - patch + 1, patch - _OVERLAP), side - patch])


def _windows(image: Array, patch: int) -> Array:
    """(H, W, C) -> (H - patch + 1, W - patch + 1, patch, patch, C), no copy."""
    return np.moveaxis(sliding_window_view(image, (patch, patch), axis=(0, 1)), 2, -1)


def _drawn(x: Array, patch: int, count: int, draw: np.random.Generator) -> Array:
    """So many patches from anywhere, (count, D) uint8."""
    n, height, width, _ = x.shape
    images = draw.integers(n, size=count)
    rows, columns = draw.integers(height - patch + 1, size=count), draw.integers(width - patch + 1, size=count)
    inside = np.arange(patch)
    found = x[images[:, None, None], (rows[:, None] + inside)[:, :, None], (columns[:, None] + inside)[:, None, :]]
    return np.asarray(np.rint(found.reshape(count, -1) * 255), dtype=np.uint8)


def _nearest(patches: Array, pivots: Array, count: int) -> Array:
    """(Q, D), (K, D) -> (Q, count) the nearest pivots, in no order."""
    distance: Array = np.einsum("kd,kd->k", pivots, pivots) / 2 - patches.astype(np.float32) @ pivots.T
    count = min(count, len(pivots))
    return np.argpartition(distance, count - 1, axis=1)[:, :count]


def _parts(patches: Array, rows: int = 4096) -> list[Array]:
    return [patches[i : i + rows] for i in range(0, len(patches), rows)]
