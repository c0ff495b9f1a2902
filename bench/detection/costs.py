"""What every stage costs: CPU time a row in calls of one and of 32 rows, and the upstream rows that it adds.

CPU time of this process on one thread, the least of several runs; the served model's own answers are not in it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench.detection import fitted, purify, scoring, stagework
from bench.detection.subjects import Subject
from guard.types import AnswerDetector, Array, ViewDetector, VotingPurifier

BATCHES = (1, 32)
_RUNS = 3
_LEAST_S = 0.02


@dataclass(frozen=True, slots=True)
class Cost:
    """ms: CPU a row, by batch size."""

    stage: str
    ms: dict[int, float]
    upstream_rows: int

    def plain(self) -> dict[str, Any]:
        """As data for JSON."""
        ms = {str(batch): round(value, 4) for batch, value in self.ms.items()}
        return {"stage": self.stage, "cpu_ms_a_row_by_batch": ms, "upstream_rows": self.upstream_rows}


def measure(on: Subject, clean: int | None) -> list[Cost]:
    """Every detector and purifier of a victim, and the victim itself."""
    upstream = stagework.Upstream(on.onnx)

    def served(x: Array) -> Callable[[], Any]:
        planar = stagework.planar(x)
        return lambda: upstream.answers(planar)

    detectors = {stage.key: stage.impl for stage in scoring.engine(fitted.profile(on.name, clean)).stages}
    purifiers = {f"purifier/{name}": purify.at_work(on, upstream, name).stage for name in purify.names(on.name)}
    return [
        _cost("the served model itself", served, on, 0),
        *(_cost(key, partial(_detecting, one, on.classes), on, _rows(one, on)) for key, one in detectors.items()),
        *(_cost(key, partial(_purifying, one, on.classes), on, _rows(one, on)) for key, one in purifiers.items()),
    ]


def _rows(stage: Any, on: Subject) -> int:
    few = stagework.unit(on.clean_x[:1])
    if isinstance(stage, VotingPurifier):
        return len(stage.copies(few))
    return len(stage.views(few)) if isinstance(stage, ViewDetector) else 0


def _cost(name: str, ready: Callable[[Array], Callable[[], Any]], on: Subject, rows: int) -> Cost:
    ms = {}
    for batch in BATCHES:
        x = stagework.unit(on.clean_x[:batch])
        ms[batch] = 1e3 * _least(ready(x)) / len(x)
    return Cost(name, ms, rows)


def _least(run: Callable[[], Any]) -> float:
    """Seconds of CPU of one call: the least mean of several runs."""
    run()
    found = []
    for _ in range(_RUNS):
        started, calls = time.process_time(), 0
        while calls == 0 or time.process_time() - started < _LEAST_S:
            run()
            calls += 1
        found.append((time.process_time() - started) / calls)
    return min(found)


def _answers(n: int, classes: int) -> Array:
    made = np.random.default_rng(0).random((n, classes))
    return np.asarray(made / made.sum(1, keepdims=True), np.float64)


def _detecting(stage: Any, classes: int, x: Array) -> Callable[[], Any]:
    probs = _answers(len(x), classes)
    if isinstance(stage, ViewDetector):
        return lambda: stage.score_views(probs, tuple(probs for _ in stage.views(x)))
    if isinstance(stage, AnswerDetector):
        return lambda: stage.score_answer(x, probs)
    return lambda: stage.score(x)


def _purifying(stage: Any, classes: int, x: Array) -> Callable[[], Any]:
    if isinstance(stage, VotingPurifier):
        return lambda: stage.vote(tuple(_answers(len(x), classes) for _ in stage.copies(x)))
    return lambda: stage.purify(x)
