# ruff: noqa: SLF001 - it follows the stage line by line, its constants included
"""The score of `input_statistics` on images in torch, for who differentiates through it; tests hold it to the stage's.

Ranks (how quiet the quiet parts are) have the derivative of the values they pick; shares of values at the bounds have
none, and are taken as they are.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from adversary.attack import Array
from guard.detectors import _statistics as own
from guard.detectors.input_statistics import _HANDICAP


def score(x: Tensor, arrays: Mapping[str, Array]) -> Tensor:
    """(N, C, H, W) in [0, 1], and what the stage has learned -> (N,) float64."""
    at = {name: torch.from_numpy(values.copy()).double() for name, values in arrays.items()}
    images = x.double()
    gaps = torch.cat([_roughness(_planes(images)), _levels(images)], 1) - at["mean"]
    distance = ((gaps @ at["scatter"]) ** 2).sum(1)
    parts = torch.cat([torch.log1p(distance)[:, None], gaps @ at["towards_noise"]], 1)
    parts = (parts - at["parts_mean"]) / at["parts_spread"]
    return torch.cat([parts[:, :1] - _HANDICAP, parts[:, 1:]], 1).amax(1)


def _planes(x: Tensor) -> Tensor:
    first = x[:, : own._COLOURS]
    return x if x.shape[1] == 1 else torch.cat([x.mean(1, keepdim=True), first[:, :-1] - first[:, 1:]], 1)


def _levels(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    shares = [(flat <= own._BLACK).double().mean(1).sqrt(), (flat >= own._WHITE).double().mean(1).sqrt()]
    contrast = (flat.var(1, correction=0) + 1e-12).sqrt()
    return torch.stack([flat.mean(1), torch.log(contrast + 10 * own._FAINT), flat.amin(1), flat.amax(1), *shares], 1)


def _roughness(planes: Tensor) -> Tensor:
    across, down = planes.diff(dim=3), planes.diff(dim=2)
    corner = across.diff(dim=2)
    energies = [_product(d, d) for d in (across, down, corner, corner.diff(dim=3).diff(dim=2))]
    together = [
        _product(across[..., 1:], across[..., :-1]) / (energies[0] + own._FAINT**2 * 10),
        _product(down[:, :, 1:], down[:, :, :-1]) / (energies[1] + own._FAINT**2 * 10),
    ]
    sizes = corner.abs().flatten(2).sort(dim=2).values
    ranks = [sizes.shape[2] // share for share in own._SHARES]
    quiet = torch.log(sizes[..., ranks] + own._FAINT).flatten(1)
    return torch.cat([*(torch.log(energy + own._FAINT**2) / 2 for energy in energies), *together, quiet], 1)


def _product(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum((2, 3)) / (one.shape[2] * one.shape[3])
