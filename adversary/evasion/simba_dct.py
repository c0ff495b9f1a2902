"""SimBA-DCT: SimBA along the cosines of the image, the low frequencies first.

Source: Guo, Gardner, You, Wilson, Weinberger 2019, arXiv:1905.07121 (SimBA-DCT).
Access: scores. Norm: l2, at most step * sqrt(steps kept). Cost: up to `budget` queries a victim, one after the other.
Limits: images only; else SimBA's.

The order is the authors' for ImageNet, in proportion: first the lowest eighth of the frequencies of each side in random
order, then outwards by a thirty-second of the side at a time, random within. When all had their turn it begins anew.
"""

from collections.abc import Iterator

import numpy as np

from adversary.attack import Array, Result, ScoreOracle
from adversary.bases import cosines
from adversary.evasion.simba import along
from adversary.images import like, planes

_FIRST = 8  # of the side's frequencies, the share tried first
_STRIDE = 32


def order(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """(C, H, W) -> (C * H * W, 3): channel, vertical and horizontal frequency, each once."""
    places = np.argwhere(np.ones(shape, bool))
    side = max(shape[1:])
    first, stride = max(1, side // _FIRST), max(1, side // _STRIDE)
    ring = np.ceil(np.maximum(places[:, 1:].max(axis=1) - first + 1, 0) / stride)
    return np.asarray(places[np.lexsort((rng.permutation(len(places)), ring))])


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    step: float = 0.2,
) -> Result:
    """Stops where the label changes, however far that is."""
    del eps  # the runner's measure alone
    shape = planes(x).shape[1:]
    rows, columns = cosines(shape[1]), cosines(shape[2])

    def frequencies() -> Iterator[Array]:
        while True:
            for channel, down, right in order(shape, rng):
                direction = np.zeros((1, *shape))
                direction[0, channel] = np.outer(rows[:, down], columns[:, right])
                yield like(direction, x)[0]

    return along(target, x, y, budget=budget, step=step, directions=frequencies)
