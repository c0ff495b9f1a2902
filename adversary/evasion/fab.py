"""FAB-T, the fast adaptive boundary attack: the closest point over the boundary to a target class, by projections.

Source: Croce, Hein 2020, arXiv:1907.02044 (alpha_max 0.1, eta 1.05, beta 0.9); targeted as in AutoAttack,
        arXiv:2003.01690: the nine most probable wrong classes in turn, one start at x each.
Access: gradients. Norm: linf. Cost: up to `budget` gradients a victim, shared evenly among the targets; no more
        targets once one is within eps.
Limits: needs logits whose gradients mean something.
"""

import numpy as np
import torch
from torch import Tensor

from adversary.attack import Array, Result, norms
from adversary.evasion.apgd_t import wrong_classes
from adversary.gradients import Model
from adversary.tensors import CLEAR, classes, each, margin, parts, rows

_ALPHA_MOST, _ETA, _BETA = 0.1, 1.05, 0.9
_TINY = 1e-12
_SHORTEST = 1e-8


def project(point: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
    """The smallest linf move of (N, D) points of [0, 1] onto the planes normal . z = offset, within [0, 1].

    Where the box does not reach the plane, the move that comes closest. A move by r takes every value min(r, room)
    towards the plane; how far that leads is piecewise linear in r, with corners at the rooms, so r is exact.
    """
    gap = (normal * point).sum(1) - offset
    way = -torch.sign(normal) * torch.sign(gap)[:, None]
    room = torch.where(way > 0, 1.0 - point, point) * (way != 0)
    corners, order = room.sort(dim=1)
    weights = normal.abs().gather(1, order)
    behind = torch.cumsum(weights * corners, dim=1)
    ahead = weights.sum(1, keepdim=True) - torch.cumsum(weights, dim=1)
    reached = behind + corners * ahead
    at = torch.searchsorted(reached, gap.abs()[:, None]).clamp(max=point.shape[1] - 1)
    before = (at - 1).clamp(min=0)
    first = at == 0
    done = torch.where(first, 0.0, behind.gather(1, before))
    slope = torch.where(first, weights.sum(1, keepdim=True), ahead.gather(1, before))
    radius = ((gap.abs()[:, None] - done) / slope.clamp(min=_TINY)).clamp(min=0.0)
    return way * torch.minimum(radius, room)


def _planes(model: Model, at: Tensor, y: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
    """The boundary between y and goal, linearised: normal (N, D) and offset (N,)."""
    at = at.detach().requires_grad_()
    logits = model(at)
    lead = (logits.gather(1, goal[:, None]) - logits.gather(1, y[:, None]))[:, 0]
    normal = torch.autograd.grad(lead.sum(), at)[0].flatten(1)
    return normal, (normal * at.detach().flatten(1)).sum(1) - lead.detach()


def _towards(x: Tensor, now: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
    """Over the plane from `now`, biased towards the plane's point closest to x."""
    here = project(now.flatten(1), normal, offset)
    there = project(x.flatten(1), normal, offset)
    short, long = (move.abs().amax(1).clamp(min=_SHORTEST) for move in (here, there))
    alpha = each((short / (short + long)).clamp(max=_ALPHA_MOST), x)
    biased = (now + _ETA * here.reshape(x.shape)) * (1.0 - alpha) + (x + _ETA * there.reshape(x.shape)) * alpha
    return biased.clamp(0.0, 1.0)


def search(model: Model, x: Tensor, y: Tensor, goal: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """One run of every row -> the closest winner, x itself where there was none, and which rows have one."""
    best, least, now = x.clone(), torch.full((len(x),), torch.inf), x
    for _ in range(steps):
        now = _towards(x, now, *_planes(model, now, y, goal))
        with torch.no_grad():
            lead = margin(model(now), y)
        size = (now - x).flatten(1).abs().amax(1)
        closer = (lead > CLEAR) & (size < least)
        best[closer], least[closer] = now[closer], size[closer]
        now = torch.where(each(lead > 0.0, x), x + _BETA * (now - x), now)
    return best, least.isfinite()


def _run(model: Model, x: Array, y: Array, goal: Array, steps: int) -> tuple[Array, Array]:
    x_adv, won = np.array(x, np.float32), np.zeros(len(x), bool)
    for part in parts(len(x)):
        found = search(model, rows(x[part]), classes(y[part]), classes(goal[part]), steps)
        x_adv[part], won[part] = (tensor.numpy() for tensor in found)
    return x_adv, won


def attack(
    target: Model, x: Array, y: Array, *, eps: float, budget: int, rng: np.random.Generator, targets: int = 9
) -> Result:
    """The search minimises linf whatever eps is; rows beyond eps stay x."""
    del rng  # every run starts at x
    x_adv, queries = np.array(x, np.float32), np.zeros(len(x), np.int64)
    if not len(x):
        return Result(x_adv, queries)
    goals = wrong_classes(target, x, y)[:, :targets]
    steps = budget // goals.shape[1]
    if steps < 1:
        raise ValueError(f"FAB-T needs a gradient for each of {goals.shape[1]} targets")
    live = np.arange(len(x))
    for aim in goals.T:
        found, won = _run(target, x[live], y[live], aim[live], steps)
        queries[live] += steps
        near = won & (norms(found - x[live], "linf") <= eps)
        x_adv[live[near]] = found[near]
        live = live[~near]
        if not len(live):
            break
    return Result(x_adv, queries)
