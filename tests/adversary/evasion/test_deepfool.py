"""DeepFool: exact on planes, as close as published on the bare victim."""

import numpy as np
import pytest

from adversary.attack import norms
from adversary.evasion import deepfool, fgsm
from adversary.gradients import predict
from tests.adversary.evasion.models import planes, run


def test_one_step_over_a_plane_with_the_overshoot():
    model = planes([[0.0, 0.0], [3.0, 4.0]], [0.0, -3.5])  # the plane 3a + 4b = 3.5 is |3a + 4b - 3.5| / 5 away
    x = np.array([[0.5, 0.75]], np.float32)
    result = run(deepfool, model, x, np.array([1]), eps=1.0, budget=20)
    assert result.queries.tolist() == [2]
    assert (result.x_adv - x)[0].tolist() == pytest.approx([-0.2 * 0.6 * 1.02, -0.2 * 0.8 * 1.02], abs=1e-4)


def test_the_nearest_of_several_planes_is_crossed():
    model = planes([[0.0, 0.0], [1.0, 0.0], [0.0, 5.0]], [0.5, 0.1, -2.1])
    x = np.array([[0.2, 0.4]], np.float32)  # classes 1 and 2 are 0.2 and 0.6 / 5 away
    result = run(deepfool, model, x, np.array([0]), eps=1.0, budget=30)
    assert predict(model, result.x_adv).tolist() == [2]
    assert norms(result.x_adv - x, "l2")[0] == pytest.approx(0.12 * 1.02, abs=1e-3)


def test_wins_always_on_the_bare_victim_in_a_few_steps_and_stays_close(victim, prey):
    x, y = prey[0][:24], prey[1][:24]
    result = run(deepfool, victim, x, y, eps=4.0, budget=500)
    assert (predict(victim, result.x_adv) != y).all()
    assert np.median(result.queries) < 200
    jump = run(fgsm, victim, x, y, eps=0.3, budget=1)
    assert np.median(norms(result.x_adv - x, "l2")) < 0.5 * np.median(norms(jump.x_adv - x, "l2"))


def test_what_is_farther_than_eps_stays_where_it_was(victim, prey):
    x, y = prey[0][:4], prey[1][:4]
    assert np.array_equal(run(deepfool, victim, x, y, eps=0.01, budget=200).x_adv, x)


def test_what_is_wrong_already_costs_nothing(victim, prey):
    x, y = prey[0][:4], (prey[1][:4] + 1) % 10
    result = run(deepfool, victim, x, y, eps=4.0, budget=200)
    assert np.array_equal(result.x_adv, x)
    assert result.queries.tolist() == [0] * 4
