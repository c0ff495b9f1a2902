"""DI-FGSM: MI-FGSM on inputs that are shrunk and padded at random at each step, so that less of it fits one model only.

Source: Xie et al. 2019, arXiv:1803.06978 (M-DI2-FGSM, probability 0.5; with decay 0 its DI2-FGSM).
Access: gradients, of a surrogate. Norm: linf. Cost: `budget` gradients a victim, one a step.
Limits: as MI-FGSM's. The paper enlarges 299 to at most 330 pixels; here an image keeps the model's size, so it shrinks
        to no less than `least` of it, by nearest neighbours, and black pads the rest.
"""

from dataclasses import dataclass

import numpy as np

from adversary.attack import Array, Result
from adversary.evasion.mi_fgsm import Gradient, ascend
from adversary.gradients import Model, loss_gradient
from adversary.images import like, planes


@dataclass(frozen=True, slots=True, eq=False)
class Shrinking:
    """Which pixels stay, and where their rows and columns go."""

    rows: Array
    columns: Array
    top: int
    left: int

    def forth(self, x: Array) -> Array:
        """(N, ...) images -> the same size, smaller on black."""
        images = planes(x)
        shrunk = np.zeros(images.shape, np.float32)
        shrunk[self._place] = images[:, :, self.rows[:, None], self.columns]
        return like(shrunk, x)

    def back(self, gradient: Array) -> Array:
        """The gradient where `forth` led -> that of the images themselves."""
        there = planes(gradient)
        here = np.zeros(there.shape, np.float32)
        here[:, :, self.rows[:, None], self.columns] = there[self._place]
        return like(here, gradient)

    @property
    def _place(self) -> tuple[slice, ...]:
        down, right = slice(self.top, self.top + len(self.rows)), slice(self.left, self.left + len(self.columns))
        return slice(None), slice(None), down, right


def shrinking(height: int, width: int, least: float, rng: np.random.Generator) -> Shrinking:
    """One size between `least` and all of it, anywhere it fits."""
    share = rng.uniform(least, 1.0)
    h, w = max(1, int(height * share)), max(1, int(width * share))
    kept = [np.arange(n) * full // n for n, full in ((h, height), (w, width))]
    return Shrinking(kept[0], kept[1], int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)))


def diverse(gradient: Gradient, *, rng: np.random.Generator, least: float, share: float) -> Gradient:
    """The gradient at an image shrunk anew each time, with probability `share`, else at the image itself."""

    def behind(x: Array) -> Array:
        if rng.random() >= share:
            return gradient(x)
        height, width = planes(x).shape[2:]
        drawn = shrinking(height, width, least, rng)
        return drawn.back(gradient(drawn.forth(x)))

    return behind


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
    least: float = 0.9,
    share: float = 0.5,
) -> Result:
    """`budget` steps on the surrogate `target`; every step draws one shrinking for all rows."""
    gradient = diverse(lambda at: loss_gradient(target, at, y), rng=rng, least=least, share=share)
    return ascend(gradient, x, eps=eps, steps=budget, decay=decay, step=step)
