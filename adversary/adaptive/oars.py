"""OARS, oracle-guided adaptive rejection sampling: what its variants share.

Source: Feng, Hooda, Mangaokar, Fawaz, Jha, Prakash 2023, arXiv:2303.06280, and the authors' code.

A stateful defence that refuses what resembles earlier queries says, by every refusal, what it takes for similar. OARS
adapts: it searches for the least noise or step that is accepted, and attacks with that; and it resamples: what is
refused is drawn anew. Every query travels alone, so that a refusal is about one row.

Where the authors give a victim up after so many refusals, these variants go on until the budget is spent.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adversary import boundary
from adversary.attack import Array, Meter


@dataclass(frozen=True, slots=True)
class Search:
    """A binary search for a size: how often it halves, how many tries a size gets, which share may be refused."""

    halvings: int
    tries: int
    rate: float


def least_accepted(refused: Callable[[float], bool], low: float, high: float, search: Search) -> float:
    """The smallest size between low and high that the defence accepts; high where it accepts none below."""
    most = math.floor(search.rate * search.tries + 1e-9)
    for _ in range(search.halvings):
        middle = (low + high) / 2.0
        refusals = 0
        for _ in range(search.tries):
            refusals += refused(middle)
            if refusals > most:
                break
        if refusals > most:
            low = middle
        else:
            high = middle
    return high


def retreat(meter: Meter, x: Array, point: Array, tolerance: float) -> Array:
    """Binary search between x and an adversarial point, which ends at the first refusal, on the adversarial side."""
    low, high = 0.0, 1.0
    while high - low > tolerance:
        middle = (low + high) / 2.0
        adversarial, refused = meter.verdicts(((1.0 - middle) * x + middle * point)[None])
        if refused[0]:
            break
        if adversarial[0]:
            high = middle
        else:
            low = middle
    return np.asarray((1.0 - high) * x + high * point)


def start(meter: Meter, x: Array, rng: np.random.Generator, given: Array | None) -> Array:
    """An adversarial point: the given one, or noise that is answered wrongly; moved towards x as far as is accepted."""
    if given is None or not boundary.adversarial(meter, np.asarray(given, np.float64)):
        given = boundary.noise(meter, x.shape, rng)
    return retreat(meter, x, np.asarray(given, np.float64), boundary.START_TOLERANCE)
