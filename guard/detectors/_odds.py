"""Log-odds that an input is of one kind and not the other, learned from examples of both: logistic regression.

On products of two features at most (quadratic), each held within what the examples showed; both kinds weigh the same
however many there are. Ridge keeps it finite where the examples can be told apart without error.
"""

from collections.abc import Mapping

import numpy as np

from guard.types import Array

_RIDGE = 1e-3
_STEPS = 30
_STEEPEST = 30.0


def learn_odds(clean: Array, other: Array) -> dict[str, Array]:
    """(N, F), (M, F) -> what `log_odds` needs, float64."""
    both = np.concatenate([clean, other])
    bounds = {"low": both.min(axis=0), "high": both.max(axis=0)}
    terms = _products(both)
    mean, spread = terms.mean(axis=0), np.maximum(terms.std(axis=0), 1e-6)
    truth = np.repeat([0.0, 1.0], [len(clean), len(other)])
    importance = np.where(truth > 0, 0.5 / len(other), 0.5 / len(clean))
    weights = _fit(np.column_stack([np.ones(len(both)), (terms - mean) / spread]), truth, importance)
    return bounds | {"mean": mean, "spread": spread, "weights": weights}


def log_odds(features: Array, arrays: Mapping[str, Array]) -> Array:
    """(N, F) -> (N,) natural logarithm of the odds of the other kind."""
    terms = _products(np.clip(features, arrays["low"], arrays["high"]))
    return np.asarray(arrays["weights"][0] + (terms - arrays["mean"]) / arrays["spread"] @ arrays["weights"][1:])


def _products(features: Array) -> Array:
    """(N, F) -> (N, F + F (F + 1) / 2): each, and each times each."""
    rows, columns = np.triu_indices(features.shape[1])
    return np.concatenate([features, features[:, rows] * features[:, columns]], axis=1)


def _fit(terms: Array, truth: Array, importance: Array) -> Array:
    """Newton's method on the penalised likelihood; the intercept is not penalised."""
    weights = np.zeros(terms.shape[1])
    ridge = _RIDGE * np.diag([1e-6, *np.ones(len(weights) - 1)])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(terms @ weights, -_STEEPEST, _STEEPEST)))
        gradient = terms.T @ (importance * (chance - truth)) + ridge @ weights
        curvature = (terms.T * (importance * chance * (1 - chance))) @ terms + ridge
        weights = weights - np.linalg.solve(curvature, gradient)
    return np.asarray(weights)
