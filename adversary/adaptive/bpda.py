"""BPDA, backward pass differentiable approximation: PGD through a purifier that has no gradient of use.

Source: Athalye, Carlini, Wagner 2018, arXiv:1802.00420.
Access: gradients. Norm: linf. Cost: `budget` gradients a victim at most, `samples` of them a step.
Limits: the purifier must be known, and close to the identity, whose derivative stands in for its own.

Forward through the purifier, backward past it: the gradient at the purified input moves the input itself. By default
the purifier rounds to 3 bits (feature squeezing, Guo et al.'s bit depth), whose true gradient is zero.
"""

from collections.abc import Callable

import numpy as np

from adversary.attack import Array, Result
from adversary.gradients import Model, loss_gradient, within_linf

_LEVELS = 7  # of 3 bits, above zero


def round_to_3_bits(x: Array) -> Array:
    """(N, ...) in [0, 1] -> the same on eight levels."""
    return np.asarray(np.rint(x * _LEVELS) / _LEVELS, np.float32)


def attack(
    target: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    purify: Callable[[Array], Array] = round_to_3_bits,
    samples: int = 1,
    step: float | None = None,
) -> Result:
    """So many steps, budget / samples, from a uniform random start.

    target:   the model behind the purifier, without it.
    purify:   (N, ...) float32 in [0, 1] -> the same; may be random, then more `samples` average over it.
    step:     by default 2.5 eps / steps, as PGD's.
    """
    steps = budget // samples
    if steps < 1:
        raise ValueError("BPDA needs a budget of one step's samples")
    size = 2.5 * eps / steps if step is None else step
    x_adv = within_linf(x, x + rng.uniform(-eps, eps, x.shape), eps)
    for _ in range(steps):
        gradient = np.sum([loss_gradient(target, purify(x_adv), y) for _ in range(samples)], axis=0)
        x_adv = within_linf(x, x_adv + size * np.sign(gradient), eps)
    return Result(x_adv, np.full(len(x), steps * samples, np.int64))
