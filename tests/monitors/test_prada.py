import numpy as np
import pytest
import scipy.stats

from guard.monitors.prada import LEAST, Prada, least_distances, shapiro_wilk, standardised
from guard.types import WindowMonitor
from tests.monitors.clean_world import recent


@pytest.mark.parametrize("n", [13, 50, 110, 250, 1000])
@pytest.mark.parametrize("draw", ["normal", "exponential", "uniform"])
def test_w_is_scipys(n, draw):
    values = getattr(np.random.default_rng(n), draw)(size=n)
    theirs = scipy.stats.shapiro(values)
    w = shapiro_wilk(values)
    assert w == pytest.approx(theirs.statistic, abs=1e-6)
    if theirs.pvalue > 1e-12:
        assert scipy.stats.norm.sf(standardised(w, n)) == pytest.approx(theirs.pvalue, rel=1e-3)


def test_growing_sets_by_hand():
    """Class 0: 0, 3 (distance 3, T = 3), 4 (1: not above T, left out), 10 (7 from 3); class 1 has its first only."""
    rows = np.array([[0.0], [3.0], [100.0], [4.0], [10.0]])
    np.testing.assert_allclose(least_distances(rows, np.array([0, 0, 1, 0, 0])), [3.0, 1.0, 7.0])


def window(positions, n=128):
    return Prada(window=n).judge_window(recent(np.zeros((n, 1), np.float32), np.arange(n) % 4, positions))


def test_natural_rows_pass_and_steps_of_one_length_do_not():
    assert isinstance(Prada(), WindowMonitor)
    rng = np.random.default_rng(0)
    natural = [window(rng.normal(size=(128, 48))) for _ in range(30)]
    seeds = rng.normal(size=(32, 48))
    steps = rng.choice([-0.1, 0.1], (96, 48))
    made = window(np.concatenate([seeds, seeds[np.arange(96) % 32] + steps]))
    assert np.mean(natural) < 1.5
    assert made > max(natural)


def test_equal_distances_are_the_least_normal_of_all():
    """Published code never alarms here."""
    line = np.arange(128.0)[:, None] // 4  # each class takes one step at a time
    assert window(line) > 8


def test_too_few_distances_tell_nothing():
    """Every row is the first of its class."""
    rows = recent(np.zeros((32, 1), np.float32), np.arange(32), np.random.default_rng(0).normal(size=(32, 4)))
    assert Prada(window=32).judge_window(rows) == LEAST
