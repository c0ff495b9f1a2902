"""Boundary attack: a random walk along the decision boundary, a step around x and a step towards it.

Source: Brendel, Rauber, Bethge 2018, arXiv:1712.04248; step sizes adapted as in their Foolbox 3.
Access: labels. Norm: l2. Cost: up to `budget` queries a victim, nearly all one after the other; it needs thousands.
Limits: every accepted step lies close to the last: the easiest of these attacks to see for a stateful monitor.

Starts on noise blended with x. Each step proposes a point on the sphere around x, then moves it towards x, and asks for
that; each tenth step the point on the sphere is asked for too, and the success of both kinds over the last 100 and 30
of these steps sizes the next ones. A refused query counts as not adversarial.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from adversary import boundary
from adversary.attack import Array, LabelOracle, Meter, Result
from adversary.walks import approach

_EVERY = 10  # steps between looks at the success
_TINY = 1e-12


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    starts: Array | None = None,
    spherical_step: float = 0.01,
    source_step: float = 0.01,
    adaptation: float = 1.5,
    least_source_step: float = 1e-7,
) -> Result:
    """Stops at l2 <= eps, when steps towards x get smaller than least_source_step, or when the budget is spent.

    starts: (N, ...) inputs of another class to come from.
    """

    def walk(i: int, meter: Meter) -> Iterator[Array]:
        x0 = np.asarray(x[i], np.float64)
        point = boundary.start(meter, x0, rng, None if starts is None else starts[i])
        yield point
        steps = _Steps(spherical_step, source_step, adaptation)
        count = 0
        while steps.source >= least_source_step:
            count += 1
            around, nearer = _proposals(x0, point, steps, rng)
            if count % _EVERY:
                won = boundary.adversarial(meter, nearer)
            else:
                on_sphere, won = (bool(hit) for hit in meter.adversarial(np.stack([around, nearer])))
                steps.learn(on_sphere, won)
            if won and np.linalg.norm(nearer - x0) < np.linalg.norm(point - x0):
                point = nearer
                yield point

    return approach(target, x, y, eps=eps, norm="l2", budget=budget, batch=2, walk=walk)


@dataclass(slots=True)
class _Steps:
    """Sizes, as shares of the distance, and how often proposals were adversarial lately."""

    spherical: float
    source: float
    adaptation: float
    on_sphere: deque[bool] = field(default_factory=lambda: deque(maxlen=100))
    nearer: deque[bool] = field(default_factory=lambda: deque(maxlen=30))

    def learn(self, on_sphere: bool, nearer: bool) -> None:
        """Both steps grow where the boundary looks flat (half of the sphere is adversarial) and shrink where curved."""
        self.on_sphere.append(on_sphere)
        self.nearer.append(nearer)
        factor = self._factor(self.on_sphere, 0.2, 0.5)
        self.spherical *= factor
        self.source *= factor * self._factor(self.nearer, 0.1, 0.25)

    def _factor(self, lately: deque[bool], few: float, many: float) -> float:
        if len(lately) < (lately.maxlen or 0):
            return 1.0
        share = sum(lately) / len(lately)
        if few <= share <= many:
            return 1.0
        lately.clear()
        return self.adaptation if share > many else 1.0 / self.adaptation


def _proposals(x: Array, point: Array, steps: _Steps, rng: np.random.Generator) -> tuple[Array, Array]:
    """A point at the same distance from x, and the same moved towards x."""
    towards = x - point
    distance = max(float(np.linalg.norm(towards)), _TINY)
    unit = towards / distance
    eta = rng.standard_normal(x.shape)
    eta -= (eta * unit).sum() * unit
    eta *= steps.spherical * distance / max(float(np.linalg.norm(eta)), _TINY)
    around = np.clip(x + (eta - towards) / np.sqrt(steps.spherical**2 + 1.0), 0.0, 1.0)
    left = max(float(np.linalg.norm(x - around)), _TINY)
    length = max(steps.source * distance + left - distance, 0.0) / left  # clipping may have brought it nearer already
    return around, np.clip(around + length * (x - around), 0.0, 1.0)
