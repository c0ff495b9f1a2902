"""How good a copy of the served model a caller's answered queries could support by now.

In-distribution extraction cannot be told from use by looks: only how much was answered counts. A curve says how often a
copy that learned from n answered clean inputs agrees with the served model; a caller's rows are counted against it.

Source:  Knockoff Nets, Orekondy et al. 2019, arXiv:1812.02766 (copies by answered natural images); graded cost by
         what a query gives away: Dziedzic et al. 2022, arXiv:2201.09243.
Units:   agreement in [0, 1], as a share of inputs; n in rows.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guard.types import Array, Level, Recent

FEWEST_RECENT = 8
SAME = 0.15  # of a row's length: nearer rows teach a copy nothing new


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """agreement: (K,) of a copy from so many answered rows, counts: (K,) ascending and positive. It never falls."""

    counts: NDArray[np.float64]
    agreement: NDArray[np.float64]

    @classmethod
    def of(cls, counts: Array, agreement: Array) -> "Curve":
        """From measured points, in any order; noise that makes it fall is taken out. Raises ValueError."""
        n, share = (np.asarray(values, dtype=np.float64).ravel() for values in (counts, agreement))
        if not len(n) or len(n) != len(share):
            raise ValueError("a curve needs points, and one agreement a count")
        if not (np.isfinite(n).all() and np.isfinite(share).all()) or (n <= 0).any():
            raise ValueError("counts must be positive, and all numbers finite")
        if (share < 0).any() or (share > 1).any():
            raise ValueError("agreement lies between 0 and 1")
        order = np.argsort(n, kind="stable")
        if (np.diff(n[order]) <= 0).any():
            raise ValueError("a count is there twice")
        return cls(n[order], np.maximum.accumulate(share[order]))

    def at(self, rows: float) -> float:
        """The agreement after so many rows: straight in ln n between points and, below the first, from 0 at no rows.

        Beyond the last point its slope goes on (of the last two points), up to 1: nobody has measured that.
        """
        if rows <= 0:
            return 0.0
        log, points = math.log1p(rows), np.log1p(self.counts)
        if rows <= self.counts[-1]:
            return float(np.interp(log, [0.0, *points], [0.0, *self.agreement]))
        before = (points[-2], self.agreement[-2]) if len(points) > 1 else (0.0, 0.0)
        slope = (self.agreement[-1] - before[1]) / (points[-1] - before[0])
        return float(min(1.0, self.agreement[-1] + slope * (log - points[-1])))

    def rows_for(self, agreement: float) -> float:
        """The fewest rows that reach this agreement; infinity where none do."""
        if agreement <= 0:
            return 0.0
        low, high = 0.0, 60.0  # ln of rows
        if self.at(math.expm1(high)) < agreement:
            return math.inf
        for _ in range(100):
            middle = (low + high) / 2.0
            low, high = (low, middle) if self.at(math.expm1(middle)) >= agreement else (middle, high)
        return math.expm1(high)


@dataclass(frozen=True, slots=True)
class Limits:
    """At which agreement a caller reaches each level; None: never."""

    watch: float | None = 0.5
    suspect: float | None = 0.7
    hostile: float | None = None

    def level(self, agreement: float) -> Level:
        """The highest level reached."""
        marks = ((Level.HOSTILE, self.hostile), (Level.SUSPECT, self.suspect), (Level.WATCH, self.watch))
        return next((level for level, mark in marks if mark is not None and agreement >= mark), Level.CLEAR)


def fresh_share(recent: Recent) -> float:
    """The share of a caller's recent rows that are not near-copies of an earlier one of them; 1 where few are known.

    A video of one scene teaches a copy little. Rows that are far from everything count in full, also those that are
    unlike the model's inputs, which teach less: so much is overestimated.
    """
    if len(recent) < FEWEST_RECENT:
        return 1.0
    rows = recent.positions.astype(np.float64)
    lengths = (rows**2).sum(axis=1)
    squared = lengths[:, None] + lengths[None] - 2.0 * rows @ rows.T
    near = np.tril(squared < SAME**2 * np.maximum(lengths[:, None], 1e-12), -1)
    return float(1.0 - near.any(axis=1).mean())


def effective_rows(answered: int, recent: Recent) -> float:
    """How many of a caller's answered rows count: as many as there are, times the share of fresh ones."""
    return answered * fresh_share(recent)
