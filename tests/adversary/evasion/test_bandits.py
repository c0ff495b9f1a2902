"""Bandits with time and data priors."""

import numpy as np
import pytest

from adversary.attack import norms
from adversary.evasion import bandits, nes
from adversary.gradients import predict
from tests.adversary.evasion.oracles import launch, linear, over

EPS = 0.3


def test_wins_on_the_bare_victim_within_the_ball(victim, prey):
    x, y = prey[0][:12], prey[1][:12]
    result = launch(bandits, over(victim), x, y, eps=EPS, budget=2000)
    assert (predict(victim, result.x_adv) != y).mean() > 0.8
    assert norms(result.x_adv - x, "linf").max() <= EPS + 1e-6


def test_a_small_ball_is_not_left(victim, prey):
    x, y = prey[0][:3], prey[1][:3]
    result = launch(bandits, over(victim), x, y, eps=0.01, budget=300)
    assert (predict(victim, result.x_adv) == y).all()
    assert norms(result.x_adv - x, "linf").max() <= 0.01 + 1e-6


def test_priors_save_queries(victim, prey):
    x, y = prey[0][:10], prey[1][:10]
    with_priors, without = (launch(m, over(victim), x, y, eps=EPS, budget=3000) for m in (bandits, nes))
    assert np.median(with_priors.queries) < np.median(without.queries)


def test_moves_whole_tiles():
    x = np.full((1, 1, 8, 8), 0.5, np.float32)
    result = launch(bandits, linear(0.1 * np.ones(64), 10.0), x, np.array([0]), eps=0.1, budget=30, tile=2)
    tiles = (result.x_adv - x)[0, 0].reshape(2, 4, 2, 4).transpose(0, 2, 1, 3).reshape(4, 16)
    assert (np.ptp(tiles, axis=1) == 0.0).all()
    assert np.abs(tiles).max() > 0.0


def test_learns_the_sign_of_a_line():
    x = np.full((1, 1, 8, 8), 0.5, np.float32)
    w = np.ones((2, 2))
    w[0, 1] = -1.0
    weights = 0.1 * np.kron(w, np.ones((4, 4)))
    result = launch(bandits, linear(weights, 8.0), x, np.array([0]), eps=0.1, budget=600, tile=2)
    assert np.array_equal(np.sign(result.x_adv - x)[0, 0], np.sign(weights))


def test_two_probes_and_the_check_travel_together(victim, prey):
    oracle = over(victim)
    launch(bandits, oracle, prey[0][:1], prey[1][:1], eps=0.01, budget=10)
    assert oracle.calls == [3, 3, 3]


def test_a_step_without_answers_leaves_the_prior_as_it_was():
    x = np.full((1, 1, 8, 8), 0.5, np.float32)
    oracle = linear(0.1 * np.ones(64), 10.0, refuse=lambda sent, _: sent > 0)
    result = launch(bandits, oracle, x, np.array([0]), eps=0.1, budget=30, tile=2, step=0.01)
    first = launch(bandits, linear(0.1 * np.ones(64), 10.0), x, np.array([0]), eps=0.1, budget=3, tile=2, step=0.01)
    assert np.array_equal(np.sign(result.x_adv - x), np.sign(first.x_adv - x))
    assert np.abs(result.x_adv - x).max() == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize("shape", [(16, 16, 3), (3, 16, 16), (16, 16)])
def test_any_layout_of_an_image_will_do(shape):
    x = np.full((1, *shape), 0.5, np.float32)
    oracle = linear(np.full(shape, 0.1), 0.05 * np.prod(shape) + 1.0)
    result = launch(bandits, oracle, x, np.array([0]), eps=0.3, budget=600)
    assert oracle.labels(result.x_adv).tolist() == [1]
