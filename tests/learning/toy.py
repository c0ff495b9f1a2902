"""A toy world: small images whose class shows in a bright half, and in a faint pattern that a perturbation can hide."""

import numpy as np

from guard.learning._training import Pace
from guard.types import Material

CLASSES = 3
SHORT = Pace(epochs=1, least=150, most=150, batch=64, rate=0.05, average=0.95)


def images(count, seed=0, side=12, channels=1):
    """(N, side, side, channels) and labels. The bright corner tells the class to all but a few rows."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    x = 0.5 + 0.05 * rng.standard_normal((count, side, side, channels))
    shown = np.where(rng.random(count) < 0.05, rng.integers(0, CLASSES, count), labels)
    third = side // CLASSES
    for row, c in enumerate(shown):
        x[row, c * third : (c + 1) * third] += 0.25
    rows, columns = np.indices((side, side))
    for c in range(CLASSES):
        x[labels == c] += (0.04 * np.where((rows + columns + c) % CLASSES == 0, 1.0, -0.5))[..., None]
    return np.clip(x, 0, 1).astype(np.float32), labels


def probs(labels):
    return (0.05 + 0.85 * np.eye(CLASSES)[labels]).astype(np.float32)


def material(count=400, seed=0, **shape):
    x, labels = images(count, seed, **shape)
    return Material(x, probs(labels), CLASSES, {}, seed=7)


def vectors(count=400, size=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    x = rng.random((count, size)) * 0.3
    x[np.arange(count), labels] += 0.6
    return Material(x.astype(np.float32), probs(labels), CLASSES, {}, seed=7)
