"""C&W: the smallest l2 perturbation that wins by a margin kappa: Adam in tanh space, a binary search over its price.

Source: Carlini, Wagner 2017, arXiv:1608.04644 (the l2 attack).
Access: gradients. Norm: l2. Cost: `budget` gradients a victim, shared evenly among the search steps.

For each price c, minimise ||x' - x||^2 + c * max(margin(x') + kappa, 0) over w with x' = (tanh(w) + 1) / 2. The margin
is Z(x')_y - max_{i != y} Z(x')_i, or for a target t: max_{i != t} Z(x')_i - Z(x')_t. A row that won gets a lower price
next, one that did not a higher one.

Adam's steps fall to nothing over a search step, where the paper's stay at 0.01 for a thousand iterations and more: with
fewer, steps of one size either reach too short (MNIST's black is far out in w) or never settle (CIFAR-10, where half
the distance is theirs).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adversary.attack import Array, Result, norms
from adversary.gradients import BATCH, Model

_INSIDE = 0.999999  # atanh is infinite at the bounds
_HIGHEST_PRICE = 1e10
_CLEAR = 1e-3  # the least margin: another runtime's rounding must not undo it
_REACH = 10.0  # of all steps together in w: the paper's thousand of 0.01
_LONGEST = 0.5  # first step, however few there are


@dataclass(frozen=True, slots=True)
class _Options:
    kappa: float
    learning_rate: float | None
    initial_price: float
    search_steps: int
    iterations: int

    def step(self, iteration: int) -> float:
        """Adam's: by default it falls with the square of what is left, and all steps together reach _REACH."""
        if self.learning_rate is not None:
            return self.learning_rate
        return min(3.0 * _REACH / self.iterations, _LONGEST) * (1.0 - iteration / self.iterations) ** 2


@dataclass(slots=True, eq=False)
class _Best:
    """The closest winners so far, a row each."""

    x_adv: Tensor
    l2: Tensor

    def keep(self, x_adv: Tensor, l2: Tensor, won: Tensor) -> None:
        better = won & (l2 < self.l2)
        self.l2 = torch.where(better, l2, self.l2)
        self.x_adv[better] = x_adv[better]


def _margin(logits: Tensor, label: Tensor, *, targeted: bool) -> Tensor:
    """(N, C), (N,) -> (N,), below 0 where the attack has won."""
    own = functional.one_hot(label, logits.shape[1]).bool()
    of_label = logits.masked_fill(~own, 0.0).sum(1)
    of_others = logits.masked_fill(own, -torch.inf).amax(1)
    return of_others - of_label if targeted else of_label - of_others


def _descend(
    model: Model, x: Tensor, label: Tensor, price: Tensor, best: _Best, *, o: _Options, targeted: bool
) -> Tensor:
    """Adam at one price; returns which rows won at all."""
    w = torch.atanh((2.0 * x - 1.0) * _INSIDE).requires_grad_()
    optimizer = torch.optim.Adam([w])
    won_once = torch.zeros(len(x), dtype=torch.bool)
    for iteration in range(o.iterations):
        optimizer.param_groups[0]["lr"] = o.step(iteration)
        x_adv = (torch.tanh(w) + 1.0) / 2.0
        margin = _margin(model(x_adv), label, targeted=targeted)
        squared = (x_adv - x).square().flatten(1).sum(1)
        loss = (squared + price * (margin + o.kappa).clamp(min=0.0)).sum()
        won = margin.detach() <= -o.kappa
        best.keep(x_adv.detach(), squared.detach().sqrt(), won)
        won_once |= won
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return won_once


def _search(model: Model, x: Tensor, label: Tensor, o: _Options, *, targeted: bool) -> Tensor:
    best = _Best(x.clone(), torch.full((len(x),), torch.inf))
    low, high = torch.zeros(len(x)), torch.full((len(x),), _HIGHEST_PRICE)
    price = torch.full((len(x),), o.initial_price)
    for _ in range(o.search_steps):
        won = _descend(model, x, label, price, best, o=o, targeted=targeted)
        high = torch.where(won, torch.minimum(high, price), high)
        low = torch.where(won, low, torch.maximum(low, price))
        price = torch.where(high < _HIGHEST_PRICE, (low + high) / 2.0, price * 10.0)
    return best.x_adv


def attack(
    target: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    kappa: float = 0.0,
    targets: Array | None = None,
    search_steps: int = 5,
    learning_rate: float | None = None,
    initial_price: float = 1.0,
) -> Result:
    """Untargeted, or towards `targets` (N,). The search minimises l2 whatever eps is; rows beyond eps stay x.

    learning_rate: of every step, as in the paper; by default they fall.
    """
    del rng  # nothing is random here
    if budget < search_steps:
        raise ValueError(f"C&W with {search_steps} search steps needs a budget of at least as many gradients")
    iterations = budget // search_steps
    options = _Options(max(kappa, _CLEAR), learning_rate, initial_price, search_steps, iterations)
    labels = y if targets is None else targets
    parts = [
        _search(
            target,
            torch.from_numpy(np.ascontiguousarray(x[start : start + BATCH], np.float32)),
            torch.from_numpy(np.asarray(labels[start : start + BATCH], np.int64)),
            options,
            targeted=targets is not None,
        ).numpy()
        for start in range(0, len(x), BATCH)
    ]
    x_adv = np.concatenate(parts) if parts else np.zeros_like(x)
    far = norms(x_adv - x, "l2") > eps
    x_adv[far] = x[far]
    return Result(x_adv, np.full(len(x), options.iterations * search_steps, np.int64))
