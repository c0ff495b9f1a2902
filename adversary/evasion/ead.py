"""EAD, elastic-net attack: the smallest l1 perturbation, by iterative shrinkage and a binary search over its price.

Source: Chen, Sharma, Zhang, Yi, Hsieh 2018, arXiv:1709.04114 (FISTA, beta 0.01, l1 decision rule).
Access: gradients. Norm: l1. Cost: up to `budget` gradients a victim, shared evenly among the search steps.
Limits: as C&W's search, slow for what it finds; beta trades l1 for l2.

Minimises c * max(margin + kappa, 0) + ||d||_2^2 + beta ||d||_1 over x + d in [0, 1], the l1 term by soft thresholds.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adversary.attack import Array, Result, norms
from adversary.gradients import Model
from adversary.tensors import CLEAR, batched, margin

_HIGHEST_PRICE = 1e10


@dataclass(frozen=True, slots=True)
class _Options:
    targeted: bool
    beta: float
    kappa: float
    learning_rate: float
    initial_price: float
    search_steps: int
    iterations: int


def _shrink(z: Tensor, x: Tensor, beta: float) -> Tensor:
    """Move every value by beta towards x, onto x where it is nearer than that; then into [0, 1]."""
    far = z - x
    return (x + far.sign() * (far.abs() - beta).clamp(min=0.0)).clamp(0.0, 1.0)


def _lead(logits: Tensor, label: Tensor, o: _Options) -> Tensor:
    """(N,) above 0 where the attack has won."""
    return -margin(logits, label) if o.targeted else margin(logits, label)


def _gradient(model: Model, at: Tensor, x: Tensor, label: Tensor, *, price: Tensor, o: _Options) -> Tensor:
    """Of the smooth part of the objective, row by row."""
    at = at.detach().requires_grad_()
    loss = (o.kappa - _lead(model(at), label, o)).clamp(min=0.0)
    total = (price * loss).sum() + (at - x).square().sum()
    return torch.autograd.grad(total, at)[0]


def _descend(
    model: Model, x: Tensor, label: Tensor, *, price: Tensor, best: tuple[Tensor, Tensor], o: _Options
) -> Tensor:
    """FISTA at one price; keeps the best so far in place, returns which rows won at all."""
    x_adv, l1 = best
    now, ahead = x.clone(), x.clone()
    won_once = torch.zeros(len(x), dtype=torch.bool)
    for k in range(o.iterations):
        rate = o.learning_rate * math.sqrt(1.0 - k / o.iterations)
        stepped = ahead - rate * _gradient(model, ahead, x, label, price=price, o=o)
        before, now = now, _shrink(stepped, x, o.beta)
        ahead = now + k / (k + 3.0) * (now - before)
        with torch.no_grad():
            won = _lead(model(now), label, o) >= o.kappa
        size = (now - x).abs().flatten(1).sum(1)
        better = won & (size < l1)
        l1[better], x_adv[better] = size[better], now[better]
        won_once |= won
    return won_once


def _search(model: Model, x: Tensor, label: Tensor, o: _Options) -> tuple[Tensor, Tensor]:
    best = x.clone(), torch.full((len(x),), torch.inf)
    low, high = torch.zeros(len(x)), torch.full((len(x),), _HIGHEST_PRICE)
    price = torch.full((len(x),), o.initial_price)
    for _ in range(o.search_steps):
        won = _descend(model, x, label, price=price, best=best, o=o)
        high = torch.where(won, torch.minimum(high, price), high)
        low = torch.where(won, low, torch.maximum(low, price))
        price = torch.where(high < _HIGHEST_PRICE, (low + high) / 2.0, price * 10.0)
    return best[0], torch.full((len(x),), o.search_steps * o.iterations)


def attack(
    target: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    beta: float = 0.01,
    kappa: float = 0.0,
    targets: Array | None = None,
    search_steps: int = 5,
    learning_rate: float = 0.01,
    initial_price: float = 1.0,
) -> Result:
    """Untargeted, or towards `targets` (N,). The search minimises l1 whatever eps is; rows beyond eps stay x."""
    del rng  # nothing is random here
    if budget < search_steps:
        raise ValueError(f"EAD with {search_steps} search steps needs a budget of at least as many gradients")
    o = _Options(
        targets is not None, beta, max(kappa, CLEAR), learning_rate, initial_price, search_steps, budget // search_steps
    )
    x_adv, queries = batched(lambda a, b: _search(target, a, b, o), x, y if targets is None else targets)
    far = norms(x_adv - x, "l1") > eps
    x_adv[far] = x[far]
    return Result(x_adv, queries)
