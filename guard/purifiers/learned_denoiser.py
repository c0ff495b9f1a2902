"""Learned denoiser: a network that takes perturbations away, trained on what they do to a classifier's answers.

Source:  Liao et al. 2018, arXiv:1712.02976 (HGD, guided by high-level representation). `guard fit` trains it on
         perturbed inputs; its loss is on the auxiliary network's logits: the served model gives no gradients.
Answers: dense perturbations like those that it was trained on, static and transferred. Known bypass: white-box attacks
         through it (Athalye, Carlini 2018, arXiv:1804.03286).
Args:    x: (N, ...) float32 in [0, 1], of the shape that the denoiser was trained on.
Returns: the same shape, dtype and bounds.
Cost:    one pass of the denoiser; no upstream row.
"""

from dataclasses import dataclass
from typing import ClassVar

from guard.purifiers._network import Through
from guard.registry import register
from guard.types import Equipment


@register("purifier", "learned_denoiser")
@dataclass(frozen=True)
class LearnedDenoiser:
    """The profile's denoiser."""

    needs: ClassVar[tuple[str, ...]] = ("denoiser",)

    def equip(self, equipment: Equipment) -> Through:
        """With the denoiser. Raises ValueError where there is none."""
        return Through.of(equipment, "denoiser")
