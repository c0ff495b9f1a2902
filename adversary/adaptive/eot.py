"""EOT, expectation over transformation: PGD on the mean gradient of a model that is random.

Source: Athalye, Engstrom, Ilyas, Kwok 2018, arXiv:1707.07397; against randomised defences Athalye, Carlini, Wagner
        2018, arXiv:1802.00420.
Access: gradients. Norm: linf. Cost: `budget` gradients a victim at most, `samples` of them a step.
Limits: what is random must be known, so that it can be put in front of the model.

The randomness is the model's own (dropout left on), and what `transform` adds: by default Gaussian noise on the input,
the defence of randomised smoothing.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from adversary.attack import Array, Result
from adversary.gradients import Model, loss_gradient, within_linf


def attack(
    target: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    samples: int = 10,
    sigma: float = 0.1,
    step: float | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> Result:
    """So many steps, budget / samples, from a uniform random start.

    sigma:      of the noise; 0 leaves the model's own randomness alone.
    step:       by default 2.5 eps / steps, as PGD's.
    transform:  (N, ...) -> (N, ...), random and differentiable, drawn from torch's generator; instead of the noise.
    """
    steps = budget // samples
    if steps < 1:
        raise ValueError("EOT needs a budget of one step's samples")
    size = 2.5 * eps / steps if step is None else step

    def seen(inputs: Tensor) -> Tensor:
        return target(inputs + sigma * torch.randn_like(inputs) if transform is None else transform(inputs))

    x_adv = within_linf(x, x + rng.uniform(-eps, eps, x.shape), eps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        for _ in range(steps):
            gradient = np.sum([loss_gradient(seen, x_adv, y) for _ in range(samples)], axis=0)
            x_adv = within_linf(x, x_adv + size * np.sign(gradient), eps)
    return Result(x_adv, np.full(len(x), steps * samples, np.int64))
