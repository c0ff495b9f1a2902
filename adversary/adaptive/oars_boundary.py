"""OARS around the Boundary attack: refusals make both steps grow, and refused proposals are left out.

Source: Feng et al. 2023, arXiv:2303.06280; Boundary of Brendel et al. 2018, arXiv:1712.04248, as in ART.
Access: labels. Norm: l2. Cost: up to `budget` queries a victim, one after the other; it needs thousands.
Limits: comes no nearer to the boundary than the defence lets it see; where eps is smaller than that, it fails.

Each round proposes points on the sphere around x until some are adversarial, then moves those towards x until some
are. To size both steps a refusal counts as adversarial, as in the authors' code: refusals and a sphere that is all
adversarial both call for a larger step. Where all moves towards x are refused, the round keeps the nearest point of the
sphere; there the authors leave the step as it is, and here it grows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from adversary import boundary
from adversary.attack import Array, LabelOracle, Meter, Result
from adversary.walks import approach

_TRIALS = 10
_FEW, _MANY = 0.2, 0.5  # adversarial shares between which a step stays
_TINY = 1e-12
_FAR = 1e6  # times the distance: as good as sideways


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    starts: Array | None = None,
    samples: int = 20,
    spherical_step: float = 0.01,
    source_step: float = 0.01,
    adaptation: float = 0.667,
) -> Result:
    """Stops at l2 <= eps or when the budget is spent. samples: proposals a trial; starts: inputs of another class."""

    def walk(i: int, meter: Meter) -> Iterator[Array]:
        x0 = np.asarray(x[i], np.float64)
        point = _start(meter, x0, rng, None if starts is None else starts[i])
        yield point
        around, towards = _Step(spherical_step, adaptation), _Step(source_step, adaptation)
        while True:
            found = _sphere(meter, x0, point, around, samples, rng)
            if len(found):
                nearer = _nearer(meter, x0, found, towards, source_step)
                point = _nearest(x0, nearer if len(nearer) else found)
                yield point

    return approach(target, x, y, eps=eps, norm="l2", budget=budget, batch=1, walk=walk)


@dataclass(slots=True)
class _Step:
    """A size, as a share of the distance to x."""

    size: float
    adaptation: float

    def learn(self, adversarial: Array, refused: Array) -> None:
        share = float((adversarial | refused).mean())
        if share < _FEW:
            self.size *= self.adaptation
        elif share > _MANY:
            self.size /= self.adaptation


def _start(meter: Meter, x: Array, rng: np.random.Generator, given: Array | None) -> Array:
    if given is not None and boundary.adversarial(meter, np.asarray(given, np.float64)):
        return np.asarray(given, np.float64)
    return boundary.noise(meter, x.shape, rng)


def _sphere(meter: Meter, x: Array, point: Array, step: _Step, samples: int, rng: np.random.Generator) -> Array:
    """(K, ...) adversarial points at the distance of this one; none after so many trials."""
    for _ in range(_TRIALS):
        proposals = _around(x, point, step.size, rng.standard_normal((samples, *x.shape)))
        adversarial, refused = meter.verdicts(proposals)
        step.learn(adversarial, refused)
        if adversarial.any():
            return np.asarray(proposals[adversarial])
        if refused.mean() > _MANY:
            step.size /= step.adaptation
    return np.zeros((0, *x.shape))


def _around(x: Array, point: Array, size: float, noise: Array) -> Array:
    """(K, ...) noise -> points on the sphere around x, clipped to [0, 1]. size: grows without end under refusals."""
    size = min(size, _FAR)
    towards = x - point
    distance = max(float(np.linalg.norm(towards)), _TINY)
    unit = towards / distance
    noise = noise / np.sqrt((noise**2).sum(axis=tuple(range(1, noise.ndim)), keepdims=True)) * (size * distance)
    noise = noise - np.tensordot(noise, unit, axes=unit.ndim).reshape(-1, *[1] * unit.ndim) * unit
    return np.asarray(np.clip(x + (noise - towards) / np.sqrt(1.0 + size**2), 0.0, 1.0))


def _nearer(meter: Meter, x: Array, points: Array, step: _Step, first: float) -> Array:
    """(K, ...) adversarial points -> those that still are when moved towards x; none where all moves are refused."""
    for _ in range(_TRIALS):
        if step.size > 1.0:
            step.size = first
        moved = points + step.size * (x - points)
        adversarial, refused = meter.verdicts(moved)
        step.learn(adversarial, refused)
        if refused.all():
            break
        if adversarial.any():
            return np.asarray(moved[adversarial])
    return points[:0]


def _nearest(x: Array, points: Array) -> Array:
    return np.asarray(points[np.linalg.norm((points - x).reshape(len(points), -1), axis=1).argmin()])
