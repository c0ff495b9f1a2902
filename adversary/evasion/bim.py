"""BIM, the basic iterative method: FGSM in small steps from x itself.

Source: Kurakin, Goodfellow, Bengio 2017, arXiv:1607.02533.
Access: gradients. Norm: linf. Cost: `budget` gradients a victim, one a step.
"""

import numpy as np

from adversary.attack import Array, Result
from adversary.evasion.pgd import ascend
from adversary.gradients import Model


def attack(
    target: Model, x: Array, y: Array, *, eps: float, budget: int, rng: np.random.Generator, step: float | None = None
) -> Result:
    """`budget` steps of `step` (default: eps / 5, as feature squeezing's authors ran it with ten steps)."""
    del rng  # nothing is random here
    if budget < 1:
        raise ValueError("BIM needs a budget of one gradient")
    return ascend(target, x, y, np.asarray(x), eps=eps, step=eps / 5 if step is None else step, steps=budget)
