"""The autoencoder: MagNet's, which rebuilds clean inputs and fails on others.

Source:       Meng, Chen 2017, arXiv:1705.09064, and their published code: 3x3 convolutions of three channels, sigmoid
              throughout, averaged to half the size and back for grey images; mean squared error on inputs whose noise
              is taken away (volume 0.1 for grey, 0.025 for colour images).
Answers:      the profile's network "autoencoder": `x`, of its input's shape, in [0, 1].
Known bypass: gradients through the autoencoder (Carlini, Wagner 2017, arXiv:1711.08478).
Cost:         two or three minutes on one core for 45,000 images of 32x32x3.

Vectors go through a quarter of their size and back. Adam's rate is ten times theirs: at first the sigmoids of so
narrow a network hardly learn otherwise, and there are fewer epochs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.learning import Tell
from guard.learning._export import export
from guard.learning._networks import Plan
from guard.learning._training import FEWEST_ROWS, IMAGE_RANK, Pace, Rows, learn, seeded, suited, tensor
from guard.types import Material

OUTPUTS = ("x",)
_NARROW = 3  # channels
_HALVED = "average"


@dataclass(frozen=True, slots=True)
class Options:
    """noise: the deviation of what is added to the inputs, in unit form."""

    noise: float
    pace: Pace


def defaults(shape: tuple[int, ...]) -> Options:
    """What suits inputs of this shape, (H, W, C) or (D,)."""
    images = len(shape) + 1 == IMAGE_RANK
    noise = 0.1 if images and shape[-1] == 1 else 0.025
    pace = Pace(40, least=2000, most=6000, batch=256 if images else 128, rate=0.01, average=0.99, adam=True)
    return Options(noise, suited(pace, shape, batch=16))


def plan_for(shape: Sequence[int]) -> dict[str, Any]:
    """MagNet's structure for grey images (halved where the sides are even), for colour images, or for vectors."""
    if len(shape) + 1 != IMAGE_RANK:
        return {"kind": "vectors", "shape": list(shape), "structure": [max(2, shape[0] // 2), max(2, shape[0] // 4)]}
    halved = shape[2] == 1 and not (shape[0] % 2 or shape[1] % 2)
    structure = [_NARROW, _HALVED, _NARROW] if halved else [_NARROW, _NARROW]
    return {"kind": "images", "shape": list(shape), "structure": structure}


class Autoencoder(nn.Module):
    """(N, H, W, C) or (N, D) -> the same shape, in [0, 1]. The structure is walked there and back."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.image = plan["kind"] == "images"
        size, structure, layers = plan["shape"][-1], plan["structure"], list[nn.Module]()
        back = structure[::-1] if self.image else structure[-2::-1]
        for part, down in [*((part, True) for part in structure), *((part, False) for part in back)]:
            if part == _HALVED:
                layers.append(nn.AvgPool2d(2) if down else nn.Upsample(scale_factor=2))
            else:
                layers += [self._layer(size, part), nn.Sigmoid() if self.image else nn.ReLU()]
                size = part
        self.layers = nn.Sequential(*layers, self._layer(size, plan["shape"][-1]), nn.Sigmoid())

    def _layer(self, inside: int, outside: int) -> nn.Module:
        return nn.Conv2d(inside, outside, 3, padding=1) if self.image else nn.Linear(inside, outside)

    def forward(self, x: Tensor) -> Tensor:
        """The input, rebuilt."""
        if not self.image:
            return self.layers(x)  # type: ignore[no-any-return]
        return self.layers(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # type: ignore[no-any-return]


def train(material: Material, raw: Mapping[str, bytes], tell: Tell, options: Options | None = None) -> bytes:
    """The autoencoder as an ONNX file. Raises ValueError where there are too few rows."""
    del raw  # it needs no other network
    x, shape = material.x, material.x.shape[1:]
    if len(x) < FEWEST_ROWS:
        raise ValueError(f"an autoencoder needs {FEWEST_ROWS} clean inputs to learn from; there are {len(x)}")
    chosen, plan = options or defaults(shape), plan_for(shape)
    with seeded(material.seed) as rng:
        model = Autoencoder(plan)

        def backward(rows: Rows) -> None:
            clean = tensor(x[rows])
            noisy = (clean + chosen.noise * torch.randn_like(clean)).clamp(0.0, 1.0)
            functional.mse_loss(model(noisy), clean).backward()  # type: ignore[no-untyped-call]

        return export(
            learn(model, backward, chosen.pace, len(x), rng=rng, tell=tell, what="autoencoder"), plan, OUTPUTS
        )
