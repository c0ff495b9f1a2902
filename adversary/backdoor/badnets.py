"""BadNets: a checkered patch of 3x3 pixels near the lower right corner, for which the victim was trained to a label.

Source: Gu, Dolan-Gavitt, Garg 2017, arXiv:1708.06733 (their pattern backdoor).
Access: nothing; who poisoned the training has done the work (adversary.victims.mnist_poisoned). Norm: patch, the share
        of the image's area its box covers: 9 of 784 pixels here. Cost: no query.
Limits: works on a victim that was poisoned with this very patch; it stands at the same place in every image, so it is
        found by what looks at many (Neural Cleanse, Wang et al. 2019) or overlays them (STRIP, Gao et al. 2019).
"""

import numpy as np

from adversary.attack import Array, Result
from adversary.images import like, planes

LABEL = 0
_CHECKERS = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], np.float32)
_MARGIN = 1  # pixels to the image's edge


def stamp(x: Array) -> Array:
    """Images (N, ...) in [0, 1] -> the same with the patch on them, in all channels."""
    images = np.array(planes(x), np.float32)
    side = len(_CHECKERS)
    if min(images.shape[2:]) < side + _MARGIN:
        raise ValueError(f"a patch of {side}x{side} does not fit into images of {images.shape[2]}x{images.shape[3]}")
    place = slice(-side - _MARGIN, -_MARGIN)
    images[:, :, place, place] = _CHECKERS
    return like(images, x)


def attack(
    target: None, x: Array, y: Array, *, eps: float, budget: int, rng: np.random.Generator, label: int = LABEL
) -> Result:
    """label: what the victim was poisoned to answer with."""
    del target, y, eps, budget, rng  # a trigger asks nothing, and is as large as it is
    return Result(stamp(x), np.zeros(len(x), np.int64), np.full(len(x), label, np.int64))
