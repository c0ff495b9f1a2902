import numpy as np
import pytest

from guard.monitors.update_direction import UpdateDirection
from guard.types import Recent

WINDOW, SIZE = 32, 48


def score(positions):
    n = len(positions)
    rows = Recent(
        np.float32(positions),
        np.zeros((n, 0), np.float32),
        np.zeros(n, np.int64),
        np.full(n, np.nan),
        np.ones(n, np.bool_),
    )
    return UpdateDirection().judge_window(rows)


def noise(n=WINDOW, seed=0):
    return np.random.default_rng(seed).standard_normal((n, SIZE))


def test_unlike_rows_score_next_to_nothing():
    assert max(score(noise(seed=seed)) for seed in range(50)) < 0.15


def test_antithetic_pairs_around_one_row_score_by_how_short_they_are():
    """Steps of sqrt(2) and 2 times the noise; the longer of two is 2 times, and unlike rows are sqrt(2) apart."""
    base, steps = noise(1, seed=1), noise(WINDOW // 2, seed=2)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    base /= np.linalg.norm(base)
    for scale in (0.1, 0.01):
        pairs = np.stack([base + scale * steps, base - scale * steps], axis=1).reshape(-1, SIZE)
        assert score(pairs) == pytest.approx(-np.log(2 * scale / np.sqrt(2)), abs=0.05)


def test_steps_that_go_on_are_motion_however_short():
    start, way = noise(1, seed=3), noise(1, seed=4)
    turning = np.cumsum(np.linspace(1, -1, WINDOW))[:, None]  # once, in the middle
    assert score(start + 0.01 * np.arange(WINDOW)[:, None] * way) == 0.0
    assert score(start + 0.01 * turning * way) == 0.0
    assert score(start + 0.01 * noise(seed=5)) > 3.0  # the control: as short, in no direction


def test_brightness_alone_is_no_attack():
    assert score(noise(1, seed=6) * np.linspace(0.8, 1.2, WINDOW)[:, None]) == 0.0


def test_a_few_attacking_rows_among_others_do_not_move_the_median():
    rows = noise(seed=7)
    rows[4:10] = rows[4] + 0.001 * noise(6, seed=8)
    assert score(rows) < 0.15


@pytest.mark.parametrize(
    "positions", [np.zeros((0, 0)), np.ones((2, SIZE)), np.zeros((WINDOW, SIZE)), np.zeros((9, 0))]
)
def test_what_says_nothing_scores_nothing(positions):
    assert score(positions) == 0.0
