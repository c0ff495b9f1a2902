"""What so many rows cost, by the curve that the monitor has and by how fast a client was seen to hash."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adversary.attack import Array
from guard.extraction_budget import Curve
from guard.settings import Challenge


def prices(curve: Curve, challenge: Challenge, rows: Array) -> Array:
    """(N,) answered rows -> (N,) hashes that the last of them took."""
    begin = challenge.grows_from
    estimates = np.array([curve.at(float(n)) for n in rows])
    progress = np.clip((estimates - begin) / (1.0 - begin), 0.0, 1.0)
    return np.array([challenge.hashes(float(one)) for one in progress])


@dataclass(frozen=True, slots=True)
class Rates:
    """Of a client. row_s: that a row takes without a puzzle."""

    hashes_per_s: float
    row_s: float


def total_s(curve: Curve, challenge: Challenge, rows: int, batch: int, rates: Rates) -> float:
    """Processor time for so many rows in batches, each at the price of its last row."""
    ends = np.arange(batch, rows + batch, batch).clip(max=rows)
    sizes = np.diff(ends, prepend=0)
    work = float((prices(curve, challenge, ends) * sizes).sum())
    return work / rates.hashes_per_s + rows * rates.row_s


def interval(values: Array, draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """The median, and a 95 % bootstrap interval of it."""
    rng = np.random.default_rng(seed)
    medians = np.median(rng.choice(values, (draws, len(values))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(np.median(values)), float(low), float(high)


def at_most(rows: Sequence[int], wanted: int) -> int:
    """The place of the last of these that is not above."""
    return max(0, int(np.searchsorted(rows, wanted, side="right")) - 1)
