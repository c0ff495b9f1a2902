"""Spatial transform: the grid of the paper, labels only; more tries win more."""

import numpy as np
import pytest

from adversary.evasion import spatial_transform
from adversary.gradients import predict
from adversary.sizes import sizes
from tests.adversary.evasion.oracles import launch, over


def test_the_whole_grid_wins_often_on_the_bare_victim_and_ten_tries_less_often(victim, prey):
    x, y = prey[0][:40], prey[1][:40]
    won = [
        predict(victim, launch(spatial_transform, over(victim), x, y, eps=1.0, budget=budget).x_adv) != y
        for budget in (10, 774)
    ]
    assert won[1].mean() > 0.6
    assert 0.1 < won[0].mean() < won[1].mean() - 0.1


def test_what_wins_is_a_warp_of_the_lattice(victim, prey):
    x, y = prey[0][:10], prey[1][:10]
    result = launch(spatial_transform, over(victim), x, y, eps=0.8, budget=400)
    won = predict(victim, result.x_adv) != y
    assert won.any()
    assert (sizes(x, result.x_adv, "spatial") <= 0.8 + 1e-9).all()
    assert np.array_equal(result.x_adv[~won], x[~won])


def test_less_eps_wins_less(victim, prey):
    x, y = prey[0][:40], prey[1][:40]
    result = launch(spatial_transform, over(victim), x, y, eps=0.3, budget=774)
    assert (predict(victim, result.x_adv) != y).mean() < 0.2
    assert result.queries.max() <= 8  # of the grid, only turns of up to 9 degrees are within .3
    with pytest.raises(ValueError, match="end at eps 1"):
        launch(spatial_transform, over(victim), x, y, eps=1.5, budget=5)


def test_queries_are_batched_counted_and_kept_within_the_budget(victim, prey):
    oracle = over(victim, refuse=lambda sent, x: True)
    result = launch(spatial_transform, oracle, prey[0][:1], prey[1][:1], eps=1.0, budget=57, batch=20)
    assert oracle.calls == [20, 20, 17]
    assert result.queries.tolist() == [57]


def test_refused_tries_win_nothing_and_the_others_may(victim, prey):
    x, y = prey[0][:10], prey[1][:10]
    oracle = over(victim, refuse=lambda sent, x: sent % 50 == 0)
    result = launch(spatial_transform, oracle, x, y, eps=1.0, budget=100)
    won = predict(victim, result.x_adv) != y
    assert won.any()
    assert np.array_equal(result.x_adv[~won], x[~won])
    assert result.queries.sum() == oracle.sent


def test_the_seed_decides(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    first, again, other = (
        launch(spatial_transform, over(victim), x, y, eps=1.0, budget=100, seed=s) for s in (0, 0, 1)
    )
    assert np.array_equal(first.x_adv, again.x_adv)
    assert not np.array_equal(first.x_adv, other.x_adv)
