"""AdvGAN: a generator that, once trained against the model, perturbs any image in one pass.

Source: Xiao, Li, Zhu, He, Liu, Song 2018, arXiv:1801.02610 (clipped at eps, hinge on the size, least-squares GAN).
Access: gradients. Norm: linf. Cost: `budget` gradients a victim, one each time the images have all been seen.
        The paper's rate of 1e-3: at twice that, one seed in three found nothing on MNIST.
Limits: small networks, so that training takes seconds; trains on the very images it is given unless `generator` is
        called with others; reaches fewer images than an attack on each of them.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adversary.attack import Array, Result
from adversary.gradients import Model
from adversary.images import like, planes
from adversary.tensors import classes, margin, on_planes, parts, rows

_WIDTH = 16
_SLOPE = 0.2


class Generator(nn.Module):
    """(N, C, H, W) in [0, 1] -> perturbed images in [0, 1], at most eps away in any value."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.enter = nn.Conv2d(channels, _WIDTH, 3, padding=1)
        self.shrink = nn.Conv2d(_WIDTH, 2 * _WIDTH, 3, stride=2, padding=1)
        self.think = nn.Sequential(nn.Conv2d(2 * _WIDTH, 2 * _WIDTH, 3, padding=1), nn.InstanceNorm2d(2 * _WIDTH))
        self.grow = nn.Conv2d(2 * _WIDTH, _WIDTH, 3, padding=1)
        self.leave = nn.Conv2d(2 * _WIDTH, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Encode, one residual block, decode with a skip."""
        wide = torch.relu(self.enter(x))
        deep = torch.relu(functional.instance_norm(self.shrink(wide)))
        deep = deep + torch.relu(self.think(deep))
        back = functional.interpolate(deep, size=x.shape[2:], mode="nearest")
        out = self.leave(torch.cat([torch.relu(self.grow(back)), wide], dim=1))
        perturbed: Tensor = (x + self.eps * torch.tanh(out)).clamp(0.0, 1.0)
        return perturbed


def critic(channels: int) -> nn.Module:
    """(N, C, H, W) -> (N, 1), towards 1 for real images, 0 for perturbed ones."""
    layers: list[nn.Module] = []
    for wide in (_WIDTH // 2, _WIDTH):
        layers += [nn.Conv2d(channels, wide, 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
        channels = wide
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1))


def generator(
    model: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    passes: int,
    rng: np.random.Generator,
    learning_rate: float = 1e-3,
    gan_weight: float = 0.1,
    size_weight: float = 0.1,
    batch: int = 32,
) -> Generator:
    """Train on (N, ...) images against (N,) labels: L = L_adv + gan_weight L_GAN + size_weight L_hinge."""
    images, answer = planes(x), on_planes(model, x.shape[1:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        made, judge = Generator(images.shape[1], eps), critic(images.shape[1])
    making = torch.optim.Adam(made.parameters(), lr=learning_rate)
    judging = torch.optim.Adam(judge.parameters(), lr=learning_rate)
    allowed = eps / 2.0 * math.sqrt(images[0].size)
    for _ in range(passes):
        for chosen in np.array_split(rng.permutation(len(x)), math.ceil(len(x) / batch)):
            real, labels = rows(images[chosen]), classes(y[chosen])
            fake = made(real)
            told = judge(real), judge(fake.detach())
            _descend(judging, (told[0] - 1.0).square().mean() + told[1].square().mean())
            adversarial = (1.0 - margin(answer(fake), labels)).clamp(min=0.0).mean()
            size = ((fake - real).flatten(1).norm(dim=1) - allowed).clamp(min=0.0).mean()
            fooling = (judge(fake) - 1.0).square().mean()
            _descend(making, adversarial + gan_weight * fooling + size_weight * size)
    return made.eval()


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def attack(
    target: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    learning_rate: float = 1e-3,
    gan_weight: float = 0.1,
    size_weight: float = 0.1,
    batch: int = 32,
) -> Result:
    """Train a generator on all rows, then perturb each of them by it."""
    if budget < 1:
        raise ValueError("AdvGAN needs a budget of one gradient")
    if not len(x):
        return Result(np.array(x, np.float32), np.zeros(0, np.int64))
    made = generator(
        target, x, y, eps=eps, passes=budget, rng=rng, learning_rate=learning_rate, gan_weight=gan_weight,
        size_weight=size_weight, batch=batch,
    )  # fmt: skip
    images = planes(x)
    with torch.no_grad():
        perturbed = np.concatenate([made(rows(images[part])).numpy() for part in parts(len(x))])
    return Result(like(perturbed, x), np.full(len(x), budget, np.int64))
