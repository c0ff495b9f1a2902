"""Whether a caller's latest rows are spread over the cells of clean embeddings as clean rows answered alike are.

Source:  k-means cells (Lloyd 1982) of the auxiliary's embedding and a chi-squared statistic, brought to a normal scale
         by Wilson and Hilferty 1931; coverage of classes and feature space as a sign of extraction: Kesarwani et al.
         2018, arXiv:1711.07221.
Answers: extraction whose queries touch too few cells (variants of some seeds, one generator) or cover them too evenly
         (designed queries). Known bypass: queries drawn from the model's own data; mixing such in.
Args:    recent: `window` rows' embeddings (E,) of length 1 and labels. Learns the centres and, for each class that has
         enough clean rows, how often clean rows fall into each cell; so a caller may ask about one class.
Returns: the absolute deviation of the histogram's chi-squared from its expectation; higher = less like clean rows.
         LEAST where it is less: a small drift of benign traffic must not add up.
Cost:    0.1 ms a window; no upstream row. Arrays: (cells, E) and at most (101, cells) float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from guard.features import AUXILIARY
from guard.monitors._clean import FEWEST_OF_GROUP, Groups, clean_labels, embedding_of
from guard.registry import register
from guard.types import Array, Equipment, Material, Recent

LEAST = 4.0  # deviations; clean windows hardly reach it
_ROUNDS = 25
_FLOOR = 0.5  # rows, added to what is expected of a cell
_SMOOTHING = 8.0  # rows of the whole set that each class is given
_TINY = 1e-9


@register("monitor", "coverage")
@dataclass(frozen=True)
class Coverage:
    """window: rows judged together; cells: how many there are."""

    needs: ClassVar[tuple[str, ...]] = (AUXILIARY,)
    window: Annotated[int, Field(ge=16, le=256)] = 128
    cells: Annotated[int, Field(ge=4, le=256)] = 64

    def learn(self, material: Material) -> Mapping[str, Array]:
        """Centres, and cells' shares by class. Raises ValueError: too few rows."""
        labels = clean_labels(material)
        if len(labels) < max(FEWEST_OF_GROUP, 2 * self.cells):
            raise ValueError(f"{self.cells} cells need at least {2 * self.cells} clean rows, not {len(labels)}")
        rows = embedding_of(material.networks[AUXILIARY](material.x))
        centres, groups = _centres(rows, self.cells, np.random.default_rng(material.seed)), Groups.of(labels)
        counts = np.eye(self.cells)[_cell(rows, centres)]
        whole, sizes = counts.mean(axis=0), (groups.members(labels) > 0).sum(axis=1, keepdims=True)
        shares = (groups.members(labels) @ counts * sizes + _SMOOTHING * whole) / (sizes + _SMOOTHING)
        return {"centres": centres, "classes": groups.known, "shares": shares.astype(np.float32)}

    def equip(self, equipment: Equipment) -> "_Working":
        """The monitor at work."""
        arrays = equipment.arrays
        groups = Groups(arrays["classes"].astype(np.int64))
        return _Working(self.window, arrays["centres"].astype(np.float32), groups, arrays["shares"].astype(np.float64))


@dataclass(frozen=True, eq=False)
class _Working:
    window: int
    centres: Array
    groups: Groups
    shares: Array

    def judge_window(self, recent: Recent) -> float:
        """-> the score."""
        observed = np.bincount(_cell(recent.embeddings, self.centres), minlength=len(self.centres))
        shares = self.shares[self.groups.at(recent.labels)]
        wanted, variance = shares.sum(axis=0), (shares * (1.0 - shares)).sum(axis=0)
        found = float(((observed - wanted) ** 2 / (wanted + _FLOOR)).sum())
        usual = max(float((variance / (wanted + _FLOOR)).sum()), _TINY)
        spread = 2.0 / (9.0 * usual)
        return max(LEAST, float(abs(((found / usual) ** (1.0 / 3.0) - (1.0 - spread)) / np.sqrt(spread))))


def _centres(rows: Array, cells: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(N, E) -> (cells, E): Lloyd's rounds from rows drawn by chance; a cell that empties begins anew at a row."""
    centres = rows[rng.choice(len(rows), cells, replace=False)].astype(np.float32)
    for _ in range(_ROUNDS):
        cell = _cell(rows, centres)
        sums = np.zeros_like(centres, dtype=np.float64)
        np.add.at(sums, cell, rows)
        counts = np.bincount(cell, minlength=cells)
        fresh = rows[rng.choice(len(rows), cells, replace=False)]
        mean = sums / np.maximum(counts, 1)[:, None]
        centres = np.where(counts[:, None] > 0, mean, fresh).astype(np.float32)
    return centres


def _cell(rows: Array, centres: Array) -> NDArray[np.int64]:
    """(N, E) -> (N,) the nearest centre."""
    nearness = (
        rows.astype(np.float64) @ centres.astype(np.float64).T - (centres.astype(np.float64) ** 2).sum(axis=1) / 2
    )
    return np.asarray(nearness.argmax(axis=1), dtype=np.int64)
