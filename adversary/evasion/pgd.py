"""PGD, projected gradient descent: signed steps up the loss from a random point of the ball.

Source: Madry et al. 2018, arXiv:1706.06083.
Access: gradients. Norm: linf. Cost: `budget` gradients a victim, one a step.
"""

import numpy as np

from adversary.attack import Array, Result
from adversary.gradients import Model, loss_gradient, within_linf


def ascend(model: Model, x: Array, y: Array, origin: Array, *, eps: float, step: float, steps: int) -> Result:
    """`steps` signed steps from `origin`, each projected back onto the ball around x."""
    x_adv = origin
    for _ in range(steps):
        x_adv = within_linf(x, x_adv + step * np.sign(loss_gradient(model, x_adv, y)), eps)
    return Result(np.asarray(x_adv, np.float32), np.full(len(x), steps, np.int64))


def attack(
    target: Model, x: Array, y: Array, *, eps: float, budget: int, rng: np.random.Generator, step: float | None = None
) -> Result:
    """`budget` steps of `step` (default: 2.5 eps / budget, as Madry et al. set it) from a uniform random start."""
    if budget < 1:
        raise ValueError("PGD needs a budget of one gradient")
    origin = within_linf(x, x + rng.uniform(-eps, eps, x.shape), eps)
    return ascend(target, x, y, origin, eps=eps, step=2.5 * eps / budget if step is None else step, steps=budget)
