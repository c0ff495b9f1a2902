"""Rounding: probabilities on a grid of 10^-decimals, rows still summing to 1, the argmax kept and alone at the top.

Source:  Tramer et al. 2016, arXiv:1609.02943 (section 7); rounding that keeps the sum is the largest-remainder method.
Answers: small steps of score-based attacks, which see a flat loss; equation solving needs more queries. Known bypass:
         weak alone; larger steps, decision-based attacks, averaging over dithered inputs.
Args:    probs: (N, C), rows sum to 1; suspicion: (N,) bool, rows to protect.
Returns: (N, C), protected rows on the grid. Where two classes would tie at the top, the original argmax takes the unit.
Cost:    about 20 us a protected row.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from guard.registry import register
from guard.types import Array, Bools

_NOISE = 1e-9  # of a unit: 0.3 * 10 is 3 units, whatever its last bit says


@register("output", "rounding")
@dataclass(frozen=True)
class Rounding:
    """This many decimals."""

    light: ClassVar[bool] = True
    decimals: Annotated[int, Field(ge=0, le=6)] = 1

    def protect(self, probs: Array, suspicion: Bools) -> Array:
        """(N, C), (N,) -> (N, C)."""
        units = 10**self.decimals
        out = probs.copy()
        for row in np.flatnonzero(suspicion):
            out[row] = _apportion(probs[row].astype(np.float64), units) / units
        return out


def _apportion(p: NDArray[np.float64], units: int) -> NDArray[np.int64]:
    """(C,) shares -> (C,) whole units, by largest remainder, with p's argmax ahead of every other class."""
    exact = p / p.sum() * units
    whole: NDArray[np.int64] = np.floor(exact + _NOISE).astype(np.int64)
    left = units - int(whole.sum())
    top = int(p.argmax())
    waiting = np.argsort(whole - exact, kind="stable")  # each other class gets at most one unit more
    waiting = waiting[waiting != top]
    while left > 0:
        whole[top] += 1
        left -= 1
        fits = whole[waiting] + 1 < whole[top]
        whole[waiting[fits][:left]] += 1
        left -= min(left, int(fits.sum()))
        waiting = waiting[~fits]
    level = np.flatnonzero(whole == whole[top])  # on the grid as they came
    if len(level) > 1:
        whole[level[level != top][-1]] -= 1
        whole[top] += 1
    return whole
