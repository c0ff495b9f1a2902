"""Few directions in which models are sensitive: low frequencies, and small images enlarged.

Both are separable: a small (h, w) array z becomes the image R z C' with R: (H, h), C: (W, w).
"""

from dataclasses import dataclass

import numpy as np

from adversary.attack import Array


def cosines(n: int) -> Array:
    """(n, n): the orthonormal DCT-II basis, a column a frequency, the lowest first."""
    k, i = np.arange(n), np.arange(n)[:, None]
    basis = np.sqrt(2.0 / n) * np.cos(np.pi * (2 * i + 1) * k / (2 * n))
    basis[:, 0] = np.sqrt(1.0 / n)
    return np.asarray(basis)


def enlargement(n: int, small: int) -> Array:
    """(n, small): linear interpolation between the centres of pixels, the edge repeated beyond."""
    place = np.clip((np.arange(n) + 0.5) * small / n - 0.5, 0.0, small - 1.0)
    left = np.minimum(place.astype(np.int64), max(0, small - 2))
    matrix = np.zeros((n, small))
    matrix[np.arange(n), left] = 1.0 - (place - left)
    matrix[np.arange(n), np.minimum(left + 1, small - 1)] += place - left
    return matrix


@dataclass(frozen=True, slots=True, eq=False)
class Subspace:
    """rows: (H, h), columns: (W, w)."""

    rows: Array
    columns: Array

    @property
    def small(self) -> tuple[int, int]:
        """(h, w)."""
        return self.rows.shape[1], self.columns.shape[1]

    def lift(self, z: Array) -> Array:
        """(..., h, w) -> (..., H, W)."""
        return np.asarray(self.rows @ z @ self.columns.T)


def low_frequencies(height: int, width: int, share: float) -> Subspace:
    """The lowest `share` of the frequencies along each side, at least one."""
    return Subspace(cosines(height)[:, : _part(height, share)], cosines(width)[:, : _part(width, share)])


def enlarged(height: int, width: int, share: float) -> Subspace:
    """Images of `share` times the sides, enlarged."""
    return Subspace(enlargement(height, _part(height, share)), enlargement(width, _part(width, share)))


def _part(side: int, share: float) -> int:
    return min(side, max(1, int(side * share + 1e-9)))
