"""How near each row lies, in the auxiliary's embedding, to the caller's own recent rows.

Near means near for this part of the space: with dim the dimension of the clean embeddings, rho the distance to a tenth
of the clean rows, m the number of recent rows within rho, and d the distance to the nearest recent row, the score is
-ln m - dim ln(d / rho): about -ln of the chance that one of m unrelated rows is so near. So a caller who asks about one
class alone, whose rows lie closer together, is no more suspicious than others.

Source:  Chen, Carlini, Wagner 2019, arXiv:1907.05587 (k nearest in the space of an encoder); SEAT, Zhang et al. 2021
         (k = 1). Mended against published code: a row never counts itself, and nothing is wiped after a finding.
Answers: query-based evasion and synthetic extraction (JBDA), whose queries are variants of each other, also where
         fingerprints differ. Known bypass: accounts that share no image; variants that the auxiliary sees as different
         (noise on images that it knows little of).
Args:    rows: sketches with embeddings (E,) of length 1. past.recent: the caller's latest rows. Learns the embeddings
         of at most `rows` clean rows and their dimension (Levina and Bickel's estimate).
Returns: (N,) higher = nearer; LEAST without recent rows near, for duplicates, and where smooth motion (pan, zoom,
         brightness) explains the nearest earlier row.
Cost:    0.1 ms a row (2,000 x 64); no upstream row. Array: (rows, E) float16, at most 256 KB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from guard.features import AUXILIARY
from guard.monitors._clean import FEWEST_OF_GROUP, clean_embeddings
from guard.registry import register
from guard.types import Array, Equipment, Material, Past, Seen

LEAST = -20.0
NATURAL = 0.5  # of the difference unexplained; below, it is motion
_AROUND = 0.1
_DIMENSION_FROM = 20
_TINY = 1e-6


@register("monitor", "embedding_neighbours")
@dataclass(frozen=True)
class EmbeddingNeighbours:
    """neighbours: the nearest whose mean distance counts; recent: of the caller's rows, the latest; rows: clean."""

    needs: ClassVar[tuple[str, ...]] = (AUXILIARY,)
    opt_in: ClassVar[bool] = True  # films look like searches to it
    neighbours: Annotated[int, Field(ge=1, le=20)] = 1
    recent: Annotated[int, Field(ge=1, le=256)] = 64
    rows: Annotated[int, Field(ge=FEWEST_OF_GROUP, le=2000)] = 2000

    def learn(self, material: Material) -> Mapping[str, Array]:
        """The reference and its dimension. Raises ValueError: too few rows."""
        reference, _ = clean_embeddings(material, self.rows)
        if len(reference) < FEWEST_OF_GROUP:
            raise ValueError(f"learns from at least {FEWEST_OF_GROUP} clean rows, and there are {len(reference)}")
        return {"reference": reference, "dimension": np.array([_dimension(reference)])}

    def equip(self, equipment: Equipment) -> "_Working":
        """The monitor at work."""
        arrays = equipment.arrays
        reference = arrays["reference"].astype(np.float32)
        return _Working(self.neighbours, self.recent, reference, float(arrays["dimension"][0]))


@dataclass(frozen=True, eq=False)
class _Working:
    neighbours: int
    recent: int
    reference: Array
    dimension: float

    def judge(self, rows: tuple[Seen, ...], past: Past) -> Array:
        """-> (N,)."""
        found = np.full(len(rows), LEAST)
        recent = past.recent.last(self.recent).embeddings
        asked = [i for i, row in enumerate(rows) if not row.match.duplicate and not _moves(row)]
        if not asked or not len(recent):
            return found
        embedded = np.stack([rows[i].sketch.embedding for i in asked])
        around = np.quantile(_distances(embedded, self.reference), _AROUND, axis=1)
        to_recent = np.sort(_distances(embedded, recent), axis=1)
        near = to_recent[:, : self.neighbours].mean(axis=1)
        count = np.maximum((to_recent < around[:, None]).sum(axis=1), 1)
        score = -np.log(count) - self.dimension * np.log((near + _TINY) / (around + _TINY))
        found[asked] = np.maximum(score, LEAST)
        return found


def _moves(row: Seen) -> bool:
    """Whether the row is an earlier one that has moved."""
    return row.link is not None and row.link.unexplained < NATURAL


def _dimension(rows: Array) -> float:
    """Levina and Bickel 2004 over the nearest rows, averaged as MacKay and Ghahramani do."""
    squared = _distances(rows, rows)
    np.fill_diagonal(squared, np.inf)
    nearest = np.maximum(np.sort(squared, axis=1)[:, :_DIMENSION_FROM], _TINY)
    inverse = np.log(nearest[:, -1:] / nearest[:, :-1]).mean()
    return float(1.0 / max(inverse, 1.0 / rows.shape[1]))


def _distances(some: Array, others: Array) -> Array:
    """(N, E), (R, E) of length 1 -> (N, R)."""
    return np.asarray(np.sqrt(np.maximum(2.0 - 2.0 * some.astype(np.float64) @ others.astype(np.float64).T, 0.0)))
