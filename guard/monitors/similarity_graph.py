"""Similarity graph: clusters of queries that grow around one input, whoever sends them.

Source:  QPA (S&P 2025): each query joins its nearest earlier one where they are alike enough, and what is tested is the
         cluster. There, by Grubbs's test on summed edge weights and a network on graphs; here by an e-process: each
         row that joins brings a p-value, against how close clean rows come to each other, and `guard.watching` weighs a
         cluster's evidence against the number of rows among which one was looked for.
Answers: query-based evasion from many accounts, or hidden in other traffic. Known bypass: queries that keep their
         distance from each other (at the price of what they learn), or that move as a camera does.
Args:    rows as the store knows them.
Returns: (N,), 0 where a row joins nothing, else more the closer it is, and the less motion explains it.
Cost:    microseconds a row.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from guard.monitors._links import kind, near
from guard.registry import register
from guard.types import Array, Past, Seen

_CLOSEST = 1e-6


@register("monitor", "similarity_graph")
@dataclass(frozen=True)
class SimilarityGraph:
    """Options.

    reach:     how far a row may be from what it joins, relative to its own length.
    explained: links of which no more than this share is unexplained are motion, and join nothing.
    """

    credits: ClassVar[str] = "component"
    searches: ClassVar[bool] = True

    reach: Annotated[float, Field(gt=0, le=2)] = 0.5
    explained: Annotated[float, Field(ge=0, le=1)] = 0.4

    def joins(self, row: Seen) -> bool:
        """Whether a row joins its nearest neighbour's cluster."""
        return near(row, self.reach, self.explained) is not None

    def judge(self, rows: tuple[Seen, ...], past: Past) -> Array:
        """-> (N,)."""
        del past
        return np.array([self._score(row) for row in rows], dtype=np.float64)

    def _score(self, row: Seen) -> float:
        link = near(row, self.reach, self.explained)
        if link is None:
            return 0.0
        return kind(link, self.explained) * (1.0 + math.log(self.reach / max(_CLOSEST, link.distance)))
