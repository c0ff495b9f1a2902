"""Label only: the answer keeps its largest class and nothing else.

Source:  Tramer et al. 2016, arXiv:1609.02943 (extraction warns of confidences); Shokri et al. 2017, arXiv:1610.05820.
Answers: score-based evasion, equation solving, inversion and confidence-based membership inference. Known bypass:
         decision-based attacks (HopSkipJump), extraction by hard labels, label-only membership inference
         (Choquette-Choo et al. 2021, arXiv:2007.14321): each at more queries.
Args:    probs: (N, C), rows sum to 1; suspicion: (N,) bool, rows to protect.
Returns: (N, C), protected rows 1 at the argmax (the first of equals) and 0 elsewhere.
Cost:    a few us a batch.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from guard.registry import register
from guard.types import Array, Bools


@register("output", "label_only")
@dataclass(frozen=True)
class LabelOnly:
    """One-hot answers."""

    light: ClassVar[bool] = True

    def protect(self, probs: Array, suspicion: Bools) -> Array:
        """(N, C), (N,) -> (N, C)."""
        rows = np.flatnonzero(suspicion)
        out = probs.copy()
        out[rows] = 0
        out[rows, probs[rows].argmax(axis=1)] = 1
        return out
