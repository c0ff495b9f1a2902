"""Stages are heard of while they work: each by its kind and name, failed ones too, and nothing without a listener."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from guard import timing
from guard.engine import Engine
from guard.types import Answer, History, Match, Query
from tests.core.helpers import BrokenDetector, MeanDetector, OverlapMonitor, ViewGap, model_of, profile_of

pytestmark = pytest.mark.usefixtures("stages")

CLEAN = np.linspace(0.0, 0.5, 99)
X = np.full((1, 4), 0.9, np.float32)
Y = np.array([[0.7, 0.2, 0.1]], np.float32)


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[str, str, str]] = []

    @contextmanager
    def stage(self, kind: str, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.heard.append((kind, name, type(error).__name__))
            raise
        self.heard.append((kind, name, ""))


@pytest.fixture
def listener() -> Listener:
    return Listener()


def engine_of(**values: object) -> Engine:
    fits = {
        ("detector", "test_mean"): (MeanDetector(), CLEAN),
        ("detector", "test_views"): (ViewGap(), CLEAN[::-1]),
        ("detector", "test_broken"): (BrokenDetector(), CLEAN),
        ("monitor", "test_overlap"): (OverlapMonitor(), CLEAN),
    }
    return Engine(model_of(**values), profile_of(fits, joint=True), b"a secret of sixteen bytes")


def test_every_kind_of_stage_is_heard(listener: Listener) -> None:
    engine = engine_of(
        policy={"on_input": "purify"},
        detectors=[{"stage": "test_mean"}, {"stage": "test_views"}],
        monitors=[{"stage": "test_overlap"}],
        purifiers=[{"stage": "test_halve"}],
        outputs=[{"stage": "test_uniform", "when": "always"}],
    )
    query = Query(X, "peer:1", "m", "d1")
    sketches = timing.heard(listener, engine.sketch, query)
    assert listener.heard == [("monitor", "sketch", "")]
    history = History((Match(),))
    decision = timing.heard(listener, engine.decide, query, history, sketches)
    timing.heard(listener, engine.conclude, decision, Answer(Y, (Y,) * len(decision.views), None))
    assert {(kind, name) for kind, name, _ in listener.heard} == {
        ("monitor", "sketch"),
        ("monitor", "test_overlap"),
        ("detector", "test_mean"),
        ("detector", "test_views"),
        ("purifier", "test_halve"),
        ("output", "test_uniform"),
    }


def test_a_failed_stage_is_heard_and_others_nothing(listener: Listener) -> None:
    engine = engine_of(detectors=[{"stage": "test_mean"}, {"stage": "test_broken"}])
    query = Query(X, "peer:1", "m", "d1")
    decision = timing.heard(listener, engine.decide, query, None)
    assert listener.heard == [("detector", "test_mean", ""), ("detector", "test_broken", "RuntimeError")]
    del listener.heard[:]
    assert engine.decide(query, None).findings == decision.findings  # outside: the same, unheard
    assert listener.heard == []
