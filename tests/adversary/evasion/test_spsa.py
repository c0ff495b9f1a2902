"""SPSA: gradients from scores alone, by Adam."""

import numpy as np
import pytest

from adversary.attack import norms
from adversary.evasion import spsa
from adversary.gradients import predict
from tests.adversary.evasion.oracles import launch, linear, over

EPS = 0.3


def test_wins_on_the_bare_victim_within_the_ball(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    result = launch(spsa, over(victim), x, y, eps=EPS, budget=6000)
    assert (predict(victim, result.x_adv) != y).mean() > 0.8
    assert norms(result.x_adv - x, "linf").max() <= EPS + 1e-6


def test_a_small_ball_is_not_left(victim, prey):
    x, y = prey[0][:3], prey[1][:3]
    result = launch(spsa, over(victim), x, y, eps=0.01, budget=300)
    assert (predict(victim, result.x_adv) == y).all()
    assert norms(result.x_adv - x, "linf").max() <= 0.01 + 1e-6


def test_on_a_line_every_value_goes_to_its_corner_of_the_ball():
    w = np.array([1.0, -2.0, 3.0, -1.0, 0.5])
    x = np.full((1, 5), 0.5, np.float32)
    result = launch(spsa, linear(w, 5.0), x, np.array([0]), eps=0.1, budget=401 * 40, samples=400)
    assert (result.x_adv - x)[0].tolist() == pytest.approx((0.1 * np.sign(w)).tolist(), abs=1e-6)


def test_starts_anywhere_in_the_ball():
    x = np.full((1, 1000), 0.5, np.float32)
    delta = launch(spsa, linear(np.zeros(1000), 1.0), x, np.array([0]), eps=0.1, budget=1).x_adv - x
    assert np.abs(delta).max() <= 0.1 + 1e-6
    assert np.abs(delta).mean() == pytest.approx(0.05, abs=0.01)


def test_the_probes_of_a_step_travel_together(victim, prey):
    oracle = over(victim)
    launch(spsa, oracle, prey[0][:1], prey[1][:1], eps=0.01, budget=129 * 2, batch=129)
    assert oracle.calls == [129] * 2


def test_a_step_without_answers_is_not_taken():
    x = np.full((1, 3), 0.5, np.float32)
    deaf = launch(spsa, linear(np.ones(3), 5.0, refuse=lambda *_: True), x, np.array([0]), eps=0.1, budget=129 * 3)
    first = launch(spsa, linear(np.ones(3), 5.0), x, np.array([0]), eps=0.1, budget=1)
    assert np.array_equal(deaf.x_adv, first.x_adv)
