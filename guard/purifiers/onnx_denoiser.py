"""ONNX denoiser: any image network that a user brings, a one-step diffusion model, say.

Source:  the file's own; as a defence, Liao et al. 2018, arXiv:1712.02976, and for diffusion Nie et al. 2022,
         arXiv:2205.07460.
Answers: what the network was made for. Known bypass: attacks through the network (Athalye, Carlini 2018,
         arXiv:1804.03286), the identity in the backward pass where it is not known (BPDA, arXiv:1802.00420).
Args:    x: (N, H, W, C) float32 in [0, 1]. The file has one float32 input, (N, H, W, C) or (N, C, H, W), in
         [low, high]; its first output of the same shape is used, in [low, high], too.
Returns: the same shape, dtype and bounds.
Cost:    one pass of the network; no upstream row.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from guard import filters, networks
from guard.purifiers._network import checked
from guard.registry import register
from guard.types import Array, Equipment, FileNetwork

Layout = Literal["NHWC", "NCHW"]
_CHANNELS = (1, 3)
_AXES = 3  # without rows


@register("purifier", "onnx_denoiser")
@dataclass(frozen=True)
class OnnxDenoiser:
    """file: ONNX. layout: of its input; by default worked out from its shape. low, high: of its values."""

    needs_images: ClassVar[bool] = True
    file: Path
    layout: Literal["auto", "NHWC", "NCHW"] = "auto"
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, not {self.low:g} and {self.high:g}")

    def equip(self, equipment: Equipment) -> "_Working":
        """With the file's network. Raises ValueError for a file that is none, or none of images."""
        network = (equipment.load or networks.load)(self.file)
        if len(network.shape) != _AXES:
            raise ValueError(f"{self.file} takes no images: its input has {len(network.shape) + 1} axes, not 4")
        layout = _layout(network.shape) if self.layout == "auto" else self.layout
        if layout is None:
            raise ValueError(f"{self.file}: set the option layout; its input's shape {network.shape} does not tell")
        return _Working(self, network, layout, _output(network))


@dataclass(frozen=True, eq=False)
class _Working:
    options: OnnxDenoiser
    network: FileNetwork
    layout: Layout
    output: str

    def purify(self, x: Array) -> Array:
        """(N, H, W, C) unit form -> the same. Raises ValueError where shapes do not match or values are not finite."""
        filters.require_images(x)
        low, span = np.float32(self.options.low), np.float32(self.options.high - self.options.low)
        whole = self.options.low == 0 and self.options.high == 1
        sent = x if whole else x * span + low  # itself, where it can be: a network knows it again
        first = self.layout == "NCHW"
        y = self.network(sent.transpose(0, 3, 1, 2) if first else sent)[self.output]
        return checked(((y.transpose(0, 2, 3, 1) if first else y) - low) / span, x)


def _layout(shape: tuple[int, ...]) -> Layout | None:
    """By which end has 1 or 3 channels; None where both have, or neither."""
    match shape[0] in _CHANNELS, shape[-1] in _CHANNELS:
        case True, False:
            return "NCHW"
        case False, True:
            return "NHWC"
    return None


def _output(network: FileNetwork) -> str:
    """The first that could be an image. Raises ValueError."""
    for name, shape in network.outputs:
        pairs = zip(shape, network.shape, strict=False)
        if len(shape) == _AXES and all(-1 in pair or pair[0] == pair[1] for pair in pairs):
            return name
    raise ValueError(f"the network has no output of its input's shape {network.shape}")
