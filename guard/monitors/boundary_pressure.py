"""Boundary pressure: answers that flip, or nearly tie, between inputs that are all but the same.

Source:  what decision-based attacks live on (Brendel et al. 2018, arXiv:1712.04248; HopSkipJump, Chen et al. 2020,
         arXiv:1904.02144): they walk along the boundary, and learn from each flip; that the links are those of the
         similarity graph (QPA, S&P 2025) keeps benign near ties, which are of unlike inputs, out of it.
Answers: decision-based attacks, and score-based ones near their end. On a model that answers with labels, by flips
         alone. Known bypass: queries that keep their distance from each other, or that move as a camera does.
Args:    rows as the store knows them; probs: (N, C) rows that sum to 1, or 0 and 1.
Returns: (N,) in [0, 2]: 0 for a row that joins nothing; for a flip 1 to 2, the closer the more; otherwise 1 - margin,
         the margin that between the two likeliest classes.
Cost:    microseconds a row.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from guard.monitors._links import near
from guard.registry import register
from guard.types import Array, Floats, Past, Seen


@register("monitor", "boundary_pressure")
@dataclass(frozen=True)
class BoundaryPressure:
    """Options.

    reach:     how far a row may be from the one it is compared with, relative to its own length.
    explained: links of which no more than this share is unexplained are motion, and count for nothing.
    """

    compares: ClassVar[bool] = True
    opt_in: ClassVar[bool] = True  # films whose labels flicker look like searches to it

    reach: Annotated[float, Field(gt=0, le=2)] = 0.5
    explained: Annotated[float, Field(ge=0, le=1)] = 0.4

    def judge_answers(self, rows: tuple[Seen, ...], past: Past, probs: Array) -> Array:
        """(N, C) -> (N,)."""
        del past
        found = (self._score(row, answer) for row, answer in zip(rows, probs, strict=True))
        return np.fromiter(found, dtype=np.float64, count=len(rows))

    def _score(self, row: Seen, answer: Floats) -> float:
        """Of a row that is linked. A neighbour whose answer nobody knows has not flipped."""
        link = near(row, self.reach, self.explained)
        if link is None:
            return 0.0
        if link.neighbour.label not in (-1, int(answer.argmax())):
            return 2.0 - min(1.0, link.distance / self.reach)
        if answer.size < 2:  # noqa: PLR2004 - a margin is between two
            return 0.0
        second, first = np.partition(np.asarray(answer, dtype=np.float64), -2)[-2:]
        return float(np.clip(1.0 - (first - second), 0.0, 1.0))
