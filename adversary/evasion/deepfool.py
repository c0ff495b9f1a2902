"""DeepFool: over the nearest of the boundaries, each taken as a plane, again and again until the label changes.

Source: Moosavi-Dezfooli, Fawzi, Frossard 2016, arXiv:1511.04599 (the l2 attack, overshoot 2 %).
Access: gradients. Norm: l2. Cost: `candidates` gradients a step, up to `budget` a victim; it stops where it has won.
Limits: untargeted; a little farther than C&W; the boundaries of the most probable `candidates` classes only.
"""

import numpy as np
import torch
from torch import Tensor

from adversary.attack import Array, Result, norms
from adversary.gradients import Model
from adversary.tensors import CLEAR, batched, each, margin

PAIR = 2
_TINY = 1e-12
_BEYOND = 1e-4  # past the plane, as in the authors' code


def _logits_and_gradients(model: Model, x: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """(N, ...), (N, K) classes -> their logits (N, K) and the gradients of each (N, K, ...)."""
    x = x.detach().requires_grad_()
    logits = model(x).gather(1, columns)
    last = columns.shape[1] - 1
    found = [torch.autograd.grad(logits[:, k].sum(), x, retain_graph=k < last)[0] for k in range(last + 1)]
    return logits.detach(), torch.stack(found, dim=1)


def _to_nearest_plane(logits: Tensor, gradients: Tensor) -> Tensor:
    """The smallest l2 step over one of the planes f_k = f_0, column 0 being the label's own."""
    gaps = (logits[:, 1:] - logits[:, :1]).abs() + _BEYOND
    normals = (gradients[:, 1:] - gradients[:, :1]).flatten(2)
    lengths = normals.norm(dim=2) + _TINY
    nearest = (gaps / lengths).argmin(1)
    index = torch.arange(len(logits))
    scale = gaps[index, nearest] / lengths[index, nearest] ** 2
    return (each(scale, normals[:, 0]) * normals[index, nearest]).reshape(gradients[:, 0].shape)


def walk(
    model: Model, x: Tensor, y: Tensor, *, budget: int, candidates: int = 10, overshoot: float = 0.02
) -> tuple[Tensor, Tensor]:
    """Every row until it is answered otherwise than y, or `budget` is spent -> x_adv, gradients taken a row."""
    with torch.no_grad():
        logits = model(x)
    ranked = logits.scatter(1, y[:, None], torch.inf).argsort(dim=1, descending=True, stable=True)[
        :, : min(candidates, budget)
    ]
    total, x_adv, cost = torch.zeros_like(x), x.clone(), torch.zeros(len(x), dtype=torch.int64)
    live = (margin(logits, y) <= CLEAR).nonzero()[:, 0]
    for _ in range(budget // ranked.shape[1]):
        if not len(live):
            break
        total[live] += _to_nearest_plane(*_logits_and_gradients(model, x_adv[live], ranked[live]))
        cost[live] += ranked.shape[1]
        x_adv[live] = (x[live] + (1.0 + overshoot) * total[live]).clamp(0.0, 1.0)
        with torch.no_grad():
            live = live[margin(model(x_adv[live]), y[live]) <= CLEAR]
    return x_adv, cost


def attack(
    target: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    candidates: int = 10,
    overshoot: float = 0.02,
) -> Result:
    """The walk goes where it goes whatever eps is; rows beyond eps stay x."""
    del rng  # nothing is random here
    if budget < PAIR:
        raise ValueError("DeepFool needs a budget of two gradients, one each side of a boundary")
    x_adv, queries = batched(
        lambda a, b: walk(target, a, b, budget=budget, candidates=candidates, overshoot=overshoot), x, y
    )
    far = norms(x_adv - x, "l2") > eps
    x_adv[far] = x[far]
    return Result(x_adv, queries)
