"""Arithmetic on answers that several detectors share: (N, C) rows that sum to 1 in, (N,) out, float64."""

import numpy as np

from guard.types import Array

_LEAST = 1e-20  # what a probability of 0 is taken for


def log_of(probs: Array) -> Array:
    """(N, C) probabilities -> their logarithms, those of 0 bounded."""
    return np.asarray(np.log(np.maximum(np.asarray(probs, dtype=np.float64), _LEAST)))


def log_softmax(logits: Array, temperature: float = 1.0) -> Array:
    """(N, C) logits (or logarithms of probabilities: the same up to a constant) -> log-probabilities."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))


def entropy(probs: Array) -> Array:
    """(N, C) -> (N,) Shannon entropy in bits, in [0, log2 C]."""
    p = np.asarray(probs, dtype=np.float64)
    return np.asarray(-(p * log_of(p)).sum(axis=1) / np.log(2))


def jensen_shannon(one: Array, other: Array) -> Array:
    """(N, C) log-probabilities each -> (N,) Jensen-Shannon divergence in nats, in [0, ln 2]."""
    middle = np.logaddexp(one, other) - np.log(2)
    ways = [(np.exp(log) * (log - middle)).sum(axis=1) for log in (one, other)]
    return np.asarray(np.clip((ways[0] + ways[1]) / 2, 0.0, np.log(2)))


def l1(one: Array, other: Array) -> Array:
    """(N, C) each -> (N,) sum of absolute differences, in [0, 2] for probabilities."""
    return np.asarray(np.abs(np.asarray(one, dtype=np.float64) - other).sum(axis=1))
