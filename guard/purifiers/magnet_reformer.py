"""MagNet's reformer: the input through an autoencoder that knows clean inputs only.

Source:  Meng, Chen 2017, arXiv:1705.09064. The autoencoder is trained by `guard fit` on clean inputs under noise.
Answers: small perturbations that leave the manifold of clean inputs. Known bypass: attacks through the autoencoder, and
         transfer from others of its kind (Carlini, Wagner 2017, arXiv:1711.08478).
Args:    x: (N, ...) float32 in [0, 1], of the shape that the autoencoder was trained on.
Returns: the same shape, dtype and bounds.
Cost:    one pass of the autoencoder; no upstream row.
"""

from dataclasses import dataclass
from typing import ClassVar

from guard.purifiers._network import Through
from guard.registry import register
from guard.types import Equipment


@register("purifier", "magnet_reformer")
@dataclass(frozen=True)
class MagnetReformer:
    """The profile's autoencoder."""

    needs: ClassVar[tuple[str, ...]] = ("autoencoder",)

    def equip(self, equipment: Equipment) -> Through:
        """With the autoencoder. Raises ValueError where there is none."""
        return Through.of(equipment, "autoencoder")
