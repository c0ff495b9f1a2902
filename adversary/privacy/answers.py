"""What an endpoint answers about many inputs, in calls of at most `batch` rows; not a number where it refuses."""

import math

import numpy as np

from adversary.attack import REFUSED, Array, LabelOracle, Refused, ScoreOracle

_LEAST = 1e-30  # its logarithm is finite


def _parcels(x: Array, batch: int) -> list[Array]:
    parts = np.array_split(x, max(1, math.ceil(len(x) / batch)))
    return [np.ascontiguousarray(rows, np.float32) for rows in parts]


def logs(oracle: ScoreOracle, x: Array, batch: int, classes: int) -> Array:
    """(N, ...) -> (N, classes) logarithms of probabilities."""
    told = np.full((len(x), classes), np.nan)
    at = 0
    for rows in _parcels(x, batch):
        answer = oracle.probabilities(rows)
        if not isinstance(answer, Refused):
            told[at : at + len(rows)] = np.log(np.maximum(np.asarray(answer, np.float64)[:, :classes], _LEAST))
        at += len(rows)
    return told


def right(oracle: LabelOracle, x: Array, y: int, batch: int) -> Array:
    """(N, ...), the label of them all -> (N,) 1.0 where it is answered, 0.0 where another is."""
    labels = np.concatenate([oracle.labels(rows) for rows in _parcels(x, batch)])
    return np.where(labels == REFUSED, np.nan, np.asarray(labels == y, np.float64))


def neutral(scores: Array) -> Array:
    """(N,) scores, 0 where nothing is known."""
    return np.asarray(np.nan_to_num(scores, nan=0.0), np.float64)
