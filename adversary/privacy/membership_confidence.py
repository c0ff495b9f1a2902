"""Membership by confidence: what the model is surer of than a stranger's input deserves, it has learned from.

Source: Yeom, Giacomelli, Fredrikson, Jha 2018, arXiv:1709.01604 (a threshold on the loss).
Access: scores. Cost: one query a candidate.
Limits: a model that does not overfit gives nothing away; an endpoint that tells labels alone, or bends its scores
        (MemGuard, Jia et al. 2019), leaves the right answer against the wrong one.

Yeom et al. take for threshold the mean training loss, which they suppose is known. Here nobody tells it: one shadow
model (adversary.privacy.shadows) has members that the attacker knows, and the threshold is the one that tells these
best from the rest. A candidate whose query is refused scores 0.
"""

import numpy as np

from adversary.attack import Array, Guesses, ScoreOracle
from adversary.privacy import shadows
from adversary.privacy.answers import logs, neutral


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    budget: int,
    rng: np.random.Generator,
    own_x: Array,
    own_y: Array,
    epochs: int = 30,
    batch: int = 64,
) -> Guesses:
    """epochs: of the shadow model; as many as it takes to learn its half by heart."""
    if budget < 1:
        raise ValueError("a candidate costs one query")
    (shadow,) = shadows.train(own_x, own_y, count=1, epochs=epochs, rng=rng)
    classes = int(own_y.max()) + 1
    known = _confidence(logs(shadow.oracle, own_x, batch, classes), own_y)
    threshold = shadows.divide(known[shadow.inside], known[~shadow.inside])
    scores = _confidence(logs(target, x, batch, classes), y) - threshold
    return Guesses(neutral(scores), np.ones(len(x), np.int64))


def _confidence(told: Array, y: Array) -> Array:
    """(N, C) logarithms of probabilities, (N,) -> the true label's: the loss, but for its sign."""
    return np.asarray(told[np.arange(len(y)), y])
