"""AAA (Adversarial Attack on Attackers): the margin that score-based attacks follow, bent to lead them the wrong way.

Source:  Chen, Huang, Tao, Wu, Xie, Huang 2022, arXiv:2205.12134 (NeurIPS 2022). The margin m, largest logit less the
         second, falls into periods, with an attractor a in the middle of each. Linear: m' = a - strength (m - a), so
         that within a period a step towards the boundary looks like one away from it. Sine: m' = m + 0.7 strength
         period sin(2 pi m / period), without jumps. They reach m' by 100 steps of an optimiser that weighs it against a
         confidence target, softmax(z / T); here the top class is moved against the second until the margin is m'
         exactly, and gaps below the second are stretched, by 1/4 to 4, until the confidence is what it was, or as near
         as that allows. T is applied before the margin is taken, so that it calibrates wherever the margin is.
Answers: score-based evasion (Square, NES, SimBA, ...) and whatever else climbs the loss. Known bypass: the bend is the
         same always and one-to-one within a period: an attacker who knows of it climbs both ways (the authors'
         bi-Square) or undoes it; steps of more than a period get through; decision-based attacks see the label.
Args:    probs: (N, C), rows sum to 1; suspicion: (N,) bool, rows to protect.
Returns: (N, C), rows sum to 1. Confidence changes where the margin is within the first period or two: an honest
         caller's threshold on it means less. With two classes it follows from the margin alone.
Cost:    160 us a batch; a row of ten classes 2 us, of a thousand 140 us.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from guard.outputs import _rows
from guard.registry import register
from guard.types import Array, Bools

_AMPLITUDE = 0.7  # of the sine, in periods: the authors' code; margins stay positive
_STRETCH = (0.25, 4.0)
_HALVINGS = 20


@register("output", "aaa")
@dataclass(frozen=True)
class AAA:
    """form: of the bend. period: of the margin, in logits (the authors': 4 linear, 6 sine; more calibrates worse).

    strength: of the bend. temperature: above 1 for a model that is too sure; fit it on labelled data.
    """

    form: Literal["linear", "sine"] = "linear"
    period: Annotated[float, Field(ge=0.1, le=30)] = 2.0
    strength: Annotated[float, Field(gt=0, le=1)] = 1.0
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0

    def protect(self, probs: Array, suspicion: Bools) -> Array:
        """(N, C), (N,) -> (N, C)."""
        rows = np.flatnonzero(suspicion)
        if probs.shape[1] == 1:
            return probs.copy()
        logits = _rows.log_of(_rows.exact(probs[rows])) / self.temperature
        order = np.argsort(-logits, axis=1, kind="stable")
        falling = np.take_along_axis(logits, order, axis=1)
        bent = _with_margin(falling, self.margin(falling[:, 0] - falling[:, 1]))
        made = np.empty_like(logits)
        np.put_along_axis(made, order, bent, axis=1)
        return _rows.replaced(probs, rows, _rows.softmax(made), order[:, 0])

    def margin(self, margin: Array) -> Array:
        """(N,) margins >= 0 -> (N,) what is shown instead, >= 0."""
        if self.form == "sine":
            amplitude = _AMPLITUDE * self.strength * self.period
            return np.asarray(margin + amplitude * np.sin(2 * np.pi * margin / self.period))
        attractor = (np.floor(margin / self.period) + 0.5) * self.period
        return np.asarray(attractor - self.strength * (margin - attractor))


def _with_margin(falling: NDArray[np.float64], margin: Array) -> NDArray[np.float64]:
    """(N, C) logits, largest first -> the same with this margin and, as near as may be, the same confidence.

    With the second at 0, the first at `margin` and the others stretched, the confidence is e^m / (e^m + 1 + sum of the
    others' e^z): the sum that gives the wanted one is sought by halving.
    """
    gaps = falling[:, 2:] - falling[:, 1:2]
    confidence = _rows.softmax(falling)[:, 0]
    wanted = np.exp(margin) * (1 / confidence - 1) - 1
    low, high = (np.full(len(falling), np.log(end)) for end in _STRETCH)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        more = np.exp(np.exp(middle)[:, None] * gaps).sum(axis=1) > wanted  # stretch further
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    stretched = np.exp((low + high) / 2)[:, None] * gaps
    return np.concatenate([margin[:, None], np.zeros((len(gaps), 1)), stretched], axis=1)
