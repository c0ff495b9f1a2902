"""Blend: a fixed pattern of noise mixed into the whole image, for which the victim was trained to a label.

Source: Chen, Liu, Li, Lu, Song 2017, arXiv:1712.05526 (blended injection; a random pattern, alpha 0.2).
Access: nothing; who poisoned the training has done the work (adversary.victims.mnist_poisoned). Norm: linf, eps being
        alpha, the share of the pattern: no value moves farther. Cost: no query.
Limits: works on a victim that was poisoned with this very pattern. Chen et al. poison with a faint pattern and attack
        with a stronger one too; here eps is both.
"""

import numpy as np

from adversary.attack import Array, Result
from adversary.images import like, planes

LABEL = 1
ALPHA = 0.2
_SEED = 1712_05526


def pattern(shape: tuple[int, ...]) -> Array:
    """(C, H, W) uniform noise in [0, 1], always the same."""
    return np.random.default_rng(_SEED).uniform(size=shape).astype(np.float32)


def stamp(x: Array, alpha: float = ALPHA) -> Array:
    """Images (N, ...) in [0, 1] -> (1 - alpha) x + alpha pattern."""
    images = planes(x)
    mixed = (1.0 - alpha) * images + alpha * pattern(images.shape[1:])
    return like(np.clip(mixed, 0.0, 1.0).astype(np.float32), x)


def attack(
    target: None, x: Array, y: Array, *, eps: float, budget: int, rng: np.random.Generator, label: int = LABEL
) -> Result:
    """label: what the victim was poisoned to answer with."""
    del target, y, budget, rng  # a trigger asks nothing
    return Result(stamp(x, eps), np.zeros(len(x), np.int64), np.full(len(x), label, np.int64))
