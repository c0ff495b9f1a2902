"""Fingerprint: how much of an input was seen before, by keyed hashes of quantised, salted windows.

Source:  Blacklight, Li et al. 2022, arXiv:2006.14042, with the slips of the published code mended: the salt shifts each
         position's grid instead of wrapping values around (modulo 255 or 256 black and white are neighbours); a flat
         image has as many hashes as any other; all arithmetic is on whole numbers, so float32 and float64 callers leave
         one fingerprint; windows that are flat (the blank border that all handwritten digits share) count only where
         there is nothing else.
Answers: query-based evasion, whose queries resemble each other. Known bypass: steps tuned to what is accepted (OARS,
         Feng et al. 2023, arXiv:2303.06280), noise or shifts on every pixel, accounts that never share an image. So it
         is evidence about a caller, never grounds to refuse one query. Benign near-repeats (video frames) count as
         evidence too; exact repeats are retries and score 0.
Args:    x: (N, H, W, C) or (N, D) float32 in [0, 1].
Returns: sketches of at most `hashes` uint64 below 2^63; scores (N,) in [0, 1], the share of hashes in the closest
         earlier row. The closest of more rows is closer: expect benign scores to grow with what the store holds.
Cost:    0.04 ms (28x28) to 1 ms (224x224x3) an image and 400 bytes kept.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from guard.registry import register
from guard.types import Array, History, Sketch

Words = NDArray[np.uint64]

_LARGE = 64 * 64 * 3
_TEXTURED = np.uint64(1 << 63)


@register("monitor", "fingerprint")
@dataclass(frozen=True)
class Fingerprint:
    """Options: the paper's, at its values for natural images.

    window:  values under one hash; 0: 20, and 50 for inputs of more than 64x64x3 values. At most half the input.
    stride:  values from one window to the next.
    step:    grey levels (of 256) that fall together.
    hashes:  how many are kept.
    """

    window: Annotated[int, Field(ge=0, le=4096)] = 0
    stride: Annotated[int, Field(ge=1, le=4096)] = 1
    step: Annotated[int, Field(ge=1, le=128)] = 50
    hashes: Annotated[int, Field(ge=1, le=1024)] = 50

    def sketch(self, x: Array, secret: bytes) -> tuple[Sketch, ...]:
        """(N, ...) unit form -> one sketch a row."""
        key = hashlib.blake2b(secret, person=b"guard digest").digest()
        return tuple(Sketch(_digest(row, key), self._hashes(row, secret)) for row in x)

    def judge(self, sketches: tuple[Sketch, ...], history: History) -> Array:
        """-> (N,): shared hashes over hashes; 0 for exact repeats."""
        return np.array(
            [
                0.0 if match.duplicate else match.overlap / max(1, sketch.hashes.size)
                for sketch, match in zip(sketches, history.matches, strict=True)
            ],
            dtype=np.float64,
        )

    def _hashes(self, row: Array, secret: bytes) -> Words:
        """Of all windows' hashes the largest, those of textured windows first; distinct."""
        levels = np.rint(np.clip(row, 0.0, 1.0) * 255.0).astype(np.uint8)
        salt, weights, symbols = _keys(secret, levels.size, self.step)
        bins = (levels.ravel() + salt) // self.step
        width = max(1, min(self.window or (50 if levels.size > _LARGE else 20), levels.size // 2))
        sums = _window_sums(symbols[bins] * weights, width, self.stride) | _TEXTURED
        flat = _window_sums(_edges(levels, self.step // 2).astype(np.int32), width, self.stride) == 0
        sums[flat] &= ~_TEXTURED
        rest = sums.size - min(self.hashes, sums.size)
        return np.unique(np.partition(sums, rest)[rest:] & ~_TEXTURED)


def _edges(levels: NDArray[np.uint8], least: int) -> NDArray[np.bool_]:
    """Flattened: where a value differs from its left neighbour's (the same channel's) by more than `least`."""
    axis = 1 if levels.ndim > 1 else 0
    steps = np.abs(np.diff(levels.astype(np.int16), axis=axis)) > least
    return np.insert(steps, 0, False, axis=axis).ravel()


def _window_sums(values: Array, width: int, stride: int) -> Array:
    """Sums, wrapping around, over values[i : i + width] for i = 0, stride, ..., by differences of running sums."""
    running = np.zeros(values.size + 1, dtype=values.dtype)
    np.cumsum(values, dtype=values.dtype, out=running[1:])
    return np.asarray(running[width::stride] - running[: running.size - width : stride])


def _digest(row: Array, key: bytes) -> bytes:
    plain = np.ascontiguousarray(row, dtype=np.float32) + np.float32(0)  # -0.0 is 0.0
    return hashlib.blake2b(plain.tobytes(), key=key, digest_size=16).digest()


@lru_cache(maxsize=8)
def _keys(secret: bytes, size: int, step: int) -> tuple[NDArray[np.uint16], Words, Words]:
    """A salt below `step` and an odd weight for each position, and a word for each bin, all from the secret."""
    bins = (255 + step - 1) // step + 1
    stream = hashlib.shake_256(b"guard fingerprint" + secret).digest((bins + size) * 8 + size * 2)
    words = np.frombuffer(stream, dtype="<u8", count=bins + size).astype(np.uint64)
    salt = np.frombuffer(stream, dtype="<u2", offset=(bins + size) * 8).astype(np.uint16)
    return salt % np.uint16(step), words[bins:] | np.uint64(1), words[:bins]
