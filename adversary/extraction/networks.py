"""The thief's networks: one for each shape of input, and how they learn from answers.

Vectors get a perceptron, grey images two convolutions, colour images a small residual network (He et al. 2015,
arXiv:1512.03385). All take the victim's own layout and answer with logits. Trained on one thread, by Adam under a
one-cycle rate, on the cross-entropy with the answers; the same seed gives the same network.
"""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adversary.attack import Copy
from adversary.extraction.answers import Loot
from adversary.gradients import one_thread, predict
from adversary.images import channel_axis

_COLOUR = 3  # axes of an image with channels
_GREY = 2
_BATCH = 64
_RATE = 2e-3
_SHIFT = 4  # pixels


class Planes(nn.Module):
    """(N, ...) images in any layout -> (N, C, H, W)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.axis = 1 + channel_axis(shape) if len(shape) == _COLOUR else 0

    def forward(self, x: Tensor) -> Tensor:
        """Laid out in memory with the channels last, which is faster on a processor."""
        planes = x.movedim(self.axis, 1) if self.axis else x[:, None]
        return planes.contiguous(memory_format=torch.channels_last)


class Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(wide, wide), _convolution(wide, wide)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        deep: Tensor = self.second(self.first(x))
        return deep + x


def _convolution(wide: int, wider: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(wide, wider, 3, 1, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU())


def network(shape: tuple[int, ...], classes: int, rng: np.random.Generator, *, dropout: float = 0.0) -> nn.Module:
    """A new network for inputs of this shape."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        if len(shape) not in {_GREY, _COLOUR}:
            return _perceptron(math.prod(shape), classes, dropout)
        planes = Planes(shape)
        channels, *sides = planes(torch.zeros(1, *shape)).shape[1:]
        body = _convolutions(sides, classes, dropout) if channels == 1 else _residual(channels, classes, dropout)
        return nn.Sequential(planes, *body)


def _perceptron(inputs: int, classes: int, dropout: float) -> nn.Module:
    hidden = [nn.Linear(inputs, 200), nn.ReLU(), nn.Dropout(dropout), nn.Linear(200, 200), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Dropout(dropout), nn.Linear(200, classes))


def _convolutions(sides: list[int], classes: int, dropout: float) -> list[nn.Module]:
    flat = 32 * math.prod(-(-side // 4) for side in sides)
    seeing: list[nn.Module] = []
    for wide, wider in ((1, 16), (16, 32)):
        seeing += [nn.Conv2d(wide, wider, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
    return [
        *seeing, nn.Flatten(), nn.Dropout(dropout), nn.Linear(flat, 128), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(128, classes),
    ]  # fmt: skip


def _residual(channels: int, classes: int, dropout: float) -> list[nn.Module]:
    body: list[nn.Module] = []
    for wide, wider in zip((channels, 32, 64), (32, 64, 128), strict=True):
        body += [_convolution(wide, wider), nn.MaxPool2d(2, ceil_mode=True)]
    body += [Residual(128), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(128, classes)]
    return body


def learn(
    net: nn.Module,
    loot: Loot,
    rng: np.random.Generator,
    *,
    epochs: int,
    rate: float = _RATE,
    batch: int = _BATCH,
    augment: bool = False,
) -> nn.Module:
    """Train `net` further on what was answered, in place. augment: shifts and mirrors images, as colour ones bear."""
    steps = epochs * math.ceil(len(loot) / batch)
    if not steps:
        return net.eval()
    net.train()
    x, p = torch.from_numpy(np.array(loot.x, np.float32)), torch.from_numpy(loot.p.astype(np.float32))
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 2))
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        for _ in range(epochs):
            for rows in np.array_split(rng.permutation(len(loot)), math.ceil(len(loot) / batch)):
                pair = np.resize(rows, max(2, len(rows)))  # batch normalisation wants two
                seen = _moved(x[pair], rng) if augment else x[pair]
                optimizer.zero_grad()
                functional.cross_entropy(net(seen), p[pair]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return net.eval()


def _moved(x: Tensor, rng: np.random.Generator) -> Tensor:
    """(N, ...) images -> the batch shifted by a few pixels, black coming in, and mirrored every other time."""
    axis = 1 + channel_axis(tuple(x.shape[1:])) if x.ndim == 1 + _COLOUR else 1
    planes = x.movedim(axis, 1) if x.ndim == 1 + _COLOUR else x[:, None]
    up, left = (int(shift) for shift in rng.integers(-_SHIFT, _SHIFT + 1, 2))
    moved = functional.pad(planes, (left, -left, up, -up))
    if rng.random() < 0.5:  # noqa: PLR2004 - a coin
        moved = moved.flip(3)
    return moved.movedim(1, axis) if x.ndim == 1 + _COLOUR else moved[:, 0]


def copy_of(net: nn.Module) -> Copy:
    """The network as it is now: what it learns later does not change the copy."""
    kept = copy.deepcopy(net).eval()
    return lambda x: predict(kept, np.asarray(x, np.float32))
