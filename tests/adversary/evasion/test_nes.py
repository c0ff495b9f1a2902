"""NES: gradients from scores alone."""

import numpy as np
import pytest

from adversary.attack import norms
from adversary.evasion import nes
from adversary.gradients import predict
from tests.adversary.evasion.oracles import launch, linear, over

EPS = 0.3


def test_wins_on_the_bare_victim_within_the_ball(victim, prey):
    x, y = prey[0][:12], prey[1][:12]
    result = launch(nes, over(victim), x, y, eps=EPS, budget=3000)
    assert (predict(victim, result.x_adv) != y).mean() > 0.8
    assert norms(result.x_adv - x, "linf").max() <= EPS + 1e-6
    assert np.median(result.queries) < 1500


def test_a_small_ball_is_not_left(victim, prey):
    x, y = prey[0][:3], prey[1][:3]
    result = launch(nes, over(victim), x, y, eps=0.01, budget=300)
    assert (predict(victim, result.x_adv) == y).all()
    assert norms(result.x_adv - x, "linf").max() <= 0.01 + 1e-6


def test_on_a_line_every_value_goes_to_its_corner_of_the_ball():
    w = np.array([1.0, -2.0, 3.0, -1.0, 0.5])
    x = np.full((1, 5), 0.5, np.float32)
    result = launch(nes, linear(w, 5.0), x, np.array([0]), eps=0.1, budget=401 * 20, samples=400)
    assert (result.x_adv - x)[0].tolist() == pytest.approx((0.1 * np.sign(w)).tolist(), abs=1e-6)


def test_the_probes_of_a_step_travel_together(victim, prey):
    oracle = over(victim)
    launch(nes, oracle, prey[0][:1], prey[1][:1], eps=0.01, budget=3 * 51)
    assert oracle.calls == [51] * 3
    launch(nes, oracle, prey[0][:1], prey[1][:1], eps=0.01, budget=51, batch=20)
    assert oracle.calls[3:] == [17] * 3


def test_the_last_step_makes_do_with_what_is_left(victim, prey):
    oracle = over(victim)
    launch(nes, oracle, prey[0][:1], prey[1][:1], eps=0.01, budget=51 + 12)
    assert oracle.calls == [51, 11]


def test_a_refused_pair_is_left_out():
    """Every call is one row; some probes' answers never come."""
    w = np.array([1.0, -1.0, 1.0])
    x = np.full((1, 3), 0.5, np.float32)
    oracle = linear(w, 5.0, refuse=lambda sent, _: sent % 41 in {1, 4, 7, 30})
    result = launch(nes, oracle, x, np.array([0]), eps=0.1, budget=41 * 30, samples=40, batch=1)
    assert (result.x_adv - x)[0].tolist() == pytest.approx((0.1 * np.sign(w)).tolist(), abs=1e-6)
