"""L-BFGS: the first attack on deep networks: the smallest l2 perturbation that makes the model answer a target class.

Source: Szegedy et al. 2014, arXiv:1312.6199 (section 4.1; box-constrained L-BFGS, a line search for the price).
Access: gradients. Norm: l2. Cost: up to `budget` gradients a victim, shared among the prices tried.
Limits: targeted, by default at the runner-up class; victims one by one, so slower than C&W, which comes as close.

For a price c, minimises ||d||^2 + c * cross_entropy(x + d, target) over x + d in [0, 1]; a binary search finds the
lowest price that still wins. The box is kept by projection (Bertsekas 1982): values held at a bound by the gradient
sit out, the others follow L-BFGS's direction, and the line search walks along the projected path.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adversary.attack import Array, Result, norms
from adversary.gradients import Model
from adversary.tensors import CLEAR, classes, margin, rows, runner_up

Objective = Callable[[Tensor], tuple[float, Tensor]]
"""(D,) -> value, gradient (D,)."""
_ENOUGH_DECREASE = 1e-4
_HALVINGS = 20
_FLAT = 1e-5
_HIGHEST_PRICE = 1e10


@dataclass(slots=True, eq=False)
class _Curvature:
    """The last pairs of steps and gradient changes, and the two-loop recursion (Nocedal 1980) over them."""

    memory: int
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def learn(self, step: Tensor, change: Tensor) -> None:
        if float(step @ change) > 1e-10 * float(step.norm() * change.norm()):
            self.pairs = [*self.pairs, (step, change)][-self.memory :]

    def direction(self, gradient: Tensor, free: Tensor) -> Tensor:
        """-H g among the free values; steepest descent where that does not descend."""
        q, among = gradient * free, [(s * free, v * free) for s, v in self.pairs]
        pairs = [(s, v, float(s @ v)) for s, v in among if float(s @ v) > 0.0]
        weights = []
        for s, v, product in reversed(pairs):
            weights.append(float(s @ q) / product)
            q = q - weights[-1] * v
        if pairs:
            _, last, product = pairs[-1]
            q = q * (product / float(last @ last))
        for (s, v, product), weight in zip(pairs, reversed(weights), strict=True):
            q = q + (weight - float(v @ q) / product) * s
        found = -q * free
        return found if float(found @ gradient) < 0.0 else -gradient * free


def minimise(objective: Objective, start: Tensor, *, evaluations: int, memory: int = 10) -> tuple[Tensor, int]:
    """Projected L-BFGS over [0, 1]: (D,) -> where it ends, how often the objective was evaluated."""
    at, curvature = start, _Curvature(memory)
    value, gradient = objective(at)
    spent = 1
    while spent < evaluations:
        free = ~(((at <= 0.0) & (gradient > 0.0)) | ((at >= 1.0) & (gradient < 0.0)))
        if float((gradient * free).abs().max()) < _FLAT:
            break
        direction = curvature.direction(gradient, free.to(at.dtype))
        scale = 1.0 if curvature.pairs else min(1.0, 1.0 / float(direction.norm()))
        for _ in range(min(_HALVINGS, evaluations - spent)):
            after = (at + scale * direction).clamp(0.0, 1.0)
            new_value, new_gradient = objective(after)
            spent += 1
            if new_value <= value + _ENOUGH_DECREASE * float(gradient @ (after - at)):
                break
            scale /= 2.0
        else:
            break
        curvature.learn(after - at, new_gradient - gradient)
        at, value, gradient = after, new_value, new_gradient
    return at, spent


def _one(model: Model, x: Tensor, goal: Tensor, *, budget: int, search_steps: int, price: float) -> tuple[Tensor, int]:
    """One victim (1, ...): the closest winner of all prices tried, x itself where none won; what it cost."""
    best, least, low, high, spent = x, float("inf"), 0.0, _HIGHEST_PRICE, 0
    origin = x.flatten().double()
    for left in range(search_steps, 0, -1):

        def objective(flat: Tensor, price: float = price) -> tuple[float, Tensor]:
            at = flat.float().reshape(x.shape).requires_grad_()
            loss = functional.cross_entropy(model(at), goal)
            slope = torch.autograd.grad(loss, at)[0].flatten().double()
            away = flat - origin
            return float(away @ away) + price * loss.item(), 2.0 * away + price * slope

        end, cost = minimise(objective, origin, evaluations=(budget - spent) // left)
        spent += cost
        x_adv = end.float().reshape(x.shape)
        with torch.no_grad():
            won = float(margin(model(x_adv), goal)) < -CLEAR
        size = float((x_adv - x).norm())
        if won and size < least:
            best, least = x_adv, size
        low, high = (low, min(high, price)) if won else (max(low, price), high)
        price = (low + high) / 2.0 if high < _HIGHEST_PRICE else price * 10.0
    return best, spent


def attack(
    target: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    targets: Array | None = None,
    search_steps: int = 8,
    initial_price: float = 1.0,
) -> Result:
    """Towards `targets` (N,), by default each row's most probable wrong class. Rows beyond eps stay x."""
    del rng  # nothing is random here
    if budget < search_steps:
        raise ValueError(f"L-BFGS with {search_steps} prices needs a budget of at least as many gradients")
    goals = runner_up(target, x, y) if targets is None else targets
    x_adv, queries = np.array(x, np.float32), np.zeros(len(x), np.int64)
    for i in range(len(x)):
        found, queries[i] = _one(
            target, rows(x[i : i + 1]), classes(goals[i : i + 1]), budget=budget, search_steps=search_steps,
            price=initial_price,
        )  # fmt: skip
        x_adv[i] = found[0].numpy()
    far = norms(x_adv - x, "l2") > eps
    x_adv[far] = x[far]
    return Result(x_adv, queries)
