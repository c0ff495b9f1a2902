"""HopSkipJump: walks along the decision boundary towards x, seeing labels only.

Source: Chen, Jordan, Wainwright 2020, arXiv:1904.02144 (the untargeted l2 attack, geometric step sizes).
Access: labels. Norm: l2. Cost: up to `budget` queries a victim.

Each iteration: binary search onto the boundary; a Monte Carlo estimate of the gradient there from B_t = B_0 sqrt(t)
labels; a step of size ||x_t - x|| / sqrt(t), halved until it lands on the adversarial side. The queries of one estimate
are independent, so up to `batch` of them travel in one request. Victims are attacked one after the other.

A refused query counts as "not adversarial": this attacker learns no more from it. OARS (arXiv:2303.06280) does.
"""

import math

import numpy as np

from adversary.attack import Array, BudgetSpent, LabelOracle, Meter, Result

_START_TOLERANCE = 1e-3  # of the blend with noise, as in the authors' code
_STEP_LEAST = 1e-6


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    starts: Array | None = None,
    batch: int = 64,
    gamma: float = 1.0,
    initial_evaluations: int = 100,
    most_evaluations: int = 10_000,
) -> Result:
    """Stops at l2 <= eps or when the budget is spent.

    starts: (N, ...) inputs of another class to come from; by default uniform noise that the model answers wrongly.
    """
    x_adv, queries = np.array(x, np.float32), np.zeros(len(x), np.int64)
    for i in range(len(x)):
        meter = Meter(target, int(y[i]), budget, batch)
        walk = _Walk(x[i], meter, rng, gamma=gamma, evaluations=(initial_evaluations, most_evaluations))
        try:
            walk.start(None if starts is None else starts[i])
            walk.on(eps)
        except BudgetSpent:
            pass
        x_adv[i], queries[i] = walk.best, meter.spent
    return Result(x_adv, queries)


class _Walk:
    """One victim: the current point (adversarial by the oracle's own word) and the next step's sizes."""

    def __init__(
        self, x: Array, meter: Meter, rng: np.random.Generator, *, gamma: float, evaluations: tuple[int, int]
    ) -> None:
        self._x, self._meter, self._rng = np.asarray(x, np.float64), meter, rng
        self._initial, self._most = evaluations
        self._root = math.sqrt(x.size)
        self._theta = gamma / (self._root * x.size)
        self._post = 0.0
        self.best: Array = np.asarray(x, np.float32)

    def _distance(self, point: Array) -> float:
        return float(np.linalg.norm(point - self._x))

    def _adversarial(self, point: Array) -> bool:
        return bool(self._meter.adversarial(point[None])[0])

    def start(self, given: Array | None) -> None:
        """An adversarial point: the given one, or noise blended with x as far as it stays adversarial."""
        if given is not None:
            self.best = np.asarray(given, np.float32)
            if self._adversarial(self.best):
                return
        while True:
            noise = self._rng.uniform(0.0, 1.0, self._x.shape)
            if self._adversarial(noise):
                break
        self.best = np.asarray(self._blend(noise, _START_TOLERANCE), np.float32)

    def _blend(self, point: Array, tolerance: float) -> Array:
        """Binary search between x and an adversarial point; ends on the adversarial side."""
        low, high = 0.0, 1.0
        while high - low > tolerance:
            middle = (low + high) / 2.0
            if self._adversarial((1.0 - middle) * self._x + middle * point):
                high = middle
            else:
                low = middle
        return (1.0 - high) * self._x + high * point

    def on(self, eps: float) -> None:
        """Iterate until eps is reached; BudgetSpent ends it otherwise."""
        point = self._project(np.asarray(self.best, np.float64))
        t = 0
        while self._distance(self.best) > eps:
            t += 1
            direction = self._gradient(point, t)
            point = self._project(self._step(point, direction, t))

    def _project(self, point: Array) -> Array:
        """Onto the boundary, remembering how far away the point was before: it sets the next estimate's radius."""
        self._post = self._distance(point)
        on_boundary = self._blend(point, self._theta)
        if self._distance(on_boundary) < self._distance(self.best):
            self.best = np.asarray(on_boundary, np.float32)
        return on_boundary

    def _gradient(self, point: Array, t: int) -> Array:
        """The direction away from the boundary, by signs of random probes, less their mean (the paper's baseline)."""
        radius = 0.1 if t == 1 else self._root * self._theta * self._post
        n = min(int(self._initial * math.sqrt(t)), self._most, self._meter.left)
        if n < 1:
            raise BudgetSpent
        probes = self._rng.standard_normal((n, *point.shape))
        probes /= np.linalg.norm(probes.reshape(n, -1), axis=1).reshape(n, *([1] * point.ndim))
        sent = np.clip(point + radius * probes, 0.0, 1.0)
        probes = (sent - point) / radius
        signs = 2.0 * self._meter.adversarial(sent).astype(np.float64) - 1.0
        weights = signs if abs(signs.mean()) == 1.0 else signs - signs.mean()
        direction = np.tensordot(weights, probes, axes=1) / n
        return np.asarray(direction / max(float(np.linalg.norm(direction)), 1e-12))

    def _step(self, point: Array, direction: Array, t: int) -> Array:
        """Geometric progression: start at distance / sqrt(t), halve until adversarial; stay where nothing is."""
        size = self._distance(point) / math.sqrt(t)
        while size > _STEP_LEAST:
            moved = np.clip(point + size * direction, 0.0, 1.0)
            if self._adversarial(moved):
                return np.asarray(moved)
            size /= 2.0
        return point
