"""TI-FGSM: MI-FGSM whose gradient is smoothed by a Gaussian, which stands for gradients of shifted images.

Source: Dong, Pang, Su, Zhu 2019, arXiv:1904.02884 (TI-MI-FGSM, a Gaussian kernel of 3 sigma).
Access: gradients, of a surrogate. Norm: linf. Cost: `budget` gradients a victim, one a step.
Limits: made for defended targets; against plain ones it carries no farther than MI-FGSM. The paper's kernel is 15
        wide on 299 pixels; by default it is as wide here in proportion, at least 3.
"""

import numpy as np

from adversary.attack import Array, Result
from adversary.evasion.mi_fgsm import ascend
from adversary.gradients import Model, loss_gradient
from adversary.images import like, planes

_WIDTH = 15 / 299
_SIGMAS = 3.0


def gaussian(width: int) -> Array:
    """(width,) weights that sum to 1, from -3 to 3 sigma."""
    at = np.linspace(-_SIGMAS, _SIGMAS, width)
    weights = np.exp(-(at**2) / 2.0)
    return np.asarray(weights / weights.sum(), np.float32)


def smooth(gradient: Array, width: int) -> Array:
    """Every channel of every image by the kernel, black beyond the border."""
    images, weights, half = planes(gradient), gaussian(width), width // 2
    for axis in (2, 3):
        pads = [(half, half) if i == axis else (0, 0) for i in range(4)]
        framed, size = np.pad(images, pads), images.shape[axis]
        shifted = [w * np.take(framed, range(k, k + size), axis=axis) for k, w in enumerate(weights)]
        images = np.sum(shifted, axis=0)
    return like(images, gradient)


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
    width: int | None = None,
) -> Result:
    """`budget` steps on the surrogate `target`; width: of the kernel, odd."""
    del rng  # nothing is random here
    side = planes(x).shape[2]
    wide = max(3, round(_WIDTH * side) | 1) if width is None else width
    if wide % 2 == 0:
        raise ValueError(f"a kernel {wide} wide has no middle")
    return ascend(
        lambda at: smooth(loss_gradient(target, at, y), wide), x, eps=eps, steps=budget, decay=decay, step=step
    )
