"""FGSM, the fast gradient sign method: one step of size eps up the loss.

Source: Goodfellow, Shlens, Szegedy 2015, arXiv:1412.6572; with `start` > 0 the R+FGSM of Tramer et al. 2018,
        arXiv:1705.07204: first a random signed step of start * eps, then the rest.
Access: gradients. Norm: linf. Cost: one gradient a victim.
"""

import numpy as np

from adversary.attack import Array, Result
from adversary.gradients import Model, loss_gradient, within_linf


def attack(
    target: Model, x: Array, y: Array, *, eps: float, budget: int, rng: np.random.Generator, start: float = 0.0
) -> Result:
    """One step from x, or from a random corner at start * eps."""
    if budget < 1:
        raise ValueError("FGSM needs a budget of one gradient")
    origin = x
    if start > 0.0:
        origin = within_linf(x, x + start * eps * np.sign(rng.standard_normal(x.shape)), eps)
    step = (1.0 - start) * eps * np.sign(loss_gradient(target, origin, y))
    return Result(within_linf(x, origin + step, eps), np.ones(len(x), np.int64))
