"""Auto-PGD: PGD with momentum that sets its own step size, by how often the loss rose since the last checkpoint.

Source: Croce, Hein 2020, arXiv:2003.01690 (algorithm 1, linf; APGD-CE, and by `loss` APGD-DLR).
Access: gradients. Norm: linf. Cost: up to `budget` gradients a victim, one for each start and step; stops where it won.
Limits: as PGD's: masked gradients mislead it.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adversary.attack import Array, Result
from adversary.gradients import Model
from adversary.tensors import CLEAR, classes, each, margin, parts, rows

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits (N, C), labels (N,), targets (N,) -> what to raise (N,)."""
_TINY = 1e-12
_MOMENTUM = 0.75
_RISES_ENOUGH = 0.75  # rho: the share of steps since the checkpoint that must have raised the loss
_FIRST, _LEAST, _SHORTER = 0.22, 0.06, 0.03  # of all steps: the first checkpoint, the shortest wait, by what it shrinks
_CLASSES_OF_DLR = 3


def cross_entropy(logits: Tensor, y: Tensor, _: Tensor) -> Tensor:
    """CE, untargeted."""
    return functional.cross_entropy(logits, y, reduction="none")


def dlr(logits: Tensor, y: Tensor, _: Tensor) -> Tensor:
    """The difference of logits ratio: the margin in units of the gap between the first and the third logit."""
    if logits.shape[1] < _CLASSES_OF_DLR:
        raise ValueError("the DLR loss needs three classes")
    ranked = logits.sort(dim=1, descending=True).values
    return margin(logits, y) / (ranked[:, 0] - ranked[:, 2] + _TINY)


def checkpoints(steps: int) -> list[int]:
    """After how many steps the step size is judged: waits of 22 % of all, then 3 % less each time, 6 % at least."""
    wait, shortest, shorter = (max(1, int(share * steps)) for share in (_FIRST, _LEAST, _SHORTER))
    found = [wait]
    while found[-1] < steps:
        wait = max(wait - shorter, shortest)
        found.append(found[-1] + wait)
    return found


@dataclass(slots=True, eq=False)
class _Climbers:
    """The rows not yet won, a value a row. rises: of the loss since the last checkpoint."""

    row: Tensor
    x: Tensor
    y: Tensor
    goal: Tensor
    now: Tensor
    before: Tensor
    gradient: Tensor
    loss: Tensor
    step: Tensor
    rises: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    loss_at_check: Tensor
    halved_at_check: Tensor

    def only(self, kept: Tensor) -> Self:
        return type(self)(*(getattr(self, field.name)[kept] for field in fields(self)))

    def move(self, eps: float, momentum: float) -> None:
        """A signed step, projected, then mixed with the last move and projected again."""
        drift = self.now - self.before
        stepped = self._within(self.now + each(self.step, self.now) * self.gradient.sign(), eps)
        mixed = self.now + momentum * (stepped - self.now) + (1.0 - momentum) * drift
        self.before, self.now = self.now, self._within(mixed, eps)

    def _within(self, x_adv: Tensor, eps: float) -> Tensor:
        return torch.minimum(torch.maximum(x_adv, self.x - eps), self.x + eps).clamp(0.0, 1.0)

    def see(self, loss: Tensor, gradient: Tensor) -> None:
        """Take in what the model said of where they are now."""
        self.rises += (loss > self.loss).to(self.rises.dtype)
        self.loss, self.gradient = loss, gradient
        better = loss > self.best_loss
        self.best[better], self.best_gradient[better] = self.now[better], gradient[better]
        self.best_loss = torch.maximum(loss, self.best_loss)

    def check(self, wait: int) -> None:
        """Halve the step of rows that rose too seldom, or not above their best; they go on from their best."""
        seldom = self.rises <= _RISES_ENOUGH * wait
        stuck = ~self.halved_at_check & (self.loss_at_check >= self.best_loss)
        halved = seldom | stuck
        self.step[halved] /= 2.0
        self.now[halved], self.gradient[halved] = self.best[halved], self.best_gradient[halved]
        self.loss_at_check, self.halved_at_check = self.best_loss.clone(), halved
        self.rises = torch.zeros_like(self.rises)


def _ask(model: Model, at: Tensor, y: Tensor, goal: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """-> the loss, its gradient, and which rows have won."""
    at = at.detach().requires_grad_()
    logits = model(at)
    losses = loss(logits, y, goal)
    gradient = torch.autograd.grad(losses.sum(), at)[0]
    return losses.detach(), gradient, margin(logits.detach(), y) > CLEAR


def climb(
    model: Model, x: Tensor, y: Tensor, goal: Tensor, *, start: Tensor, loss: Loss, eps: float, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One run -> x_adv (of rows not won, where the loss was highest), which won, gradients taken a row."""
    x_adv, won, cost = start.clone(), torch.zeros(len(x), dtype=torch.bool), torch.ones(len(x), dtype=torch.int64)
    losses, gradient, first = _ask(model, start, y, goal, loss)
    everyone = _Climbers(
        torch.arange(len(x)), x, y, goal, start, start, gradient, losses, torch.full((len(x),), 2.0 * eps),
        torch.zeros(len(x)), start, gradient, losses, losses, torch.ones(len(x), dtype=torch.bool),
    )  # fmt: skip
    won[first] = True
    live, checks, since = everyone.only(~first), checkpoints(steps), 0
    for step in range(1, steps + 1):
        if not len(live.row):
            break
        live.move(eps, 1.0 if step == 1 else _MOMENTUM)
        losses, gradient, winners = _ask(model, live.now, live.y, live.goal, loss)
        cost[live.row] += 1
        live.see(losses, gradient)
        x_adv[live.row] = torch.where(each(winners, x), live.now, live.best)
        won[live.row] = winners
        live = live.only(~winners)
        if step == checks[0]:
            live.check(step - since)
            since = checks.pop(0)
    return x_adv, won, cost


def random_start(x: Array, eps: float, rng: np.random.Generator) -> Tensor:
    """Uniform, scaled so that each row touches the ball's surface."""
    noise = rng.uniform(-1.0, 1.0, x.shape)
    noise /= np.abs(noise).max(axis=tuple(range(1, x.ndim)), initial=_TINY, keepdims=True)
    return rows(x + eps * noise).clamp(0.0, 1.0)


def run(
    model: Model,
    x: Array,
    y: Array,
    *,
    loss: Loss,
    eps: float,
    steps: int,
    rng: np.random.Generator,
    goals: Array | None = None,
) -> tuple[Array, Array, Array]:
    """One random start of every row -> x_adv, which won, gradients taken."""
    x_adv, won, cost = np.array(x, np.float32), np.zeros(len(x), bool), np.zeros(len(x), np.int64)
    start = random_start(x, eps, rng)
    for part in parts(len(x)):
        goal = classes((y if goals is None else goals)[part])
        found = climb(model, rows(x[part]), classes(y[part]), goal, start=start[part], loss=loss, eps=eps, steps=steps)
        x_adv[part], won[part], cost[part] = (tensor.numpy() for tensor in found)
    return x_adv, won, cost


def attack(
    target: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    loss: Literal["ce", "dlr"] = "ce",
    restarts: int = 1,
) -> Result:
    """`restarts` random starts share the budget; only rows not yet won start again."""
    steps = budget // restarts - 1
    if steps < 1:
        raise ValueError("Auto-PGD needs a budget of two gradients a start")
    x_adv, queries = np.array(x, np.float32), np.zeros(len(x), np.int64)
    live = np.arange(len(x))
    for _ in range(restarts):
        raised = cross_entropy if loss == "ce" else dlr
        x_adv[live], won, cost = run(target, x[live], y[live], loss=raised, eps=eps, steps=steps, rng=rng)
        queries[live] += cost
        live = live[~won]
    return Result(x_adv, queries)
