"""Sketches: what is kept of a row instead of the row, and how an earlier one like it is found again.

Hashes of two families, told apart by one bit. Most are a fingerprint of quantised, salted windows (`guard.windows`):
they find rows that agree exactly over some stretch, however much the rest differs. Some are signs of random projections
of a coarse image (`_signs`): they find rows that differ everywhere, by a little. The position is a random projection of
the pooled image without its mean, so that a change of brightness alone is hardly one; the motions say how the position
moves as a camera or its exposure does.

Source:   Charikar 2002 (signs of projections as hashes); Simard et al. 1998 (tangent vectors), to the second order,
          since edges do not move linearly.
Measured: (seed 0) signs alone find 99.7 % of 1,000 CIFAR-10 rows again under white noise, 97.6 % under smooth noise, of
          0.2 of the row's length (MNIST: 99.7 and 99.3 %; 200 crops of photographs: 100 and 95.5 %). Of 10,000 clean
          rows one shares a band with 0.9 others on average (MNIST 23, whose digits are alike).
Cost:     0.07 ms (28x28), 0.13 ms (32x32x3), 0.64 ms (224x224x3) for a row on its own (docs/results/scale.md).
"""

import hashlib
from functools import lru_cache

import cv2
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from guard import kernels
from guard.types import Array, Floats, Network, Sketch
from guard.windows import BELOW, Words, fingerprint

DIMENSIONS = 48
TONES = 3
"""The last of a sketch's motions: contrast, and what clips at white and at black. The others are of geometry."""

_SIGNED = BELOW + np.uint64(1)

_SIDE = 32  # of the pooled image, at most
_COARSE = 16  # of the image whose signs are hashed, at most
_BANDS, _BITS = 8, 20
_SMOOTH_SHARE, _SMOOTH_SIGMA = 0.5, 2.0
_LONG = 4096  # vectors beyond are folded
_FOLDED, _FOLDED_COARSE = 1024, 256
_IMAGES = 4
_CV_CHANNELS = 4
_BLOCK = 32  # rows that are worked on at once
_PART = 1 << 14  # values of a row
_MOTIONS, _ITSELF = 10, 7
_POWERS = np.float32(2.0) ** np.arange(_BITS, dtype=np.float32)  # their sums are exact
_FIRSTS = np.arange(1, _BANDS + 1, dtype=np.float32) * np.float32(2.0**_BITS)
_WHITE, _BLACK = 0.9, 0.1


_ON_LEVEL = 1e-3  # of a grey level
_ROUNDINGS = 1.5  # times the mean: projections scatter


class Sketcher:
    """Makes sketches, one a row; the same row always gives the same one.

    secret:    keys all that is random.
    auxiliary: the profile's, for embeddings; None: there are none.
    """

    def __init__(self, secret: bytes, auxiliary: Network | None = None) -> None:
        self._secret, self._auxiliary = secret, auxiliary
        self._key = hashlib.blake2b(secret, digest_size=32, person=b"guard digest").digest()

    def __call__(self, unit: Floats) -> tuple[Sketch, ...]:
        """(N, H, W, C) or (N, D) float32 in [0, 1] -> N sketches. Raises ValueError for an unfit auxiliary."""
        if not len(unit):
            return ()
        x, clean = _cleaned(unit)
        positions, motions, signs = _in_blocks(clean, self._secret)
        embeddings = self._embeddings(x)
        return tuple(
            Sketch(
                digest=_digest(row, self._key),
                hashes=np.concatenate([fingerprint(clean[i], self._secret), signs[i]]),
                position=positions[i],
                motions=motions[i],
                embedding=embeddings[i],
                grain=_grain(x[i]),
            )
            for i, row in enumerate(unit)
        )

    def positions(self, unit: Floats) -> Floats:
        """(N, ...), finite -> (N, D) float32, the sketches' positions alone."""
        return _in_blocks(np.clip(unit, 0.0, 1.0), self._secret)[0]

    def _embeddings(self, x: Floats) -> Floats:
        if self._auxiliary is None:
            return np.zeros((len(x), 0), np.float32)
        found = self._auxiliary(x.astype(np.float32, copy=False)).get(
            "embedding"
        )  # no copy: detectors ask about x, too
        if found is None:
            raise ValueError("the auxiliary has no output named embedding")
        return np.asarray(found, dtype=np.float32)


def _cleaned(unit: Floats) -> tuple[Floats, Floats]:
    """Without NaN and infinity, and of that what lies in [0, 1]; the rows themselves where all of them does."""
    if not unit.size or (unit.min() >= 0.0 and unit.max() <= 1.0):
        return unit, unit
    x = unit if np.isfinite(unit).all() else np.nan_to_num(unit, nan=0.0, posinf=1.0, neginf=0.0)
    return x, np.clip(x, 0.0, 1.0)


def _digest(row: Array, key: bytes) -> bytes:
    values, found = np.ascontiguousarray(row, dtype=np.float32).ravel(), blake3(key=key)
    for at in range(0, values.size, _PART):
        found.update((values[at : at + _PART] + np.float32(0)).tobytes())  # -0.0 is 0.0
    return found.digest(length=16)


def _grain(row: Floats) -> float:
    """Of two rows of whole grey levels, rounded each for itself, the squared distance when pooled; 0 for other rows."""
    if row.ndim + 1 != _IMAGES or not _whole_levels(row.ravel()):
        return 0.0
    height, width, channels = row.shape
    kept = min(height, _SIDE) * min(width, _SIDE) * channels
    averaged = kept / row.size
    smoothed = 1.0 if averaged == 1.0 else (6.0 / 16.0) ** 2
    return float(_ROUNDINGS * kept * averaged * smoothed / (6.0 * 255.0**2))


def _whole_levels(values: Floats) -> bool:
    for at in range(0, values.size, _PART):
        levels = values[at : at + _PART] * np.float32(255.0)
        if np.abs(levels - np.rint(levels)).max() > _ON_LEVEL:
            return False
    return True


# --- position, motions, signs


def _in_blocks(x: Floats, secret: bytes) -> tuple[Floats, Floats, Words]:
    """(N, ...) in [0, 1] -> positions (N, D), motions (N, K, D), sign hashes (N, _BANDS)."""
    placed = _placed if x.ndim == _IMAGES else _placed_vectors
    if len(x) <= _BLOCK:
        return placed(x, secret)
    blocks = [placed(x[i : i + _BLOCK], secret) for i in range(0, len(x), _BLOCK)]
    positions, motions, signs = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return positions, motions, signs


def _placed(x: Floats, secret: bytes) -> tuple[Floats, Floats, Words]:
    """Of images."""
    pooled = _pooled(x, _SIDE)
    if pooled.shape[1:3] != x.shape[1:3]:
        pooled = _smoothed(pooled)
    moved = _moved(pooled).reshape(len(x), _MOTIONS, -1)
    motions = moved @ _centred(secret, moved.shape[2])
    coarse = _pooled(pooled, _COARSE).sum(axis=3)
    coarse -= coarse[:, :1, :1].copy()  # likewise
    return motions[:, _ITSELF], motions, _signs(coarse, secret)


def _placed_vectors(x: Floats, secret: bytes) -> tuple[Floats, Floats, Words]:
    """Vectors less their mean, which stays as one value more; they have no motions."""
    x = x.reshape(len(x), -1)
    mean = x.mean(axis=1, keepdims=True)
    plain = np.concatenate([x - mean, mean], axis=1)
    fine = plain if plain.shape[1] <= _LONG + 1 else _folded(plain, secret, _FOLDED)
    position = fine @ _gaussian(secret, b"position", fine.shape[1], DIMENSIONS)
    coarse = plain if plain.shape[1] <= _FOLDED_COARSE else _folded(plain, secret, _FOLDED_COARSE)
    return (
        position,
        np.zeros((len(x), 0, DIMENSIONS), np.float32),
        _coded(coarse, _drawn(secret, coarse.shape[1]), secret),
    )


def _pooled(x: Floats, side: int) -> Floats:
    """Area means, at most side x side."""
    n, height, width, channels = x.shape
    size = min(width, side), min(height, side)
    if size == (width, height):
        return x
    if channels > _CV_CHANNELS:  # OpenCV takes some at a time
        parts = [_pooled(x[..., i : i + _CV_CHANNELS], side) for i in range(0, channels, _CV_CHANNELS)]
        return np.concatenate(parts, axis=3)
    out = np.empty((n, size[1], size[0], channels), np.float32)
    for i, row in enumerate(x):
        image = np.ascontiguousarray(row, dtype=np.float32)
        out[i] = cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(out[i].shape)
    return out


def _smoothed(x: Floats) -> Floats:
    """By 1, 2, 1 along both sides: what pooling aliases would not move as the image does."""
    p = _framed(x)
    p = p[:, :-2] + 2.0 * p[:, 1:-1] + p[:, 2:]
    return np.asarray((p[:, :, :-2] + 2.0 * p[:, :, 1:-1] + p[:, :, 2:]) * np.float32(1 / 16))


def _framed(x: Floats) -> Floats:
    """With each edge repeated once."""
    n, height, width, channels = x.shape
    p = np.empty((n, height + 2, width + 2, channels), np.float32)
    p[:, 1:-1, 1:-1] = x
    p[:, 0, 1:-1], p[:, -1, 1:-1] = x[:, 0], x[:, -1]
    p[:, :, 0], p[:, :, -1] = p[:, :, 1], p[:, :, -2]
    return p


def _moved(x: Floats) -> Floats:
    """(N, H, W, C) -> (N, 10, H, W, C): shifts, zoom, turn, the shifts' second order, the image itself, clipping."""
    out = np.empty((len(x), _MOTIONS, *x.shape[1:]), np.float32)
    if kernels.compiled is not None:
        kernels.compiled.moved(
            np.ascontiguousarray(x, np.float32), *_axes(*x.shape[1:3]), *x.shape[1:], _WHITE, _BLACK, out
        )
        return out
    p, across, down = _framed(x), *_axes(*x.shape[1:3])
    u, v = across[:, None], down[:, None, None]
    left, right, above, below = p[:, 1:-1, :-2], p[:, 1:-1, 2:], p[:, :-2, 1:-1], p[:, 2:, 1:-1]
    one, other = np.empty_like(x), np.empty_like(x)  # written to again and again: less for the cache to hold
    dx, dy = np.subtract(right, left, out=out[:, 0]), np.subtract(below, above, out=out[:, 1])
    np.add(np.multiply(u, dx, out=one), np.multiply(v, dy, out=other), out=out[:, 2])
    np.subtract(np.multiply(u, dy, out=one), np.multiply(v, dx, out=other), out=out[:, 3])
    twice = np.add(x, x, out=one)
    np.subtract(np.add(left, right, out=other), twice, out=out[:, 4])
    np.subtract(np.add(above, below, out=other), twice, out=out[:, 5])
    falling = np.add(p[:, 2:, 2:], p[:, :-2, :-2], out=one)
    np.subtract(falling, np.add(p[:, 2:, :-2], p[:, :-2, 2:], out=other), out=out[:, 6])
    out[:, _ITSELF] = x
    np.maximum(np.subtract(x, np.float32(_WHITE), out=one), 0.0, out=out[:, 8])
    np.maximum(np.subtract(np.float32(_BLACK), x, out=one), 0.0, out=out[:, 9])
    tones = out[:, _ITSELF:].reshape(len(x), _MOTIONS - _ITSELF, -1)
    tones -= tones[:, :, :1].copy()  # any constant will do, and so what is uniform is nothing at all, not nearly
    return out


@lru_cache(maxsize=8)
def _axes(height: int, width: int) -> tuple[Floats, Floats]:
    """(W,), (H,): how far a value lies from the middle, across and down, over the side."""
    across, down = (np.arange(n, dtype=np.float32) - np.float32((n - 1) / 2) for n in (width, height))
    return across / np.float32(width), down / np.float32(height)


def _signs(coarse: Floats, secret: bytes) -> Words:
    """(N, H, W), of any mean -> (N, _BANDS)."""
    return _coded(coarse.reshape(len(coarse), -1), _planes(secret, coarse.shape[1], coarse.shape[2]), secret)


def _coded(values: Floats, planes: Floats, secret: bytes) -> Words:
    """(N, M), (M, _BANDS _BITS) -> (N, _BANDS): a band's signs, spread over what the family has below its bit."""
    signs = values @ planes > 0
    codes = signs.reshape(len(values), _BANDS, _BITS) @ _POWERS + _FIRSTS
    return np.asarray((codes.astype(np.uint64) * _odd(secret)) & BELOW | _SIGNED)


def _drawn(secret: bytes, size: int) -> Floats:
    return _gaussian(secret, b"signs", size, _BANDS * _BITS)


@lru_cache(maxsize=8)
def _planes(secret: bytes, height: int, width: int) -> Floats:
    """(H W, _BANDS _BITS): projections of images, with half of what is smooth taken out, which all images share.

    Each sums to 0: an image's mean is none of it.
    """
    planes = _drawn(secret, height * width)
    if height > 1:
        smooth = [cv2.GaussianBlur(one.reshape(height, width), (0, 0), _SMOOTH_SIGMA).ravel() for one in planes.T]
        planes = planes - np.float32(_SMOOTH_SHARE) * np.stack(smooth, axis=1)
    return np.ascontiguousarray(planes - planes.mean(axis=0))


def _folded(x: Floats, secret: bytes, size: int) -> Floats:
    """(N, M) -> (N, size): values with random signs, summed in random groups, which keeps distances on average."""
    order, signs = _folding(secret, x.shape[1], size)
    padded = np.concatenate([x, np.zeros((len(x), 1), np.float32)], axis=1)
    return np.asarray((padded[:, order] * signs).reshape(len(x), -1, size).sum(axis=1), dtype=np.float32)


@lru_cache(maxsize=8)
def _folding(secret: bytes, long: int, size: int) -> tuple[NDArray[np.int64], Floats]:
    """Places, filled up with the one after the last, and signs."""
    rng = _generator(secret, b"folding")
    order = np.concatenate([rng.permutation(long), np.full(-long % size, long)])
    return order, rng.choice(np.array([-1.0, 1.0], np.float32), order.size)


@lru_cache(maxsize=16)
def _gaussian(secret: bytes, what: bytes, rows: int, columns: int) -> Floats:
    """A projection that keeps lengths on average."""
    drawn = _generator(secret, what).standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(drawn / np.float32(np.sqrt(columns)))


@lru_cache(maxsize=8)
def _centred(secret: bytes, rows: int) -> Floats:
    """The projection of a position; what it is given may have any mean."""
    drawn = _gaussian(secret, b"position", rows, DIMENSIONS)
    return np.asarray(drawn - drawn.mean(axis=0))


@lru_cache(maxsize=8)
def _odd(secret: bytes) -> np.uint64:
    return np.uint64(int(_generator(secret, b"spread").integers(1 << 62)) | 1)


def _generator(secret: bytes, what: bytes) -> np.random.Generator:
    seed = hashlib.blake2b(secret, digest_size=16, person=b"guard " + what).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(seed, np.dtype("<u8")).astype(np.uint64)))
