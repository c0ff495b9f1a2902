"""The boundary attack: near the plane in the end, slower than its successors."""

import numpy as np
import pytest

from adversary.attack import norms
from adversary.evasion import boundary, hop_skip_jump
from tests.adversary.evasion.oracles import launch, linear, over

W = np.linspace(0.5, 1.5, 30)
W /= np.linalg.norm(W)
X = np.full((1, 30), 0.4, np.float32)
B = 0.5 * W.sum()
DISTANCE = B - float((X @ W)[0])
Y = np.array([0])


def size(result, x=X):
    return norms(result.x_adv - x, "l2")


def test_reaches_the_distance_to_a_plane():
    result = launch(boundary, linear(W, B), X, Y, eps=0.0, budget=4000)
    assert linear(W, B).labels(result.x_adv).tolist() == [1]
    assert size(result)[0] == pytest.approx(DISTANCE, rel=0.1)


def test_more_queries_come_closer():
    sizes = [size(launch(boundary, linear(W, B), X, Y, eps=0.0, budget=b))[0] for b in (30, 300, 3000)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_comes_closer_on_the_bare_victim_but_slower_than_hop_skip_jump(victim, prey):
    x, y = prey[0][:4], prey[1][:4]
    early, late = (size(launch(boundary, over(victim), x, y, eps=0.0, budget=b), x) for b in (100, 1500))
    assert (late < early).mean() > 0.8
    hop = launch(hop_skip_jump, over(victim), x, y, eps=0.0, budget=1500)
    assert np.median(size(hop, x)) < np.median(late)


def test_stops_where_eps_is_reached():
    result = launch(boundary, linear(W, B), X, Y, eps=2.0 * DISTANCE, budget=4000)
    assert size(result)[0] <= 2.0 * DISTANCE
    assert result.queries[0] < 2000


def test_stops_where_its_steps_have_become_too_small():
    class Point:
        """Only the start is adversarial."""

        sent = 0

        def labels(self, x):
            self.sent += len(x)
            return (x == 1.0).all(axis=1).astype(np.int64)

    oracle = Point()
    start = np.ones((1, 30), np.float32)
    result = launch(boundary, oracle, X, Y, eps=0.0, budget=100_000, starts=start, least_source_step=1e-3)
    assert np.array_equal(result.x_adv, start)
    assert oracle.sent < 10_000


def test_a_given_start_is_used():
    start = np.ones((1, 30), np.float32)
    assert np.array_equal(launch(boundary, linear(W, B), X, Y, eps=0.0, budget=1, starts=start).x_adv, start)


def test_proposals_lie_on_the_sphere_and_inside_of_it():
    rng = np.random.default_rng(0)
    x, point = np.full(30, 0.5), np.full(30, 0.55)
    steps = boundary._Steps(0.3, 0.1, 1.5)
    around, nearer = boundary._proposals(x, point, steps, rng)
    distance = np.linalg.norm(point - x)
    assert np.linalg.norm(around - x) == pytest.approx(distance)
    assert np.linalg.norm(nearer - x) == pytest.approx(0.9 * distance)
    assert np.dot(around - x, point - x) / distance**2 == pytest.approx(1.0 / np.sqrt(1.0 + 0.3**2))


def test_steps_grow_where_most_hit_and_shrink_where_few_do():
    steps = boundary._Steps(0.1, 0.1, 1.5)
    for _ in range(99):
        steps.learn(True, False)
    assert steps.spherical == 0.1
    assert steps.source == pytest.approx(0.1 / 1.5**3)  # three times thirty misses
    steps.learn(True, False)
    assert steps.spherical == pytest.approx(0.15)
    assert steps.source == pytest.approx(0.1 / 1.5**2)
    for i in range(100):
        steps.learn(i % 3 == 0, i % 6 == 0)
    assert steps.spherical == pytest.approx(0.15)
