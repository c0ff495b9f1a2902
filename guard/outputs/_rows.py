"""What output protections share: rows put in place of others, the argmax kept and alone at the top.

Probabilities are (N, C) rows that sum to 1; `top` is (N,), the class that leads each row, the first of equals. All
arithmetic is in float64 and of each row by itself, so that a row's answer does not hang on its batch.
"""

import numpy as np
from numpy.typing import NDArray

from guard.types import Array, Material

_SHORT_OF = 0.95  # of the way to a tie
_LEAST = float(np.exp(-30.0))  # of the largest probability: what one of 0 is taken for, as in logits


def exact(probs: Array) -> NDArray[np.float64]:
    """(N, C) of any floating dtype -> float64 rows that sum to 1."""
    p = np.asarray(probs, dtype=np.float64)
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def log_of(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, C) -> logarithms relative to the row's largest, none below -30."""
    return np.asarray(np.log(np.maximum(p / p.max(axis=1, keepdims=True), _LEAST)))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, C) -> rows that sum to 1."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def short_of_a_tie(start: Array, end: Array, top: Array) -> NDArray[np.float64]:
    """(N, C), (N, C) -> (N, C): as far along the straight way from start to end as the top class still leads.

    Rows where it leads at the end arrive there; others stop at 0.95 of the way to where a rival draws level.
    """
    each = np.arange(len(start))
    lead = start[each, top][:, None] - start
    lost = lead - (end[each, top][:, None] - end)  # on the whole way
    ways = np.divide(lead, lost, out=np.full(lead.shape, np.inf), where=lost > 0)
    least = ways.min(axis=1, initial=np.inf)
    share = np.where(least > 1, 1.0, _SHORT_OF * least)
    return np.asarray(np.where((share == 1)[:, None], end, start + share[:, None] * (end - start)))


def replaced(probs: Array, rows: Array, made: Array, top: Array | None = None) -> Array:
    """The answers with `made` in place of the given rows, in their dtype; of those rows `top` is alone at the top.

    rows: (M,) indices; made: (M, C). top None: the made rows need not lead with any class.
    """
    out = probs.copy()
    cast = np.asarray(made).astype(probs.dtype)
    out[rows] = cast if top is None else _alone(cast, top)
    return out


def _alone(cast: Array, top: Array) -> Array:
    """Rivals that are, or were rounded to, as much as the top go one step below it."""
    most = cast[np.arange(len(cast)), top][:, None]
    rival = cast >= most
    rival[np.arange(len(cast)), top] = False
    return np.asarray(np.where(rival, np.nextafter(most, np.zeros((), cast.dtype)), cast))


def led_by(made: NDArray[np.float64], top: Array) -> NDArray[np.float64]:
    """(N, C) -> the same rows, in which the largest probability and that of class `top` have changed places."""
    out, each, first = made.copy(), np.arange(len(made)), made.argmax(axis=1)
    out[each, first] = made[each, top]
    out[each, top] = made[each, first]
    return out


def answers_of(material: Material) -> NDArray[np.float64]:
    """The clean answers to learn from. Raises ValueError where there are none."""
    if material.probs is None:
        raise ValueError("it learns from probabilities, and the model answers with labels only")
    return exact(material.probs)


def require_classes(probs: Array, classes: int) -> None:
    """Raises ValueError where an answer has another number of classes than those that were learned from."""
    if probs.shape[1] != classes:
        raise ValueError(f"it learned from answers of {classes} classes, not {probs.shape[1]}")
