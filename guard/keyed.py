"""Randomness that defends: keyed by a secret and a coarse digest of the row.

The same row gives the same draw, in whatever batch and however often it comes, so that repeating a query averages
nothing out; whoever lacks the secret cannot foretell it. The digest is of 16 levels a value, so that most tiny changes
of a row change nothing, either.
"""

from hashlib import blake2b

import numpy as np

from guard.types import Array

_TOP_LEVEL = np.float32(15)
_KEY_BYTES = 16  # of a Philox generator
_DRAW_BYTES = 8
_SPARE, _DRAWS = 11, 2.0**53


def draws(said: bytes, secret: bytes, person: bytes, count: int = 1) -> tuple[float, ...]:
    """So many numbers (8 at most), even in [0, 1): the same from every replica, and nobody's to foretell.

    secret: at most 64 bytes. person: what they are for, at most 16 bytes.
    """
    digest = blake2b(said, key=secret, digest_size=_DRAW_BYTES * count, person=person).digest()
    words = (int.from_bytes(digest[at : at + _DRAW_BYTES], "big") for at in range(0, len(digest), _DRAW_BYTES))
    return tuple((word >> _SPARE) / _DRAWS for word in words)  # as many bits as a float has: none of them is 1


def generators(x: Array, secret: bytes) -> list[np.random.Generator]:
    """(N, ...) unit form, at most 64 bytes -> one generator a row."""
    return [_generator(row, secret) for row in x]


def _generator(row: Array, secret: bytes) -> np.random.Generator:
    coarse = np.ascontiguousarray(np.rint(row * _TOP_LEVEL).astype(np.uint8))
    digest = blake2b(coarse.data, digest_size=_KEY_BYTES, key=secret).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, np.dtype("<u8")).astype(np.uint64)))
