"""Adaptive misinformation: the less sure the model, the more of its answer is about another class.

Source:  Kariyappa, Qureshi 2020, arXiv:1911.07100: y' = (1 - a) y + a y_wrong, a = sigmoid(slope (delta - max y)), so
         that inputs that look out of distribution, as a thief's do, are answered wrongly. At max y = delta half of it
         is wrong. Two things differ. Their y_wrong is a second network, taught to be wrong; here it is the answer's own
         probabilities on other classes, the largest on one that a secret and a coarse digest of the input choose and
         the smallest on the true one: as sure as an honest answer, and the same for the same input. But it does not
         vary smoothly with the input as a network does, so a clone takes it rather for noise in labels than for a
         function to learn. And theirs changes labels, of honest callers' unsure inputs, too: here, unless `keep_label`
         is false, the mix stops at 0.95 of the way to the tie, so that the wrong class comes a close second.
Answers: extraction with inputs that are not the model's own (natural images, noise, synthetic). Known bypass: a thief
         with inputs like the model's own; one who drops unsure answers, or, with the label kept, uses labels alone.
Args:    x: (N, ...) the inputs; probs: (N, C), rows sum to 1; suspicion: (N,) bool, rows to protect.
Returns: (N, C), rows sum to 1; protected rows well above delta stay what they are but for exp(-slope (max y - delta)).
Cost:    50 us a batch; an unsure row of ten classes 30 us (the digest of 32x32x3), of a thousand 130 us.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from guard import keyed
from guard.outputs import _rows
from guard.registry import register
from guard.types import Array, Bools, Equipment

_FAR = 700.0  # exp of it is still a float64
_NOTHING = 1e-9  # a share of misinformation that leaves an answer as it is


@register("output", "adaptive_misinformation")
@dataclass(frozen=True)
class AdaptiveMisinformation:
    """delta: the confidence at which half of the answer is wrong. slope: how sharply that sets in.

    keep_label: false as published: unsure inputs get a wrong label, honest callers' as well.
    """

    delta: Annotated[float, Field(gt=0, le=1)] = 0.7
    slope: Annotated[float, Field(gt=0, le=10_000)] = 1000.0
    keep_label: bool = True

    def equip(self, equipment: Equipment) -> "_Working":
        """With the secret that chooses the wrong classes."""
        return _Working(self, equipment.secret)


@dataclass(frozen=True, eq=False)
class _Working:
    options: AdaptiveMisinformation
    secret: bytes

    def protect_keyed(self, x: Array, probs: Array, suspicion: Bools) -> Array:
        """(N, ...), (N, C), (N,) -> (N, C)."""
        distance = self.options.slope * (probs.max(axis=1, initial=0).astype(np.float64) - self.options.delta)
        share = 1 / (1 + np.exp(np.clip(distance, -_FAR, _FAR)))
        rows = np.flatnonzero(suspicion & (share > _NOTHING))
        p, part = _rows.exact(probs[rows]), share[rows][:, None]
        mixed = (1 - part) * p + part * _wrong(p, keyed.generators(x[rows], self.secret))
        if not self.options.keep_label:
            return _rows.replaced(probs, rows, mixed)
        top = p.argmax(axis=1)
        return _rows.replaced(probs, rows, _rows.short_of_a_tie(p, mixed, top), top)


def _wrong(p: NDArray[np.float64], draws: list[np.random.Generator]) -> NDArray[np.float64]:
    """(N, C) -> its probabilities, largest first, on the other classes in a drawn order; the last on its argmax."""
    made = np.empty_like(p)
    classes = p.shape[1]
    for row, out, draw in zip(p, made, draws, strict=True):
        top = int(row.argmax())
        others = draw.permutation(classes - 1)
        out[[*(others + (others >= top)), top]] = np.sort(row)[::-1]
    return made
