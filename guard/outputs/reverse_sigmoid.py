"""Reverse sigmoid: answers bent so that different probabilities give nearly the same answer.

Source:  Lee, Edwards, Molloy, Su 2018, arXiv:1806.00054: y' = a (y - beta (sigmoid(gamma logit(y)) - 1/2)), a such that
         rows sum to 1. As published the argmax gets lost on some rows (2 % with beta 1, gamma 0.1); here the bend of
         such a row stops at 0.95 of the way to the tie.
Answers: extraction by soft labels: small probabilities are raised and large ones lowered, so that a clone that takes
         the answers at their word learns badly. Known bypass: with labels alone a clone learns as without it; the
         curve is the same for everybody, so a thief who has some true answers fits its inverse (D-DAE, pBayes).
Args:    probs: (N, C), rows sum to 1; suspicion: (N,) bool, rows to protect.
Returns: (N, C), rows sum to 1. beta = gamma = 1 would be the uniform answer: it ends just short of that.
Cost:    40 us a batch; a row of ten classes 0.5 us, of a thousand 25 us.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from guard.outputs import _rows
from guard.registry import register
from guard.types import Array, Bools


@register("output", "reverse_sigmoid")
@dataclass(frozen=True)
class ReverseSigmoid:
    """beta: how far an answer is bent. gamma: how sharply the bend sets in between small and large probabilities."""

    light: ClassVar[bool] = True
    beta: Annotated[float, Field(gt=0, le=1)] = 1.0
    gamma: Annotated[float, Field(gt=0, le=10)] = 0.1

    def protect(self, probs: Array, suspicion: Bools) -> Array:
        """(N, C), (N,) -> (N, C)."""
        rows = np.flatnonzero(suspicion)
        p = _rows.exact(probs[rows])
        top = p.argmax(axis=1)
        made = _rows.short_of_a_tie(p, p - self._bend(p), top)
        return _rows.replaced(probs, rows, made / made.sum(axis=1, keepdims=True), top)

    def _bend(self, p: Array) -> Array:
        """The bend, beta (sigmoid(gamma logit(p)) - 1/2), for 0 and 1 as well."""
        yes, no = np.power(p, self.gamma), np.power(1 - p, self.gamma)
        return np.asarray(self.beta * (yes / (yes + no) - 0.5))
