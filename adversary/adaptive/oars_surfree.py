"""OARS around SurFree: no turn narrower than the defence accepts; where one is refused, another plane is drawn.

Source: Feng et al. 2023, arXiv:2303.06280; SurFree of Maho et al. 2021, arXiv:2011.12807.
Access: labels. Norm: l2. Cost: up to `budget` queries a victim, one after the other, up to 100 of them
        for the search at the start.
Limits: images only. Comes no nearer to the boundary than the widest turn that is adversarial and accepted at once.

As the authors' code: one angle of each sign a plane, no search for the widest. There, a flag that is never taken down
ends every attack some refusals after the first; here the next plane is drawn, and the angle grows by 2 % as it does
after a success: the same angle is a shorter way the nearer the attack has come.
"""

from collections.abc import Callable, Iterator

import numpy as np

from adversary.adaptive.oars import Search, least_accepted, start
from adversary.attack import Array, LabelOracle, Meter, Result
from adversary.evasion.surfree import turning
from adversary.walks import approach

_ANGLE = Search(halvings=5, tries=20, rate=0.05)


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    starts: Array | None = None,
    theta_max: float = 30.0,
    rho: float = 0.98,
    angles: tuple[float, float] = (5.0, 85.0),
    remembered: int = 100,
    share: float = 0.5,
) -> Result:
    """Stops at l2 <= eps or when the budget is spent. angles: where the least accepted one is sought, in degrees."""

    def walk(i: int, meter: Meter) -> Iterator[Array]:
        x0 = np.asarray(x[i], np.float64)
        point = start(meter, x0, rng, None if starts is None else starts[i])
        yield point
        turn = turning(x0, rng, remembered=remembered, share=share)
        least = least_accepted(lambda angle: bool(meter.verdicts(turn(point)(angle)[None])[1][0]), *angles, _ANGLE)
        widest = theta_max
        while True:
            widest = max(widest, least)
            path = turn(point)
            angle, refused = _angle(meter, path, widest)
            if angle == 0.0:
                widest *= 1.0 / rho if refused else rho
                continue
            widest /= rho
            if np.linalg.norm(path(angle) - x0) < np.linalg.norm(point - x0):
                point = path(angle)
                yield point

    return approach(target, x, y, eps=eps, norm="l2", budget=budget, batch=1, walk=walk)


def _angle(meter: Meter, path: Callable[[float], Array], widest: float) -> tuple[float, bool]:
    """An adversarial angle, 0 where there is none; and whether a refusal ended the search."""
    for angle in (widest, -widest):
        adversarial, refused = meter.verdicts(path(angle)[None])
        if refused[0]:
            return 0.0, True
        if adversarial[0]:
            return angle, False
    return 0.0, False
