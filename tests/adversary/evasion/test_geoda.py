"""GeoDA: along the estimated normal, where the boundary is met."""

import numpy as np
import pytest

from adversary.attack import norms
from adversary.bases import low_frequencies
from adversary.evasion import geoda
from tests.adversary.evasion.oracles import fooled, launch, linear, over

X = np.full((1, 1, 16, 16), 0.4, np.float32)
W = low_frequencies(16, 16, 0.2).lift(np.random.default_rng(1).standard_normal((3, 3)))
W /= np.linalg.norm(W)
B = float((W * X).sum()) + 1.0  # the plane is 1 away
Y = np.array([0])


def test_reaches_the_plane_where_the_normal_is_smooth():
    result = launch(geoda, linear(W, B), X, Y, eps=0.0, budget=2000)
    assert linear(W, B).labels(result.x_adv).tolist() == [1]
    assert norms(result.x_adv - X, "l2")[0] == pytest.approx(1.0, rel=0.05)


def test_in_linf_it_goes_along_the_signs():
    result = launch(geoda, linear(W, B), X, Y, eps=0.0, budget=2000, norm="linf")
    assert norms(result.x_adv - X, "linf")[0] == pytest.approx(1.0 / np.abs(W).sum(), rel=0.1)


def test_wins_close_by_on_the_bare_victim(victim, prey):
    x, y = prey[0][:12], prey[1][:12]
    result = launch(geoda, over(victim), x, y, eps=3.0, budget=2000)
    assert (fooled(victim, result.x_adv, y) & (norms(result.x_adv - x, "l2") <= 3.0)).mean() > 0.8


def test_few_queries_already_come_close(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    result = launch(geoda, over(victim), x, y, eps=0.0, budget=400)
    assert np.median(norms(result.x_adv - x, "l2")) < 4.5


def test_the_schedule_grows_as_published_and_leaves_room_for_searches():
    sizes = geoda.schedule(4000, 0.6 ** (-2.0 / 3.0))
    assert 50 <= sizes[0] <= 80
    assert sum(sizes) == pytest.approx(4000 - 25 * len(sizes), abs=len(sizes))
    assert np.allclose(np.divide(sizes[1:], sizes[:-1]), 1.4057, rtol=0.02)
    assert geoda.schedule(3, 1.4) == [3] or sum(geoda.schedule(3, 1.4)) >= 1


def test_probes_travel_in_batches():
    oracle = linear(W, B)
    launch(geoda, oracle, X, Y, eps=0.0, budget=1000, batch=30)
    assert max(oracle.calls) <= 30
    assert sum(n > 20 for n in oracle.calls) > 10


def test_a_direction_without_any_boundary_is_passed_over():
    """Refusals from the first estimate on: the start on the boundary is what remains."""
    oracle = linear(W, B, refuse=lambda sent, x: len(x) > 1)
    result = launch(geoda, oracle, X, Y, eps=0.0, budget=300)
    assert linear(W, B).labels(result.x_adv).tolist() == [1]
    assert result.queries.tolist() == [300]


def test_a_given_start_is_used():
    start = np.clip(X + 2.0 * W, 0.0, 1.0).astype(np.float32)
    result = launch(geoda, linear(W, B), X, Y, eps=0.0, budget=1, starts=start)
    assert np.array_equal(result.x_adv, start)
