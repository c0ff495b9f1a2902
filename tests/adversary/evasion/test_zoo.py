"""ZOO: coordinate descent on finite differences."""

import numpy as np
import pytest

from adversary.attack import norms
from adversary.evasion import zoo
from adversary.gradients import predict
from tests.adversary.evasion.oracles import launch, linear, over


@pytest.mark.parametrize("solver", ["adam", "newton"])
def test_wins_close_by(victim, prey, solver):
    x, y = prey[0][:4], prey[1][:4]
    options = {"rate": 0.02} if solver == "newton" else {}
    result = launch(zoo, over(victim), x, y, eps=4.0, budget=12_000, solver=solver, batch=300, **options)
    near = (predict(victim, result.x_adv) != y) & (norms(result.x_adv - x, "l2") <= 4.0)
    assert near.mean() >= 0.75


def test_goes_on_to_a_smaller_perturbation_while_eps_is_not_reached():
    w = np.array([1.0, 1.0, 1.0, 1.0])
    x = np.full((1, 4), 0.3, np.float32)
    sizes = [
        norms(launch(zoo, linear(w, 2.0), x, np.array([0]), eps=eps, budget=9 * 400).x_adv - x, "l2")[0]
        for eps in (2.0, 0.42)
    ]
    assert sizes[1] <= sizes[0]
    assert sizes[1] == pytest.approx(0.4, abs=0.03)  # the distance to the plane


def test_searches_for_a_price_that_wins():
    w = np.array([1.0, 1.0])
    x = np.full((1, 2), 0.3, np.float32)
    weak = launch(zoo, linear(w, 1.0), x, np.array([0]), eps=0.01, budget=5 * 300, price=1e-3)
    found = launch(zoo, linear(w, 1.0), x, np.array([0]), eps=0.01, budget=5 * 300, price=1e-3, search_steps=6)
    assert weak.x_adv.sum() < 1.0
    assert found.x_adv.sum() > 1.0


def test_the_probes_of_a_step_travel_together(victim, prey):
    oracle = over(victim)
    launch(zoo, oracle, prey[0][:1], prey[1][:1], eps=0.01, budget=257 * 2, batch=257)
    assert oracle.calls == [257] * 2


def test_a_coordinate_whose_probe_is_refused_keeps_its_value():
    """Every call is one row: the check, four values up, four values down. The first coordinate's is never answered."""
    x = np.full((1, 4), 0.5, np.float32)
    oracle = linear(np.ones(4), 4.0, refuse=lambda sent, _: sent % 9 == 1)
    result = launch(zoo, oracle, x, np.array([0]), eps=0.01, budget=9 * 2, batch=1, rate=0.01)
    assert sorted(np.round(result.x_adv - x, 4)[0].tolist()) == pytest.approx([0.0, 0.01, 0.01, 0.01])


def test_a_probe_at_the_bound_still_gives_the_slope():
    """From 0 only the upper probe moves; without a curvature Newton steps by rate * slope."""
    x = np.zeros((1, 1), np.float32)
    result = launch(
        zoo, linear([2.0], 1.0), x, np.array([0]), eps=0.01, budget=6, solver="newton", price=1.0, rate=0.01
    )
    assert result.x_adv[0, 0] == pytest.approx(0.02, abs=1e-3)
