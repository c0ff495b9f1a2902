"""MI-FGSM: BIM whose steps follow a running mean of gradients, made on a surrogate and sent to another model.

Source: Dong et al. 2018, arXiv:1710.06081 (mu 1, ten steps of eps / 10).
Access: gradients, of a surrogate. Norm: linf. Cost: `budget` gradients a victim, one a step.
Limits: how far it carries depends on how alike surrogate and target are; adversarial training stops most of it.
"""

from collections.abc import Callable

import numpy as np

from adversary.attack import Array, Result
from adversary.gradients import Model, loss_gradient, within_linf

Gradient = Callable[[Array], Array]
"""(N, ...) -> the loss's gradient in each row."""


def ascend(gradient: Gradient, x: Array, *, eps: float, steps: int, decay: float, step: float | None) -> Result:
    """Signed steps along sum_k decay^k g_k / ||g_k||_1; `step` is by default eps / steps."""
    if steps < 1:
        raise ValueError("a transfer attack needs a budget of one gradient")
    x_adv, momentum = np.array(x, np.float32), np.zeros(x.shape, np.float32)
    for _ in range(steps):
        found = gradient(x_adv)
        length = np.abs(found).sum(axis=tuple(range(1, x.ndim)), keepdims=True)
        momentum = decay * momentum + found / np.maximum(length, np.finfo(np.float32).tiny)
        x_adv = within_linf(x, x_adv + (eps / steps if step is None else step) * np.sign(momentum), eps)
    return Result(x_adv, np.full(len(x), steps, np.int64))


def attack(
    target: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    decay: float = 1.0,
    step: float | None = None,
) -> Result:
    """`budget` steps on the surrogate `target`; decay 0 is BIM with steps of eps / budget."""
    del rng  # nothing is random here
    return ascend(lambda at: loss_gradient(target, at, y), x, eps=eps, steps=budget, decay=decay, step=step)
