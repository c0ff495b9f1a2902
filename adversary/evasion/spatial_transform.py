"""Spatial transform: the worst of k rotations and shifts, seeing labels only.

Source: Engstrom, Tran, Tsipras, Schmidt, Madry 2019, arXiv:1712.02779 (grid search and worst-of-k).
Access: labels. Norm: spatial (adversary.warps; eps 1 is 30 degrees and 3 of 28 pixels). Cost: up to `budget` queries a
        victim; 775 are the whole grid, ten the paper's worst-of-10.
Limits: k random points of the published grid, not of the space between them; stops at the first that wins, which need
        not be the smallest.
"""

import numpy as np

from adversary.attack import Array, LabelOracle, Meter, Result
from adversary.warps import lattice, warp


def attack(
    target: LabelOracle, x: Array, y: Array, *, eps: float, budget: int, rng: np.random.Generator, batch: int = 25
) -> Result:
    """Images only. What stays right under all that was tried stays x."""
    x_adv, queries = np.array(x, np.float32), np.zeros(len(x), np.int64)
    grid = lattice(eps)
    grid = grid[np.abs(grid).max(axis=1) > 0.0]
    for i in range(len(x)):
        meter = Meter(target, int(y[i]), budget, batch)
        tried = rng.permutation(grid)[:budget]
        for start in range(0, len(tried), batch):
            images = warp(x[i], tried[start : start + batch])
            won = meter.adversarial(images)
            if won.any():
                x_adv[i] = images[won.argmax()]
                break
        queries[i] = meter.spent
    return Result(x_adv, queries)
