"""Adversarial patch: one round sticker for all images, trained to work wherever it is put and however it is turned.

Source: Brown, Mane, Roy, Abadi, Gilmer 2017, arXiv:1712.09665 (expectation over random places and rotations).
Access: gradients. Norm: patch (eps is the share of the image's area its box covers). Cost: `budget` gradients a victim,
        one each time the images have all been seen.
Limits: as large as eps allows at every place, so no random scale; visible by design; what N images teach carries over
        to others the better the more there are.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adversary.attack import Array, Result
from adversary.gradients import Model
from adversary.images import like, planes
from adversary.tensors import classes, margin, on_planes, rows

_SURE = 10.0  # logits; past it an image no longer pulls at the patch


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where a patch lies on each of N images: its upper left corner, its rotation in radians."""

    top: Array
    left: Array
    turn: Array


def disc(side: int) -> Tensor:
    """(side, side) whether a value of the box is on the round patch."""
    at = torch.arange(side) - (side - 1) / 2.0
    return (at[:, None] ** 2 + at**2) <= (side / 2.0) ** 2


def place(n: int, shape: tuple[int, int], side: int, turn: float, rng: np.random.Generator) -> Places:
    """As many random places on images of (H, W), turned by up to `turn` degrees either way."""
    height, width = shape
    return Places(
        rng.integers(height - side + 1, size=n),
        rng.integers(width - side + 1, size=n),
        np.deg2rad(rng.uniform(-turn, turn, n)),
    )


def put(patch: Tensor, x: Tensor, places: Places) -> Tensor:
    """(C, S, S) on each of (N, C, H, W), at its place; pixels outside the disc stay as they are."""
    side = patch.shape[1]
    cos, sin, zero = (torch.from_numpy(f(places.turn)).float() for f in (np.cos, np.sin, np.zeros_like))
    turns = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = functional.affine_grid(turns, [len(x), *patch.shape], align_corners=False)
    turned = functional.grid_sample(patch.expand(len(x), -1, -1, -1), grid, padding_mode="border", align_corners=False)
    down = torch.from_numpy(places.top)[:, None] + torch.arange(side)
    right = torch.from_numpy(places.left)[:, None] + torch.arange(side)
    where = (torch.arange(len(x))[:, None, None], slice(None), down[:, :, None], right[:, None, :])
    under = x[where].movedim(3, 1)
    out = x.clone()
    out[where] = torch.where(disc(side), turned, under).movedim(1, 3)
    return out


def _loss(logits: Tensor, y: Tensor, label: int | None) -> Tensor:
    """Towards one class; or past each row's own, as far as a margin that leaves no doubt."""
    if label is not None:
        return functional.cross_entropy(logits, torch.full_like(y, label))
    return (_SURE - margin(logits, y)).clamp(min=0.0).mean()


def train(
    model: Model,
    x: Array,
    y: Array,
    *,
    side: int,
    passes: int,
    rng: np.random.Generator,
    label: int | None = None,
    turn: float = 22.5,
    learning_rate: float = 0.1,
    batch: int = 32,
) -> Tensor:
    """(N, ...) images, their labels -> a patch (C, side, side): towards `label`, or away from each image's own."""
    images, answer = planes(x), on_planes(model, x.shape[1:])
    patch = torch.full((images.shape[1], side, side), 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([patch], lr=learning_rate)
    for _ in range(passes):
        for chosen in np.array_split(rng.permutation(len(x)), math.ceil(len(x) / batch)):
            places = place(len(chosen), images.shape[2:], side, turn, rng)
            logits = answer(put(patch, rows(images[chosen]), places))
            optimizer.zero_grad()
            _loss(logits, classes(y[chosen]), label).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                patch.clamp_(0.0, 1.0)
    return patch.detach()


def attack(
    target: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    label: int | None = None,
    turn: float = 22.5,
    learning_rate: float = 0.1,
    batch: int = 32,
) -> Result:
    """One patch trained on all rows, then put on each of them at one random place."""
    if budget < 1:
        raise ValueError("a patch needs a budget of one gradient")
    if not len(x):
        return Result(np.array(x, np.float32), np.zeros(0, np.int64))
    images = planes(x)
    side = int(math.sqrt(eps * images.shape[2] * images.shape[3]))
    if side < 1:
        raise ValueError(f"a patch of {eps:g} of the image's area is smaller than a pixel")
    patch = train(
        target,
        x,
        y,
        side=side,
        passes=budget,
        rng=rng,
        label=label,
        turn=turn,
        learning_rate=learning_rate,
        batch=batch,
    )
    places = place(len(x), images.shape[2:], side, turn, rng)
    stuck = put(patch, rows(images), places).clamp(0.0, 1.0).numpy()
    return Result(like(stuck, x), np.full(len(x), budget, np.int64))
