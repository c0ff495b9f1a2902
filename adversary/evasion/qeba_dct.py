"""QEBA-F: HopSkipJump whose probes have low frequencies only.

Source: Li, Xu, Zhang, Yang, Li 2020, arXiv:2005.14137 (frequency subspace).
Access: labels. Norm: l2. Cost: up to `budget` queries a victim.
Limits: QEBA-S's.

Coefficients are Gaussian, as in the paper; the authors' code makes each channel's an orthogonal matrix.
"""

import numpy as np

from adversary.attack import Array, LabelOracle, Result
from adversary.bases import low_frequencies
from adversary.evasion.qeba import shrink, within
from adversary.images import planes


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
    """Stops at l2 <= eps or when the budget is spent. share: of each side's frequencies; starts: as HopSkipJump."""
    height, width = planes(x).shape[2:]
    subspace = low_frequencies(height, width, shrink(height, width) if share is None else share)
    return within(
        subspace, target, x, y, eps=eps, budget=budget, rng=rng, starts=starts, batch=batch, gamma=gamma,
        evaluations=evaluations,
    )  # fmt: skip
