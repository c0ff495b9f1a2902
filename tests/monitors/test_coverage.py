import numpy as np
import pytest

from guard.monitors.coverage import LEAST, Coverage
from guard.types import WindowMonitor
from tests.monitors.clean_world import CLASSES, at_work, clean, material, of_length_one, recent

WORKING = at_work(Coverage(cells=32))


@pytest.mark.parametrize("label", [None, *range(CLASSES)])
def test_clean_windows_pass_whatever_their_classes(label):
    assert isinstance(WORKING, WindowMonitor)
    found = np.array([WORKING.judge_window(recent(*clean(128, seed, label))) for seed in range(100, 140)])
    assert (found == LEAST).mean() >= 0.95


def test_variants_of_a_few_rows_touch_too_few_cells():
    rows, labels = (np.repeat(some[:4], 32, axis=0) for some in clean(4, 1))
    variants = of_length_one(rows + 0.05 * np.random.default_rng(2).normal(size=rows.shape))
    assert WORKING.judge_window(recent(variants, labels)) > 2 * LEAST


def test_a_cover_more_even_than_chance_stands_out():
    """As many rows in each cell as are expected of the class mix: chi-squared is near 0."""
    rows, labels = clean(20_000, 3)
    place = (rows.astype(np.float64) @ WORKING.centres.T - (WORKING.centres**2).sum(axis=1) / 2).argmax(axis=1)
    wanted = np.floor(WORKING.shares[0] * 128 + 0.5).astype(int)
    chosen = np.concatenate([np.flatnonzero(place == cell)[:n] for cell, n in enumerate(wanted)])
    assert WORKING.judge_window(recent(rows[chosen], labels[chosen])) > LEAST


def test_too_few_rows_to_learn_from():
    with pytest.raises(ValueError, match="at least 128"):
        Coverage().learn(material(100))
