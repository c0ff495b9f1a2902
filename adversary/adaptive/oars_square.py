"""OARS around the Square attack: as many squares a step, and as large ones, as the defence wants to see changed.

Source: Feng et al. 2023, arXiv:2303.06280; Square of Andriushchenko et al. 2020, arXiv:1912.00049 (linf).
Access: scores. Norm: linf. Cost: up to `budget` queries a victim, one after the other, up to 150 of them
        for the two searches at the start.
Limits: images only. A defence that takes as similar what the whole ball holds leaves no step to take.

As the authors' code: the search for the number of squares a step (1 to 100) accepts no refusal in 5 tries of the first
size, that for the least side of a square half of 10; a refused step is drawn anew.
"""

import math
from collections.abc import Iterator

import numpy as np

from adversary.adaptive.oars import Search, least_accepted
from adversary.attack import Array, Result, ScoreMeter, ScoreOracle
from adversary.evasion.square import asking, share, with_square
from adversary.images import like, planes
from adversary.walks import descend

_NUMBER = Search(halvings=10, tries=5, rate=0.0)
_SIDE = Search(halvings=10, tries=10, rate=0.5)


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    initial: float = 0.05,
    numbers: tuple[int, int] = (1, 100),
) -> Result:
    """Stops where the label changes. initial: the first squares' part of the image; numbers: of squares a step."""
    images = planes(np.asarray(x, np.float64))

    def walk(i: int, meter: ScoreMeter) -> Iterator[Array]:
        image = images[i]
        channels, height, width = image.shape
        ask, largest = asking(meter, x), min(height, width)

        def squares(best: Array, number: float, side: float) -> Array:
            for _ in range(int(number)):
                best = with_square(image, best, eps, min(max(int(side), 1), largest), rng)
            return best

        def first_side(step: int) -> int:
            return round(math.sqrt(share(step, budget, initial) * height * width))

        best = np.clip(image + rng.choice((-eps, eps), size=(channels, 1, width)), 0.0, 1.0)
        margin = ask(best)
        yield like(best[None], x)[0]
        number = least_accepted(lambda n: math.isnan(ask(squares(best, n, first_side(0)))), *numbers, _NUMBER)
        least = least_accepted(lambda side: math.isnan(ask(squares(best, number, side))), 1, largest, _SIDE)
        step, margin = 0, math.inf if math.isnan(margin) else margin
        while margin >= 0.0:
            candidate = squares(best, number, max(first_side(step), least))
            answer = ask(candidate)
            if answer < margin:
                best, margin = candidate, answer
                yield like(best[None], x)[0]
            step += 1

    return descend(target, x, y, budget=budget, batch=1, walk=walk)
