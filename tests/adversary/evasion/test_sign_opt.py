"""Sign-OPT: descends the distance over directions."""

import math

import numpy as np
import pytest

from adversary.attack import Meter, norms
from adversary.evasion import sign_opt
from tests.adversary.evasion.oracles import fooled, launch, linear, over

W = np.linspace(0.5, 1.5, 30)
W /= np.linalg.norm(W)
X = np.full((1, 30), 0.4, np.float32)
B = 0.5 * W.sum()
DISTANCE = B - float((X @ W)[0])
Y = np.array([0])


def size(result, x=X):
    return norms(result.x_adv - x, "l2")


def test_reaches_the_distance_to_a_plane():
    result = launch(sign_opt, linear(W, B), X, Y, eps=0.0, budget=4000)
    assert linear(W, B).labels(result.x_adv).tolist() == [1]
    assert size(result)[0] == pytest.approx(DISTANCE, rel=0.03)


def test_wins_close_by_on_the_bare_victim(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    result = launch(sign_opt, over(victim), x, y, eps=3.0, budget=4000)
    assert (fooled(victim, result.x_adv, y) & (size(result, x) <= 3.0)).mean() > 0.8


def test_more_queries_come_closer(victim, prey):
    x, y = prey[0][:3], prey[1][:3]
    early, late = (size(launch(sign_opt, over(victim), x, y, eps=0.0, budget=b), x) for b in (500, 1500))
    assert (late < early).all()


def test_probes_and_first_directions_travel_together():
    oracle = linear(W, B)
    launch(sign_opt, oracle, X, Y, eps=0.0, budget=2000, batch=1000, directions=70, probes=90)
    assert oracle.calls[0] == 70
    assert {n for n in oracle.calls[1:-1] if n > 1} == {90}


def test_goes_towards_noise_where_no_gaussian_direction_will_do():
    """Class 1 lies between, where clipped Gaussian noise of deviation 1 hardly ever is."""

    class Middle:
        def labels(self, x):
            spread = x.std(axis=1)
            return ((spread > 0.2) & (spread < 0.35)).astype(np.int64)

    x = np.full((1, 1000), 0.5, np.float32)
    result = launch(sign_opt, Middle(), x, Y, eps=0.0, budget=300, directions=20)
    assert Middle().labels(result.x_adv).tolist() == [1]


def rays(budget=1000):
    return sign_opt._Rays(X[0].astype(np.float64), Meter(linear(W, B), 0, budget, 8))


@pytest.mark.parametrize("guess", [0.8, 1.0, 1.3])
def test_the_local_search_finds_the_boundary_from_either_side(guess):
    assert rays().near(W, guess * DISTANCE, 1e-5) == pytest.approx(DISTANCE, abs=2e-5)


def test_the_local_search_gives_up_far_out():
    assert rays(10_000).near(-W, 0.5, 1e-5) == math.inf


def test_slopes_point_away_from_the_plane_s_normal():
    r = rays()
    theta = sign_opt._unit(W + 0.5 * np.random.default_rng(0).standard_normal(30))
    distance = r.near(theta, DISTANCE, 1e-6)
    slope = sign_opt._slope(r, np.random.default_rng(0), 400, theta, distance, 1e-3)
    across = W - (W @ theta) * theta
    assert slope @ across < -0.8 * np.linalg.norm(slope) * np.linalg.norm(across)
