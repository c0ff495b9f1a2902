"""QEBA-S: HopSkipJump whose probes are small random images enlarged, so that fewer of them say more.

Source: Li, Xu, Zhang, Yang, Li 2020, arXiv:2005.14137 (spatial subspace).
Access: labels. Norm: l2. Cost: up to `budget` queries a victim.
Limits: images only. The subspace must hold much of the gradient: fine-grained models give it little.

As the authors' code: the boundary is met within gamma / sqrt(d) of the distance, probes reach gamma times the distance,
and every step has as many of them. Sides shrink to a half as for CIFAR-10 there, and to a quarter as for ImageNet from
128 pixels on. The probes of a step travel up to `batch` a call; a refused one counts as not adversarial.
"""

import math
from collections.abc import Iterator

import numpy as np

from adversary.attack import Array, LabelOracle, Meter, Result
from adversary.bases import Subspace, enlarged
from adversary.evasion.hop_skip_jump import Settings, hop
from adversary.images import like, planes
from adversary.walks import approach

_LARGE = 128  # pixels


def shrink(height: int, width: int) -> float:
    """The authors' share of each side."""
    return 0.25 if min(height, width) >= _LARGE else 0.5


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
    batch: int = 64,
    gamma: float = 0.01,
    evaluations: int = 100,
) -> Result:
    """Stops at l2 <= eps or when the budget is spent. share: of each side, in the subspace; starts: as HopSkipJump."""
    height, width = planes(x).shape[2:]
    subspace = enlarged(height, width, shrink(height, width) if share is None else share)
    return within(
        subspace, target, x, y, eps=eps, budget=budget, rng=rng, starts=starts, batch=batch, gamma=gamma,
        evaluations=evaluations,
    )  # fmt: skip


def within(
    subspace: Subspace,
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    starts: Array | None,
    batch: int,
    gamma: float,
    evaluations: int,
) -> Result:
    """The same with probes from any subspace."""
    settings = Settings(gamma / math.sqrt(math.prod(x.shape[1:])), (evaluations, evaluations))
    channels = planes(x).shape[1]

    def noise(n: int) -> Array:
        return like(subspace.lift(rng.standard_normal((n, channels, *subspace.small))), x)

    def walk(i: int, meter: Meter) -> Iterator[Array]:
        given = None if starts is None else starts[i]
        return hop(np.asarray(x[i], np.float64), meter, rng, given=given, noise=noise, settings=settings)

    return approach(target, x, y, eps=eps, norm="l2", budget=budget, batch=batch, walk=walk)
