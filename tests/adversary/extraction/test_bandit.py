"""What the adaptive Knockoff policy draws: preferences and rewards by hand, every row once."""

import numpy as np
import pytest

from adversary.extraction.knockoff_adaptive import Bandit, Pool, Rewards


def test_a_reward_above_the_baseline_is_a_preference():
    bandit = Bandit.of(2)
    bandit.learn(1, 1.0)  # the first is the baseline itself
    assert bandit.preferences.tolist() == [0.0, 0.0]
    bandit.learn(0, 2.0)
    assert bandit.preferences.tolist() == [0.5, -0.5]
    assert bandit.chances(np.array([1, 1])) == pytest.approx([0.7311, 0.2689], abs=1e-4)
    bandit.learn(0, 0.5)  # the second of its arm, 1 below the mean of 1 and 2
    assert bandit.preferences.tolist() == pytest.approx([0.5 - 0.2689 / 2, -0.5 + 0.2689 / 2], abs=1e-4)


def test_an_arm_without_rows_is_not_drawn():
    bandit = Bandit(np.array([9.0, 0.0, 0.0]), np.zeros(3, np.int64))
    assert bandit.chances(np.array([0, 3, 3])).tolist() == [0.0, 0.5, 0.5]


def test_rewards_are_brought_to_their_extremes():
    rewards = Rewards(np.zeros(2))
    even = np.array([0.5, 0.5])
    assert rewards(np.array([0.8, 0.2]), even) == 0.0  # nothing to compare with
    # less certain than the first, 0.1 away from the mean of both where that was 0, as surprising as it: 0 + 1 + 0
    assert rewards(np.array([0.6, 0.4]), even) == pytest.approx(1.0)
    # half as certain as they go, the mean of all three itself, and now the copy is wrong: 0.5 + 0 + 1
    assert rewards(np.array([0.7, 0.3]), np.array([0.1, 0.9])) == pytest.approx(1.5)


def test_every_row_is_dealt_once_with_its_arm():
    y = np.array([4, 7, 7, 4, 7])
    pool, rng = Pool(y, np.random.default_rng(0)), np.random.default_rng(0)
    rows, arms = (
        np.concatenate(parts) for parts in zip(*(pool.deal(Bandit.of(2), 2, rng) for _ in range(4)), strict=True)
    )
    assert sorted(rows.tolist()) == [0, 1, 2, 3, 4]
    assert np.array_equal(np.array([4, 7])[arms], y[rows])


def test_what_pays_is_drawn_more_often():
    rng = np.random.default_rng(0)
    bandit, pool, drawn = Bandit.of(4), Pool(np.arange(4000) % 4, rng), []
    for _ in range(300):
        _, (arm,) = pool.deal(bandit, 1, rng)
        bandit.learn(int(arm), float(arm == 2) + 0.1 * rng.random())
        drawn.append(arm)
    assert drawn[150:].count(2) > 2 * 150 / 4
