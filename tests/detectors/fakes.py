"""Networks that are plain functions, and stages at work with what they learned."""

import numpy as np

from guard.types import Equipment, Material


def network(**outputs):
    """A network: each output a function of x."""
    return lambda x: {name: np.asarray(make(x), dtype=np.float32) for name, make in outputs.items()}


def material(x, *, networks=None, probs=None, classes=2, seed=0):
    return Material(np.asarray(x, np.float32), probs, classes, networks or {}, seed)


def fitted(stage, x, *, networks=None, probs=None, classes=2, seed=0):
    """The stage at work, with what it learns from these rows."""
    arrays = stage.learn(material(x, networks=networks, probs=probs, classes=classes, seed=seed))
    return stage.equip(Equipment(networks or {}, arrays, bytes(32)))


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def share_above(scores, clean, rate=0.05):
    """The share of scores above the clean ones' (1 - rate) quantile."""
    return float(np.mean(scores > np.quantile(clean, 1 - rate)))
