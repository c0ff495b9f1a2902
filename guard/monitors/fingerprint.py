"""Fingerprint: how much of an input was seen before, by keyed hashes that similar inputs share.

Source:  Blacklight, Li et al. 2022, arXiv:2006.14042; the hashes are those of `guard.sketching`, the published code's
         slips mended, and bands of projections' signs beside them, which noise on every value does not change.
Answers: query-based evasion, whose queries resemble each other. Known bypass: steps tuned to what is accepted (OARS,
         Feng et al. 2023, arXiv:2303.06280), noise or shifts on every pixel, accounts that never share an image. So it
         is evidence about a caller, never grounds to refuse one query. Exact repeats are retries and score 0, and so
         do near-repeats that natural motion explains (`guard.linking`).
Args:    rows as the store knows them.
Returns: (N,) in [0, 1], the share of hashes in the closest earlier row, times how little of the difference motion
         explains. The closest of more rows is closer: `guard.nearness` makes up for what the store holds.
Cost:    a microsecond a row; what sketching costs is told there.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from guard.monitors._links import kind
from guard.registry import register
from guard.types import Array, Past, Seen


@register("monitor", "fingerprint")
@dataclass(frozen=True)
class Fingerprint:
    """explained: links of which no more than this share is unexplained are motion."""

    searches: ClassVar[bool] = True

    explained: Annotated[float, Field(ge=0, le=1)] = 0.4

    def judge(self, rows: tuple[Seen, ...], past: Past) -> Array:
        """-> (N,): shared hashes over hashes."""
        del past
        return np.array([self._score(row) for row in rows], dtype=np.float64)

    def _score(self, row: Seen) -> float:
        if row.match.duplicate or (row.link is not None and row.link.unexplained <= self.explained):
            return 0.0
        share = row.match.overlap / max(1, row.sketch.hashes.size)
        return share if row.link is None else share * kind(row.link, self.explained)
