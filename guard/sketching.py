"""What Guard keeps of a row instead of the row: digests, hashes that similar rows share, and a keyed projection.

**Fingerprint.** Blacklight, Li et al. 2022, arXiv:2006.14042, with the slips of the published code mended: the salt
shifts each position's grid instead of wrapping values around (modulo 255 or 256 black and white are neighbours); a flat
image has as many hashes as any other; all arithmetic is on whole numbers, so float32 and float64 callers leave one
fingerprint; windows that are flat (the blank border that all handwritten digits share) count only where there is
nothing else. Of a row's window hashes the HASHES largest are kept.

**Bands.** Signs of keyed random projections of the pooled row (Charikar 2002), BITS to a hash, BANDS hashes: rows that
differ by noise on every value, which no window survives, still share one of them.

**Position.** A keyed Gaussian projection (Johnson and Lindenstrauss 1984) of the pooled, mean-centred row: distances
between positions are nearly those between rows, and without the key it says nothing.

**Motions.** Where the row's position would move if the image were shifted, zoomed, turned or brightened a little: its
derivatives, projected like the row. What a camera or a player makes of one scene is explained by them
(`guard.linking`), what a search does is not. They are made from the row itself and never kept.

Everything is keyed: neither digests nor positions mean anything to whoever lacks the secret.
"""

import hashlib
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from guard.types import Array, Floats, Network, Sketch

Words = NDArray[np.uint64]

HASHES = 24
BANDS, BITS = 8, 20
DIMENSIONS = 48
SIDE = 32
_STEP = 50  # grey levels (of 256) that fall together in a fingerprint
_LARGE = 64 * 64 * 3
_MOST_VALUES = 4096  # of a vector that is projected as it is
_IMAGE = 3
_TEXTURED = np.uint64(1 << 63)
_BELOW = np.uint64((1 << 63) - 1)


class Sketcher:
    """A model's sketches. auxiliary: the profile's network, where a monitor wants embeddings."""

    def __init__(self, secret: bytes, auxiliary: Network | None = None) -> None:
        self._secret = secret
        self._digest_key = hashlib.blake2b(secret, person=b"guard digest").digest()
        self._auxiliary = auxiliary

    def __call__(self, unit: Array) -> tuple[Sketch, ...]:
        """(N, H, W, C) or (N, D) float32 in [0, 1] -> one sketch a row."""
        if not len(unit):
            return ()
        pooled = _pooled(unit)
        centred = pooled - pooled.mean(axis=tuple(range(1, pooled.ndim)), keepdims=True)
        matrix, planes, odds = _projections(self._secret, centred[0].size)
        positions = centred.reshape(len(unit), -1) @ matrix
        motions = _motions(centred) @ matrix if unit.ndim > _IMAGE else np.zeros((len(unit), 0, DIMENSIONS), np.float32)
        bands = _bands(centred.reshape(len(unit), -1) @ planes, odds)
        embeddings = self._embeddings(unit)
        return tuple(
            Sketch(
                _digest(row, self._digest_key),
                np.union1d(_fingerprint(row, self._secret), bands[i]),
                positions[i],
                motions[i],
                embeddings[i],
            )
            for i, row in enumerate(unit)
        )

    def _embeddings(self, unit: Array) -> Floats:
        if self._auxiliary is None:
            return np.zeros((len(unit), 0), np.float32)
        return np.asarray(self._auxiliary(unit)["embedding"], np.float32)


def _digest(row: Array, key: bytes) -> bytes:
    plain = np.ascontiguousarray(row, dtype=np.float32) + np.float32(0)  # -0.0 is 0.0
    return hashlib.blake2b(plain.tobytes(), key=key, digest_size=16).digest()


# --- the pooled row


def _pooled(unit: Array) -> Floats:
    """Images at most SIDE high and wide, vectors at most _MOST_VALUES long; float32."""
    if unit.ndim <= _IMAGE:
        flat = unit.reshape(len(unit), -1).astype(np.float32)
        if flat.shape[1] <= _MOST_VALUES:
            return flat
        edges = np.linspace(0, flat.shape[1], _MOST_VALUES + 1).astype(np.int64)[:-1]
        return np.asarray(np.add.reduceat(flat, edges, axis=1) / (flat.shape[1] / _MOST_VALUES), np.float32)
    height, width = min(SIDE, unit.shape[1]), min(SIDE, unit.shape[2])
    if (height, width) == unit.shape[1:3]:
        return np.asarray(unit, np.float32)
    made = [cv2.resize(np.ascontiguousarray(row), (width, height), interpolation=cv2.INTER_AREA) for row in unit]
    return np.stack(made).reshape(len(unit), height, width, unit.shape[3])


@lru_cache(maxsize=16)
def _projections(secret: bytes, size: int) -> tuple[Floats, Floats, Words]:
    """(size, D) for positions, (size, BANDS * BITS) for bands, and an odd word for each band."""
    seed = int.from_bytes(hashlib.blake2b(secret, digest_size=32, person=b"guard position").digest(), "little")
    rng = np.random.Generator(np.random.PCG64(seed))
    matrix = rng.standard_normal((size, DIMENSIONS), dtype=np.float32) / np.float32(np.sqrt(DIMENSIONS))
    planes = rng.standard_normal((size, BANDS * BITS), dtype=np.float32)
    return matrix, planes, rng.integers(0, 1 << 63, BANDS, dtype=np.uint64) | np.uint64(1)


def _bands(heights: Floats, odds: Words) -> Words:
    """(N, BANDS * BITS) -> (N, BANDS)."""
    bits = (heights.reshape(len(heights), BANDS, BITS) > 0).astype(np.uint64)
    words = bits @ (np.uint64(1) << np.arange(BITS, dtype=np.uint64)) + np.uint64(1)
    return np.asarray((words * odds * odds[::-1]) & _BELOW)


def _motions(x: Floats) -> Floats:
    """(N, H, W, C) -> (N, K, H*W*C): what shift, zoom, rotation, contrast and tone change; the shift's second order."""
    dx, dy = _along(x, 2), _along(x, 1)
    height, width = x.shape[1:3]
    across = (np.arange(width, dtype=np.float32) - (width - 1) / 2)[None, None, :, None] / np.float32(width)
    down = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[None, :, None, None] / np.float32(height)
    second = (_along(dx, 2), _along(dy, 1), _along(dx, 1))
    made = (dx, dy, across * dx + down * dy, down * dx - across * dy, x, x * x, *second)
    return np.stack([one.reshape(len(x), -1) for one in made], axis=1)


def _along(x: Floats, axis: int) -> Floats:
    """Central differences; at the edges none."""
    out = np.zeros_like(x)
    inner = [slice(None)] * x.ndim
    ahead, behind = list(inner), list(inner)
    inner[axis], ahead[axis], behind[axis] = slice(1, -1), slice(2, None), slice(None, -2)
    out[tuple(inner)] = (x[tuple(ahead)] - x[tuple(behind)]) / 2
    return out


# --- the fingerprint


def _fingerprint(row: Array, secret: bytes) -> Words:
    """Of all windows' hashes the largest, those of textured windows first; distinct."""
    levels = np.rint(np.clip(row, 0.0, 1.0) * 255.0).astype(np.uint8)
    salt, weights, symbols = _keys(secret, levels.size)
    bins = (levels.ravel() + salt) // _STEP
    width = max(1, min(50 if levels.size > _LARGE else 20, levels.size // 2))
    sums = _window_sums(symbols[bins] * weights, width) | _TEXTURED
    flat = _window_sums(_edges(levels, _STEP // 2).astype(np.int32), width) == 0
    sums[flat] &= ~_TEXTURED
    rest = sums.size - min(HASHES, sums.size)
    return np.unique(np.partition(sums, rest)[rest:] & ~_TEXTURED)


def _edges(levels: NDArray[np.uint8], least: int) -> NDArray[np.bool_]:
    """Flattened: where a value differs from its left neighbour's (the same channel's) by more than `least`."""
    axis = 1 if levels.ndim > 1 else 0
    steps = np.abs(np.diff(levels.astype(np.int16), axis=axis)) > least
    return np.insert(steps, 0, False, axis=axis).ravel()


def _window_sums(values: Array, width: int) -> Array:
    """Sums, wrapping around, over values[i : i + width] for every i, by differences of running sums."""
    running = np.zeros(values.size + 1, dtype=values.dtype)
    np.cumsum(values, dtype=values.dtype, out=running[1:])
    return np.asarray(running[width:] - running[: running.size - width])


@lru_cache(maxsize=8)
def _keys(secret: bytes, size: int) -> tuple[NDArray[np.uint16], Words, Words]:
    """A salt below the step and an odd weight for each position, and a word for each bin, all from the secret."""
    bins = (255 + _STEP - 1) // _STEP + 1
    stream = hashlib.shake_256(b"guard fingerprint" + secret).digest((bins + size) * 8 + size * 2)
    words = np.frombuffer(stream, dtype="<u8", count=bins + size).astype(np.uint64)
    salt = np.frombuffer(stream, dtype="<u2", offset=(bins + size) * 8).astype(np.uint16)
    return salt % np.uint16(_STEP), words[bins:] | np.uint64(1), words[:bins]
