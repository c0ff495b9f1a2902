"""The architectures, each made from a plan of plain values that its ONNX file carries, so that it can be made again.

Convolutions learn with batch normalisation and are served folded: `folded` makes one into the other.
Shapes: a network takes unit form, (N, H, W, C) or (N, D), and turns images to channels-first itself.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

Plan = Mapping[str, Any]
EMBEDDING = 64  # directions that an embedding has at most
_LARGE = 64  # pixels; larger images are first strided down
_SMALLEST = 4  # pixels that a side needs for a convolution to make sense
_TINY = 1e-6


class Convolution(nn.Module):
    """A 3x3 convolution; while it learns, batch normalisation follows it."""

    def __init__(self, inside: int, outside: int, *, stride: int = 1, fold: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=fold)
        self.norm = nn.Identity() if fold else nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) -> (N, outside, H / stride, W / stride)."""
        return cast("Tensor", self.norm(self.conv(x)))


class Residual(nn.Module):
    """x + what two convolutions make of it."""

    def __init__(self, width: int, *, fold: bool) -> None:
        super().__init__()
        self.first, self.second = (Convolution(width, width, fold=fold) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        return x + torch.relu(self.second(torch.relu(self.first(x))))


class Stages(nn.Module):
    """Strided convolutions, then widen, halve and refine, and the largest value of each channel: (N, widths[-1])."""

    def __init__(self, channels: int, stem: Sequence[int], widths: Sequence[int], *, fold: bool) -> None:
        super().__init__()
        before = [channels, *stem, *widths]
        pairs = list(itertools.pairwise(before))
        self.stem = nn.ModuleList(Convolution(i, o, stride=2, fold=fold) for i, o in pairs[: len(stem)])
        self.widen = nn.ModuleList(Convolution(i, o, fold=fold) for i, o in pairs[len(stem) :])
        self.refine = nn.ModuleList(Residual(width, fold=fold) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, widths[-1])."""
        for stride in self.stem:
            x = torch.relu(stride(x))
        for widen, refine in zip(self.widen, self.refine, strict=True):
            x = refine(functional.max_pool2d(torch.relu(widen(x)), 2))
        return x.amax((2, 3))


class Auxiliary(nn.Module):
    """x -> logits (N, classes), features (N, F), embedding (N, E) of length 1.

    `mean` and `deviation` bring x to a common scale; the embedding is the features' main directions.
    """

    mean: Tensor
    deviation: Tensor
    centre: Tensor
    directions: Tensor

    def __init__(self, plan: Plan, *, fold: bool = True) -> None:
        super().__init__()
        shape, widths = plan["shape"], plan["widths"]
        self.image = plan["kind"] == "images"
        channels = (shape[-1], 1, 1) if self.image else (shape[-1],)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        if self.image:
            self.body: nn.Module = Stages(shape[-1], plan["stem"], widths, fold=fold)
        else:
            size = int(torch.tensor(shape).prod())
            pairs = zip([size, *widths], widths, strict=False)
            layers = [layer for i, o in pairs for layer in (nn.Linear(i, o), nn.ReLU())]
            self.body = nn.Sequential(nn.Flatten(), *layers)
        self.head = nn.Linear(widths[-1], plan["classes"])
        self.register_buffer("centre", torch.zeros(widths[-1]))
        self.register_buffer("directions", torch.eye(widths[-1])[:, :EMBEDDING].clone())

    def features(self, x: Tensor) -> Tensor:
        """(N, F), what the last layer is given."""
        if self.image:
            x = x.permute(0, 3, 1, 2)  # first: onnxruntime is slow where what is told of channels is innermost
        return cast("Tensor", self.body((x - self.mean) / self.deviation))

    def logits(self, x: Tensor) -> Tensor:
        """(N, classes)."""
        return cast("Tensor", self.head(self.features(x)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, features, embedding."""
        features = self.features(x)
        projected = (features - self.centre) @ self.directions
        length = projected.square().sum(1, keepdim=True).sqrt()
        return self.head(features), features, projected / length.clamp_min(_TINY)


def auxiliary_plan(shape: Sequence[int], classes: int) -> dict[str, Any]:
    """What suits inputs of this shape, (H, W, C) or (D,): under half a million parameters for ten classes."""
    if len(shape) != 3 or min(shape[:2]) < _SMALLEST:  # noqa: PLR2004 - height, width, channels
        return {"kind": "vectors", "shape": list(shape), "classes": classes, "widths": [128, 128]}
    side, base, stem = min(shape[:2]), 32 if shape[2] > 1 else 24, []
    while side > _LARGE:
        stem.append(base // 2)
        side = (side + 1) // 2
    widths = [base << i for i in range(3) if side >> i >= _SMALLEST]
    return {"kind": "images", "shape": list(shape), "classes": classes, "stem": stem, "widths": widths}


def folded(made: nn.Module, learned: nn.Module) -> nn.Module:
    """Fill a network without batch normalisation so that it answers as the one that has learned."""
    state = learned.state_dict()
    for name, module in learned.named_modules():
        if isinstance(module, Convolution) and isinstance(module.norm, nn.BatchNorm2d):
            fused = fuse_conv_bn_eval(module.conv.eval(), module.norm.eval())
            state |= {f"{name}.conv.{key}": value for key, value in fused.state_dict().items()}
    made.load_state_dict({name: state[name] for name in made.state_dict()})
    return made.eval()
