"""What `guard fit` learns from answers to clean inputs: which output classifies, and what its numbers mean."""

from collections.abc import Mapping

import numpy as np

from guard.fit_clean import FitError
from guard.fit_inputs import Choices
from guard.profile import Meaning
from guard.types import Array

_SUM_SLACK = 1e-2  # FP16 and quantised models do not sum to 1 exactly
_ROWS_OF_CLASSES = 2


def read_output(answer: Mapping[str, Array], choices: Choices) -> tuple[str, Meaning, int]:
    """The classification output, what its numbers mean, how many classes there are. Raises FitError."""
    name = _output_of(answer, choices.output)
    y = answer[name]
    meaning = choices.meaning or _meaning_of(name, y)
    if meaning == "labels":
        return name, meaning, max(1, len(np.unique(y)))
    if y.ndim != _ROWS_OF_CLASSES or y.dtype == object or not np.isfinite(y).all():
        raise FitError(f"output {name!r} has shape {list(y.shape)}: {meaning} are finite numbers, rows by classes")
    return name, meaning, y.shape[1]


def _output_of(answer: Mapping[str, Array], wanted: str | None) -> str:
    if wanted is None and len(answer) == 1:
        return next(iter(answer))
    if wanted is not None and wanted in answer:
        return wanted
    scores = [
        name for name, y in answer.items() if y.ndim == _ROWS_OF_CLASSES and y.dtype.kind == "f" and y.shape[1] > 1
    ]
    if wanted is None and len(scores) == 1:
        return scores[0]
    raise FitError(f"which output classifies? Give --output; the model has {', '.join(answer) or 'none'}")


def _meaning_of(name: str, y: Array) -> Meaning:
    if y.dtype.kind != "f":
        return "labels"
    if y.ndim != _ROWS_OF_CLASSES or y.shape[1] == 1:
        raise FitError(f"output {name!r} has shape {list(y.shape)}, no classes: give --output, or --meaning labels")
    sums = np.abs(y.astype(np.float64).sum(axis=1) - 1.0)
    return "probabilities" if y.min() >= 0 and y.max() <= 1 + _SUM_SLACK and sums.max() < _SUM_SLACK else "logits"
