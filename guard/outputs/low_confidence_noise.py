"""Low-confidence noise: Gaussian noise on the logits of answers near a decision boundary, the same for the same input.

Source:  Aithal, Li 2022, arXiv:2201.13444 (Boundary Defense: sigma 0.1 where the confidence is below 0.3, ImageNet).
         Theirs is drawn anew for every query and may change the label, which is what hard-label attacks trip over.
         Here a secret and a coarse digest of the input decide it, so that repeating a query averages nothing out, and
         the label is kept unless `keep_label` is false: where noise puts a rival first, the two change places.
Answers: gradient and direction estimates near a boundary by scores. Known bypass: while the label is kept, attacks by
         label alone are not touched at all; an input that differs in any step of the digest's grid draws new noise, so
         an average over inputs nearby, rather than over repeats of one, takes it away; attacks far from a boundary.
Args:    x: (N, ...) the inputs; probs: (N, C), rows sum to 1; suspicion: (N,) bool, rows to protect.
Returns: (N, C), protected rows whose largest probability is below the threshold with noise, all others as they are.
Cost:    40 us a batch; a noisy row of ten classes 20 us (the digest of 32x32x3), of a thousand 60 us.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from guard import keyed
from guard.outputs import _rows
from guard.registry import register
from guard.types import Array, Bools, Equipment


@register("output", "low_confidence_noise")
@dataclass(frozen=True)
class LowConfidenceNoise:
    """sigma: of the noise on logits. threshold: the confidence below which there is any.

    keep_label: false as published: the noise may change the label, for honest callers as well.
    """

    sigma: Annotated[float, Field(gt=0, le=10)] = 0.1
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.3
    keep_label: bool = True

    def equip(self, equipment: Equipment) -> "_Working":
        """With the secret that keys the noise."""
        return _Working(self, equipment.secret)


@dataclass(frozen=True, eq=False)
class _Working:
    options: LowConfidenceNoise
    secret: bytes

    def protect_keyed(self, x: Array, probs: Array, suspicion: Bools) -> Array:
        """(N, ...), (N, C), (N,) -> (N, C)."""
        rows = np.flatnonzero(suspicion & (probs.max(axis=1, initial=0) < self.options.threshold))
        p = _rows.exact(probs[rows])
        noise = np.empty(p.shape)
        for out, draw in zip(noise, keyed.generators(x[rows], self.secret), strict=True):
            draw.standard_normal(out=out)
        made = _rows.softmax(_rows.log_of(p) + self.options.sigma * noise)
        if not self.options.keep_label:
            return _rows.replaced(probs, rows, made)
        top = p.argmax(axis=1)
        return _rows.replaced(probs, rows, _rows.led_by(made, top), top)
