"""Gaussian vote: the answer is what the model makes of several copies of the input under Gaussian noise.

Source:  Cohen, Rosenfeld, Kolter 2019, arXiv:1902.02918 (randomised smoothing; their prediction is the majority vote).
         No certificate is given: a few copies are too few for one, and noise cut to the bounds is not Gaussian.
         The noise is keyed: a secret and a coarse digest of the row decide it, so that repeating a query averages
         nothing out.
Answers: small l2 perturbations near a boundary; the copies of a clean input agree where the model stands noise.
         Known bypass: expectation over the noise (EOT, Athalye et al. 2018, arXiv:1802.00420); perturbations larger
         than the noise. A model that never saw noise loses clean accuracy: measure it.
Args:    x: (N, ...) float32 in [0, 1], images or vectors; copy_probs[k]: (N, C), rows sum to 1.
Returns: copies: (N, ...) float32 in [0, 1], one array a sample; vote: (N, C), rows sum to 1.
Cost:    one upstream row per input and sample; the noise takes 10 us to 1.5 ms a copy (28x28 to 224x224x3).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from guard import keyed
from guard.registry import register
from guard.types import Array, Equipment


@register("purifier", "gaussian_vote")
@dataclass(frozen=True)
class GaussianVote:
    """sigma: of the noise, where 1 is the whole range. samples: copies. answer: shares of votes, or the mean answer."""

    sigma: Annotated[float, Field(gt=0, le=1)] = 0.02
    samples: Annotated[int, Field(ge=1, le=64)] = 8
    answer: Literal["votes", "mean"] = "votes"

    def equip(self, equipment: Equipment) -> "_Working":
        """With the secret that keys the noise."""
        return _Working(self, equipment.secret)


@dataclass(frozen=True, eq=False)
class _Working:
    options: GaussianVote
    secret: bytes

    def copies(self, x: Array) -> tuple[Array, ...]:
        """(N, ...) unit form -> one noisy array a sample."""
        draws = keyed.generators(x, self.secret)
        return tuple(self._noisy(x, draws) for _ in range(self.options.samples))

    def _noisy(self, x: Array, draws: list[np.random.Generator]) -> Array:
        out = np.empty(x.shape, np.float32)
        for row, target, draw in zip(x, out, draws, strict=True):
            np.multiply(draw.standard_normal(row.shape, np.float32), np.float32(self.options.sigma), out=target)
            np.clip(target + row, 0, 1, out=target)
        return out

    def vote(self, copy_probs: tuple[Array, ...]) -> Array:
        """(N, C) answers on each copy -> (N, C)."""
        mean = np.mean(copy_probs, axis=0)
        return _shares(copy_probs, mean) if self.options.answer == "votes" else np.asarray(mean)


def _shares(copy_probs: tuple[Array, ...], mean: Array) -> Array:
    """Each class's share of the votes. The mean answer has one vote, too, which it splits: it decides ties only."""
    counts = np.zeros_like(mean)
    rows = np.arange(len(mean))
    for probs in copy_probs:
        counts[rows, probs.argmax(axis=1)] += 1
    return np.asarray((counts + mean) / (len(copy_probs) + 1))
