"""The fingerprint of a row: hashes of its quantised, salted windows, the largest of them.

Rows that agree exactly over some stretch share hashes, however much the rest differs.

Source:   Blacklight, Li et al. 2022, arXiv:2006.14042, with the slips of the published code mended: the salt shifts
          each position's grid instead of wrapping values around (modulo 255 or 256 black and white are neighbours); a
          flat image has as many hashes as any other; all arithmetic is on whole numbers, so float32 and float64 callers
          leave one fingerprint; windows that are flat (the blank border that all handwritten digits share) count only
          where there is nothing else.
Cost:     0.01 ms (32x32x3), 0.30 ms (224x224x3); numpy alone 0.03 and 0.40: in parts that stay in a processor's cache,
          and of each part only hashes larger than those found so far are looked at.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from guard import kernels
from guard.types import Array

Words = NDArray[np.uint64]

FINGERPRINTS = 24
"""Half of what Blacklight keeps: hashes that overlap by all but one value say much the same, and each costs the store
a look-up."""
BELOW = np.uint64((1 << 62) - 1)
"""What a hash of this family may have; the other family has the bit above."""

_STEP = 50  # Blacklight's, for natural images
_EDGE = _STEP // 2
_WINDOW, _WINDOW_LARGE, _LARGE = 20, 50, 64 * 64 * 3
_SPARE = np.uint64(1)  # bits of a word that come to nothing: sums compare by the others
_PART = 1 << 15  # windows


def fingerprint(row: Array, secret: bytes) -> Words:
    """Of one row in [0, 1], all windows' hashes the largest FINGERPRINTS, those of textured windows first; distinct."""
    levels = np.asarray(cv2.convertScaleAbs(row.reshape(1, -1), alpha=255.0), dtype=np.uint8).reshape(row.shape)
    width = max(1, min(_WINDOW_LARGE if levels.size > _LARGE else _WINDOW, levels.size // 2))
    largest = _plain if kernels.compiled is None else _compiled
    found = largest(levels, _grid(secret, levels.size), width) >> _SPARE & BELOW
    return np.array(sorted(set(found.tolist())), np.uint64)  # of so few, less than np.unique takes


def _compiled(levels: NDArray[np.uint8], grid: "_Grid", width: int) -> Words:
    """The largest sums, of textured windows where there are enough."""
    found = np.empty(FINGERPRINTS, np.uint64)
    line, channels = (levels[0].size, levels[0, 0].size) if levels.ndim > 1 else (levels.size, 1)
    filled = kernels.compiled.largest_windows(
        levels, grid.salt, grid.weights, grid.symbols, line, channels, width, _EDGE, found
    )
    return found[:filled]


def _plain(levels: NDArray[np.uint8], grid: "_Grid", width: int) -> Words:
    """The same."""
    values, edges = levels.ravel(), _edges(levels, _EDGE).ravel()
    best = _largest(values, grid, edges, width, textured=True)
    if len(best) < FINGERPRINTS:
        best = np.concatenate([best, _largest(values, grid, edges, width, textured=False)[-FINGERPRINTS + len(best) :]])
    return best


def _largest(
    values: NDArray[np.uint8], grid: "_Grid", edges: NDArray[np.bool_], width: int, *, textured: bool
) -> Words:
    """The largest hashes of those windows that are textured, or of those that are not; upwards, at most so many."""
    best = np.zeros(0, np.uint64)
    for at in range(0, values.size - width + 1, _PART):
        part = slice(at, at + _PART + width - 1)
        words = np.take(grid.symbols, np.add(values[part], grid.salt[part], dtype=np.int64))
        words *= grid.weights[part]
        sums = _window_sums(words, width)
        wanted = _any_of(edges[part], width) == textured
        if len(best) == FINGERPRINTS:
            wanted &= sums > best[0]
        found = sums[wanted]
        best = np.concatenate([best, found]) if len(best) else found
        if len(best) > FINGERPRINTS:
            best = np.partition(best, len(best) - FINGERPRINTS)[-FINGERPRINTS:]
        best.sort()
    return best


def _window_sums(values: Words, width: int) -> Words:
    """Sums, wrapping around, over values[i : i + width], by differences of running sums."""
    running = np.empty(values.size + 1, np.uint64)
    running[0] = 0
    np.cumsum(values, out=running[1:])
    return running[width:] - running[:-width]


def _any_of(marks: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Whether any of marks[i : i + width] is set, by windows of twice the width of those before."""
    reach = 1
    while reach < width:
        step = min(reach, width - reach)
        marks, reach = marks[:-step] | marks[step:], reach + step
    return marks


def _edges(levels: NDArray[np.uint8], least: int) -> NDArray[np.bool_]:
    """Where a value differs from its left neighbour's (the same channel's) by more than `least`."""
    lines = levels if levels.ndim > 1 else levels[None]
    here, left = lines[:, 1:], lines[:, :-1]
    steps = np.zeros(lines.shape, np.bool_)
    np.greater(np.maximum(here, left) - np.minimum(here, left), least, out=steps[:, 1:])
    return steps


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """salt: (M,) below the step, a shift of each position's grid. weights: (M,) odd. symbols: a word a salted value."""

    salt: NDArray[np.uint16]
    weights: Words
    symbols: Words


@lru_cache(maxsize=8)
def _grid(secret: bytes, size: int) -> _Grid:
    """All from the secret."""
    bins = (255 + _STEP - 1) // _STEP + 1
    stream = hashlib.shake_256(b"guard fingerprint" + secret).digest((bins + size) * 8 + size * 2)
    words = np.frombuffer(stream, dtype="<u8", count=bins + size).astype(np.uint64)
    salt = np.frombuffer(stream, dtype="<u2", offset=(bins + size) * 8).astype(np.uint16) % np.uint16(_STEP)
    symbols = np.repeat(words[:bins] << _SPARE, _STEP)[: 255 + _STEP]
    return _Grid(salt, words[bins:] | np.uint64(1), symbols)
