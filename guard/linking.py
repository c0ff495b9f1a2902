"""How a row lies to the earlier rows that look like it: how near, and whether natural motion explains the difference.

A camera pans, zooms, a light changes: successive frames differ by little, and so do the queries of a search. What tells
them apart is the kind of difference. To first order, natural motion moves a row within the span of a few directions,
its own derivatives; the share of the (squared) difference that is left after least squares in these directions is the
link's `unexplained`, corrected for the directions' number: about 1 for noise, however small, and small for motion. All
of it happens between keyed projections: nobody needs the earlier row.

Known bypass: a search that moves by shifts, zooms and brightness alone is not seen as one (and is a spatial attack,
within what such transformations can do). Sensor noise over a scene at rest is not explained.
"""

from collections.abc import Sequence

import numpy as np

from guard.types import Floats, Link, Match, Neighbour, Seen, Sketch

_TINY = 1e-12
_SAME = 1e-6
"""Relative distance below which positions are taken for equal: what float32 leaves of a difference."""


def links(sketches: Sequence[Sketch], matches: Sequence[Match]) -> tuple[Seen, ...]:
    """One a row."""
    return tuple(Seen(sketch, match, link(sketch, match)) for sketch, match in zip(sketches, matches, strict=True))


def link(sketch: Sketch, match: Match) -> Link | None:
    """To the nearest of the neighbours; None where there is none, or for an exact repeat."""
    if match.duplicate or not match.neighbours:
        return None
    differences = np.stack([sketch.position - one.position for one in match.neighbours]).astype(np.float64)
    squared = (differences**2).sum(axis=1)
    nearest = int(squared.argmin())
    length = float((sketch.position.astype(np.float64) ** 2).sum())
    distance = float(np.sqrt(squared[nearest] / max(length, _TINY)))
    return _linked(match.neighbours[nearest], differences[nearest], distance, sketch.motions)


def _linked(neighbour: Neighbour, difference: Floats, distance: float, motions: Floats) -> Link:
    if distance <= _SAME:
        return Link(neighbour, 0.0, 1.0)
    if not len(motions):
        return Link(neighbour, distance, 1.0)
    scale = np.sqrt((motions**2).sum(axis=1, keepdims=True))
    basis = (motions / np.maximum(scale, _TINY)).astype(np.float64)
    weights = np.linalg.lstsq(basis.T, difference, rcond=1e-4)[0]
    left = difference - weights @ basis
    share = float((left**2).sum() / max((difference**2).sum(), _TINY))
    return Link(neighbour, distance, min(1.0, share / (1.0 - len(motions) / len(difference))))
