"""Update direction: steps from query to query that are short and keep turning back.

Source:  GWAD (CVPR 2025): the cosines of consecutive differences of a caller's queries give away how an attack makes
         its steps. There, a histogram of 256 and a trained classifier; here one statistic of fewer, which needs no
         attacks to learn from. Independent images have cosines about -1/2, and so has noise around one image: what
         differs is how long the steps are. A camera's steps are short, too, but go on as they went.
Answers: query-based evasion by one caller: antithetic pairs, coordinates one by one, walks along a boundary, also where
         steps are made so long that hashes find nothing (OARS). Known bypass: many accounts, or so much other traffic
         in between that fewer than half of the steps are the attack's own; walks that go on as they went (the first
         steps of Boundary). Benign sensor noise over a scene at rest looks the same.
Args:    recent: the caller's latest rows, exact repeats left out.
Returns: the median over steps of -ln(length), 0 for a step that the next one does not turn back from (cosine above
         -0.3); lengths are relative to that between two unlike rows. 0 to about 9.
Cost:    0.1 ms a window.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from guard.registry import register
from guard.types import Recent

_BACK = -0.3
_SHORTEST = 1e-4
_TINY = 1e-12
_FEWEST = 3  # rows, for two steps


@register("monitor", "update_direction")
@dataclass(frozen=True)
class UpdateDirection:
    """window: rows that are judged together."""

    window: Annotated[int, Field(ge=8, le=256)] = 32

    def judge_window(self, recent: Recent) -> float:
        """-> the score of these rows."""
        places = recent.positions.astype(np.float64)
        if len(places) < _FEWEST or not places.shape[1]:
            return 0.0
        steps = np.diff(places, axis=0)
        lengths = np.maximum(np.linalg.norm(steps, axis=1), _TINY)
        squares = np.einsum("nd,nd->n", places, places)
        relative = lengths / np.sqrt(np.maximum(squares[:-1] + squares[1:], _TINY))
        cosines = np.einsum("nd,nd->n", steps[:-1], steps[1:]) / (lengths[:-1] * lengths[1:])
        longer = np.clip(np.maximum(relative[:-1], relative[1:]), _SHORTEST, 1.0)
        return float(np.median(np.where(cosines < _BACK, -np.log(longer), 0.0)))
