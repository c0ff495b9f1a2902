"""EAD: the distance in l1 to a plane, and less l1 than C&W on the bare victim, as published."""

import numpy as np
import pytest

from adversary.attack import norms
from adversary.evasion import carlini_wagner, ead
from adversary.gradients import predict
from tests.adversary.evasion.models import planes, run


def test_finds_the_l1_distance_to_a_plane_along_one_value():
    model = planes([[0.0, 0.0, 0.0], [1.0, 4.0, 1.0]], [0.0, -2.0])
    x = np.array([[0.5, 0.6, 0.5]], np.float32)  # 1.4 past the plane: 0.35 along the second value alone
    result = run(ead, model, x, np.array([1]), eps=1.0, budget=3000, search_steps=6)
    assert predict(model, result.x_adv).tolist() == [0]
    assert norms(result.x_adv - x, "l1")[0] == pytest.approx(0.35, abs=0.02)
    assert (result.x_adv - x)[0, [0, 2]].tolist() == [0.0, 0.0]


def test_wins_always_on_the_bare_victim_with_less_l1_and_fewer_pixels_than_cw(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    sparse = run(ead, victim, x, y, eps=40.0, budget=300)
    dense = run(carlini_wagner, victim, x, y, eps=4.0, budget=300)
    assert (predict(victim, sparse.x_adv) != y).all()
    for norm, share in (("l1", 0.8), ("l0", 0.4)):
        assert np.median(norms(sparse.x_adv - x, norm)) < share * np.median(norms(dense.x_adv - x, norm))


def test_targets_are_reached(victim, prey):
    x, y = prey[0][:6], prey[1][:6]
    goal = (y + 1) % 10
    result = run(ead, victim, x, y, eps=np.inf, budget=500, targets=goal)
    assert (predict(victim, result.x_adv) == goal).all()


def test_what_is_farther_than_eps_stays_where_it_was(victim, prey):
    x, y = prey[0][:3], prey[1][:3]
    assert np.array_equal(run(ead, victim, x, y, eps=0.01, budget=50).x_adv, x)
