"""Data-free extraction: a generator looks for inputs on which copy and victim differ; the copy learns from these.

Sources: Truong, Maini, Walls, Papernot 2021, arXiv:2011.14779 (DFME: L1 between logits, forward differences);
         Kariyappa, Prakash, Qureshi 2021, arXiv:2005.03161 (MAZE: what was answered is learned from again).
Access: scores. Sees neither data nor labels: of x only the shape.
Cost:   a round is 2 * batch rows for the generator's step and `copies` * batch for the copy's.
Limits: images only. Hungry: 20 million rows for CIFAR-10 in the paper. Rounded answers hide the differences that the
        generator follows; labels have none at all.

The victim's logits are recovered from its probabilities up to a constant: log p less its mean. The generator's gradient
is estimated before its last activation, along one random direction u a row: n (L(x + h u) - L(x)) / h u. Two of its
noise values set an image's brightness and contrast, so that dark and bright ones, rough and flat ones keep coming.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from adversary.attack import Array, Copy, ScoreOracle
from adversary.extraction.answers import Loot, Thief, milestones
from adversary.extraction.networks import copy_of, learn, network
from adversary.images import like, planes

_NOISE = 64
_LEAST = 1e-7  # of a probability; the logarithm of less is mostly rounding
_WIDE = 32
_KEPT = 500  # calls whose answers are learned from again
_BRIGHT, _CONTRAST = 2.0, 1.0


class Generator(nn.Module):
    """(N, 64) noise -> (N, C, H, W) images before their last activation."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        self.small = (2 * _WIDE, math.ceil(self.height / 4), math.ceil(self.width / 4))
        self.enter = nn.Sequential(nn.Linear(_NOISE, math.prod(self.small)), nn.Unflatten(1, self.small))
        self.grow = nn.Sequential(
            nn.BatchNorm2d(2 * _WIDE), nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * _WIDE, _WIDE, 3, padding=1), nn.BatchNorm2d(_WIDE), nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(_WIDE, _WIDE // 2, 3, padding=1), nn.BatchNorm2d(_WIDE // 2), nn.LeakyReLU(0.2),
            nn.Conv2d(_WIDE // 2, channels, 3, padding=1), nn.BatchNorm2d(channels, affine=False),
        )  # fmt: skip

    def forward(self, noise: Tensor) -> Tensor:
        """Brightness and contrast come from the first two values."""
        drawn = self.grow(self.enter(noise))[:, :, : self.height, : self.width]
        bright, contrast = noise[:, 0] * _BRIGHT, torch.exp(noise[:, 1] * _CONTRAST)
        shaded: Tensor = drawn * contrast[:, None, None, None] + bright[:, None, None, None]
        return 2.0 * shaded


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    budget: int,
    rng: np.random.Generator,
    classes: int,
    copies: int = 5,
    replays: int = 10,
    probe: float = 1e-3,
    rate: float = 1e-3,
    epochs: int = 5,
    batch: int = 100,
) -> Iterator[Copy]:
    """A copy at an eighth, a quarter, a half of the budget; and at the end, after `epochs` over what was answered."""
    del y
    duel = Duel(Thief(target, budget=budget, classes=classes, answers="scores", batch=batch), x, rng, rate)
    marks = milestones(budget)
    while duel.thief.left >= (2 + copies) * batch:
        duel.provoke(batch, probe)
        for _ in range(copies):
            duel.imitate(batch)
        duel.replay(replays)
        if len(marks) > 1 and duel.thief.spent >= marks[0]:
            marks.pop(0)
            yield copy_of(duel.copy)
    duel.imitate(duel.thief.left)
    yield copy_of(learn(duel.copy, duel.loot, rng, epochs=epochs))


class Duel:
    """A generator against a copy; x gives the shape of the victim's images. parts: the last calls' answers."""

    def __init__(self, thief: Thief, x: Array, rng: np.random.Generator, rate: float) -> None:
        self.thief, self._like, self._rng = thief, x[:1], rng
        shape = planes(x[:1]).shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            self.maker = Generator(shape)
        self.copy = network(x.shape[1:], thief.classes, rng)
        self._random = torch.Generator().manual_seed(int(rng.integers(2**31)))
        self._making = torch.optim.Adam(self.maker.parameters(), lr=rate)
        self._copying = torch.optim.Adam(self.copy.parameters(), lr=2.0 * rate)
        self.parts = [Loot(np.zeros((0, *x.shape[1:]), np.float32), np.zeros((0, thief.classes)))]

    @property
    def loot(self) -> Loot:
        """What was answered, as far as it is kept."""
        return Loot(np.concatenate([part.x for part in self.parts]), np.concatenate([part.p for part in self.parts]))

    def _keep(self, loot: Loot) -> None:
        self.parts = [*self.parts, loot][-_KEPT:]

    def provoke(self, n: int, probe: float) -> None:
        """One step of the generator towards where the two differ most."""
        raw = self.maker.train()(self._noise(n))
        u = torch.randn(raw.shape, generator=self._random)
        u /= u.flatten(1).norm(dim=1)[:, None, None, None]
        with torch.no_grad():
            images = torch.sigmoid(torch.cat([raw, raw + probe * u]))
            gap = self._gap(images)
            slope = torch.nan_to_num((gap[n:] - gap[:n]) / probe)
            gradient = raw[0].numel() * slope[:, None, None, None] * u
        self._making.zero_grad()
        raw.backward(-gradient / n)
        self._making.step()

    def _gap(self, images: Tensor) -> Tensor:
        """How far the copy's logits are from the victim's, not a number where it was refused."""
        x = self._laid(images)
        p = self.thief.ask(x)
        told = ~np.isnan(p).any(axis=1)
        self._keep(Loot(x[told], p[told]))
        gap: Tensor = (self.copy.eval()(torch.from_numpy(x)) - _logits(p)).abs().mean(1)
        return gap

    def imitate(self, n: int) -> None:
        """One step of the copy on n new images; of two at least, as batch normalisation wants."""
        if n < 2:  # noqa: PLR2004
            return
        with torch.no_grad():
            x = self._laid(torch.sigmoid(self.maker.train()(self._noise(n))))
        fresh = self.thief.take(x)
        self._keep(fresh)
        self._step(fresh)

    def replay(self, times: int) -> None:
        """Steps of the copy, each on what one earlier call was answered."""
        for _ in range(times):
            self._step(self.parts[self._rng.integers(len(self.parts))])

    def _step(self, loot: Loot) -> None:
        if len(loot) < 2:  # noqa: PLR2004
            return
        loss = (self.copy.train()(torch.from_numpy(loot.x)) - _logits(loot.p)).abs().mean()
        self._copying.zero_grad()
        loss.backward()
        self._copying.step()

    def _noise(self, n: int) -> Tensor:
        return torch.randn(n, _NOISE, generator=self._random)

    def _laid(self, images: Tensor) -> Array:
        """(N, C, H, W) -> the victim's layout."""
        return np.ascontiguousarray(like(images.numpy(), self._like), np.float32)


def _logits(p: Array) -> Tensor:
    """(N, C) probabilities -> logits of mean 0."""
    logs = np.log(np.maximum(p, _LEAST))
    return torch.from_numpy((logs - logs.mean(axis=1, keepdims=True)).astype(np.float32))
