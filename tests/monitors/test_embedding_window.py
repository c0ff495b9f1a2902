import numpy as np
import pytest

from guard.monitors import embedding_window
from guard.monitors.embedding_window import LEAST, EmbeddingWindow
from guard.types import WindowMonitor
from tests.monitors.clean_world import CLASSES, WIDTH, at_work, clean, material, of_length_one, recent

WORKING = at_work(EmbeddingWindow())


def test_foreign_windows_stand_out():
    assert isinstance(WORKING, WindowMonitor)
    rng = np.random.default_rng(1)
    foreign = of_length_one(rng.normal(size=(64, WIDTH)))
    assert WORKING.judge_window(recent(foreign, rng.integers(0, CLASSES, 64))) > 2 * LEAST


@pytest.mark.parametrize("label", [None, *range(CLASSES)])
def test_clean_windows_are_about_standard_normal_whatever_their_classes(label, monkeypatch):
    monkeypatch.setattr(embedding_window, "LEAST", -np.inf)
    found = [WORKING.judge_window(recent(*clean(64, seed, label))) for seed in range(100, 160)]
    assert abs(np.mean(found)) < 1.5
    assert 0.3 < np.std(found) < 2.5
    assert max(found) < LEAST


def test_a_drift_that_is_small_says_nothing():
    rows, labels = clean(64, 7)
    assert WORKING.judge_window(recent(rows, labels)) == LEAST


def test_too_few_rows_to_learn_from():
    with pytest.raises(ValueError, match="at least"):
        EmbeddingWindow().learn(material(20))
