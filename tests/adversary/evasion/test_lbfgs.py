"""L-BFGS: the minimiser agrees with SciPy's L-BFGS-B, and the attack comes as close as C&W on the bare victim."""

import numpy as np
import pytest
import torch
from scipy import optimize

from adversary.attack import norms
from adversary.evasion import carlini_wagner, lbfgs
from adversary.gradients import predict
from adversary.tensors import runner_up
from tests.adversary.evasion.models import planes, run


def quadratic(seed):
    """(z - m)' A (z - m) with its optimum outside of the box in some values."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(12, 12))
    a = a @ a.T + 0.1 * np.eye(12)
    m = rng.uniform(-0.5, 1.5, 12)
    return a, m


@pytest.mark.parametrize("seed", range(5))
def test_the_minimum_in_the_box_is_scipys(seed):
    a, m = quadratic(seed)

    def value(z):
        return (z - m) @ a @ (z - m), 2.0 * a @ (z - m)

    def objective(z):
        v, g = value(z.numpy())
        return float(v), torch.from_numpy(g)

    found, spent = lbfgs.minimise(objective, torch.full((12,), 0.5, dtype=torch.float64), evaluations=300)
    known = optimize.minimize(value, np.full(12, 0.5), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * 12)
    assert spent < 300
    assert float(objective(found)[0]) == pytest.approx(known.fun, rel=1e-4)
    assert ((found == 0) | (found == 1)).any()


def test_evaluations_are_a_hard_limit():
    asked = []

    def objective(z):
        asked.append(1)
        return float((z**4).sum()), 4 * z**3

    assert lbfgs.minimise(objective, torch.ones(3, dtype=torch.float64), evaluations=5)[1] == 5
    assert len(asked) == 5


def test_the_distance_to_a_plane():
    model = planes([[0.0, 0.0], [30.0, 40.0]], [0.0, -35.0])
    x = np.array([[0.5, 0.75]], np.float32)
    result = run(lbfgs, model, x, np.array([1]), eps=1.0, budget=400, search_steps=12)
    assert predict(model, result.x_adv).tolist() == [0]
    assert norms(result.x_adv - x, "l2")[0] == pytest.approx(0.2, abs=0.01)


def test_wins_always_on_the_bare_victim_as_close_as_cw(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    result = run(lbfgs, victim, x, y, eps=4.0, budget=250)
    assert (predict(victim, result.x_adv) == runner_up(victim, x, y)).all()
    near = run(carlini_wagner, victim, x, y, eps=4.0, budget=400)
    assert np.median(norms(result.x_adv - x, "l2")) < 1.15 * np.median(norms(near.x_adv - x, "l2"))


def test_targets_are_reached(victim, prey):
    x, y = prey[0][:4], prey[1][:4]
    goal = (y + 1) % 10
    assert (predict(victim, run(lbfgs, victim, x, y, eps=10.0, budget=200, targets=goal).x_adv) == goal).all()


def test_what_is_farther_than_eps_stays_where_it_was(victim, prey):
    x, y = prey[0][:2], prey[1][:2]
    assert np.array_equal(run(lbfgs, victim, x, y, eps=0.01, budget=40).x_adv, x)
