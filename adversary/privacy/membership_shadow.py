"""Membership by shadow models: a classifier of answers, fitted where the attacker knows who is a member.

Source: Shokri, Stronati, Song, Shmatikov 2017, arXiv:1610.05820 (an attack model a class, on the whole answer).
Access: scores. Cost: one query a candidate.
Limits: as good as the shadows resemble the victim; Shokri et al. had a hundred of them. Sablayrolles et al. 2019,
        arXiv:1908.11229, and others find that the loss alone (membership-confidence) says as much.

Each shadow answers all of the attacker's inputs; of every class, a small network learns to tell the answers to those
it has seen from the rest. The score is its logit. A candidate whose query is refused, or of whose class the attacker
has too little, scores 0.
"""

import numpy as np

from adversary.attack import Array, Guesses, ScoreOracle
from adversary.privacy import shadows
from adversary.privacy.answers import logs, neutral

_LEAST = -14.0  # logarithms below are as good as this one


def attack(
    target: ScoreOracle,
    x: Array,
    y: Array,
    *,
    budget: int,
    rng: np.random.Generator,
    own_x: Array,
    own_y: Array,
    count: int = 4,
    epochs: int = 30,
    batch: int = 64,
) -> Guesses:
    """count, epochs: of the shadow models."""
    if budget < 1:
        raise ValueError("a candidate costs one query")
    classes = int(own_y.max()) + 1
    known = shadows.train(own_x, own_y, count=count, epochs=epochs, rng=rng)
    answers = np.concatenate([_scaled(logs(shadow.oracle, own_x, batch, classes)) for shadow in known])
    inside, labels = np.concatenate([shadow.inside for shadow in known]), np.tile(own_y, count)
    told, scores = _scaled(logs(target, x, batch, classes)), np.zeros(len(x))
    for label in range(classes):
        rows, mine = labels == label, y == label
        if mine.any() and len(set(inside[rows])) == 2:  # noqa: PLR2004 - members and outsiders
            scores[mine] = shadows.judge(answers[rows], inside[rows], rng)(told[mine])
    return Guesses(neutral(scores), np.ones(len(x), np.int64))


def _scaled(told: Array) -> Array:
    """Logarithms of probabilities -> [0, 1], where networks like them."""
    return np.asarray(1.0 - np.maximum(told, _LEAST) / _LEAST, np.float32)
