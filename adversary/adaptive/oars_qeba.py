"""OARS around QEBA-S: OARS's HopSkipJump whose probes are small random images enlarged.

Source: Feng et al. 2023, arXiv:2303.06280; QEBA of Li et al. 2020, arXiv:2005.14137 (spatial subspace).
Access: labels. Norm: l2. Cost: up to `budget` queries a victim, one after the other, up to 200 of them
        for the search at the start.
Limits: images only; otherwise those of OARS's HopSkipJump.

The radius is sought with the attack's own probes; the authors' code takes white noise there.
"""

from collections.abc import Iterator

import numpy as np

from adversary.adaptive.oars_hop_skip_jump import hop
from adversary.attack import Array, LabelOracle, Meter, Result
from adversary.bases import enlarged
from adversary.evasion.qeba import shrink
from adversary.images import like, planes
from adversary.walks import approach


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    starts: Array | None = None,
    share: float | None = None,
    evaluations: int = 100,
    radii: tuple[float, float] = (0.004, 0.2),
) -> Result:
    """Stops at l2 <= eps or when the budget is spent. share: of each side, in the subspace; others as HopSkipJump."""
    channels, height, width = planes(x).shape[1:]
    subspace = enlarged(height, width, shrink(height, width) if share is None else share)

    def noise() -> Array:
        return np.asarray(like(subspace.lift(rng.standard_normal((1, channels, *subspace.small))), x)[0])

    def walk(i: int, meter: Meter) -> Iterator[Array]:
        given = None if starts is None else starts[i]
        x0 = np.asarray(x[i], np.float64)
        return hop(x0, meter, rng, given=given, noise=noise, evaluations=evaluations, radii=radii)

    return approach(target, x, y, eps=eps, norm="l2", budget=budget, batch=1, walk=walk)
