import numpy as np
import pytest

from adversary.attack import REFUSED, norms
from adversary.evasion import hop_skip_jump


class Plane:
    """Label 1 where w.x > b, in 30 dimensions; the distance to the plane is known."""

    def __init__(self, refuse_after=None):
        self.w = np.linspace(0.5, 1.5, 30)
        self.w /= np.linalg.norm(self.w)
        self.b = self.w.sum() * 0.5
        self.asked, self.calls, self.refuse_after = 0, [], refuse_after

    def labels(self, x):
        self.asked += len(x)
        self.calls.append(len(x))
        if self.refuse_after is not None and self.asked > self.refuse_after:
            return np.full(len(x), REFUSED)
        return (x @ self.w > self.b).astype(np.int64)

    def distance(self, x):
        return (self.b - x @ self.w).item()


def run(oracle, x, budget, eps=0.0, seed=0, **options):
    y = np.zeros(len(x), np.int64)
    return hop_skip_jump.attack(oracle, x, y, eps=eps, budget=budget, rng=np.random.default_rng(seed), **options)


@pytest.fixture
def x():
    return np.full((1, 30), 0.4, np.float32)


def test_reaches_the_distance_to_a_plane(x):
    plane = Plane()
    result = run(plane, x, 4000)
    assert plane.labels(result.x_adv).tolist() == [1]
    assert norms(result.x_adv - x, "l2")[0] == pytest.approx(plane.distance(x), rel=0.05)


def test_more_queries_come_closer(x):
    sizes = [norms(run(Plane(), x, budget).x_adv - x, "l2")[0] for budget in (150, 600, 3000)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_budget_is_never_passed(x):
    for budget in (1, 7, 100, 333):
        plane = Plane()
        assert run(plane, x, budget).queries.tolist() == [plane.asked]
        assert plane.asked <= budget


def test_stops_where_eps_is_reached(x):
    plane = Plane()
    result = run(plane, x, 4000, eps=2.0 * plane.distance(x))
    assert plane.asked < 1000
    assert norms(result.x_adv - x, "l2")[0] <= 2.0 * plane.distance(x)


def test_gradient_queries_travel_in_batches(x):
    plane = Plane()
    run(plane, x, 600, batch=50)
    assert max(plane.calls) <= 50
    assert sum(n > 1 for n in plane.calls) >= 2
    single = Plane()
    run(single, x, 600, batch=1)
    assert set(single.calls) == {1}


def test_a_given_start_is_used(x):
    plane = Plane()
    result = run(plane, x, 1, starts=np.ones((1, 30), np.float32))
    assert result.x_adv.tolist() == [[1.0] * 30]


def test_a_start_of_the_same_class_is_replaced_by_noise(x):
    plane = Plane()
    result = run(plane, x, 1000, starts=np.zeros((1, 30), np.float32))
    assert plane.labels(result.x_adv).tolist() == [1]


def test_an_endpoint_that_refuses_from_the_start_gives_nothing(x):
    result = run(Plane(refuse_after=0), x, 50)
    assert np.array_equal(result.x_adv, x)
    assert result.queries.tolist() == [50]


def test_an_endpoint_that_starts_to_refuse_ends_the_progress(x):
    plane = Plane(refuse_after=200)
    barred, free = run(plane, x, 2000), run(Plane(), x, 2000)
    assert plane.asked == 2000
    assert Plane().labels(barred.x_adv).tolist() == [1]
    assert norms(barred.x_adv - x, "l2")[0] > norms(free.x_adv - x, "l2")[0]


def test_each_victim_has_its_own_budget():
    plane = Plane()
    result = run(plane, np.full((3, 30), 0.4, np.float32), 200)
    assert result.queries.tolist() == [200, 200, 200]


def test_repeats_itself_by_seed(x):
    assert np.array_equal(run(Plane(), x, 500).x_adv, run(Plane(), x, 500).x_adv)
    assert not np.array_equal(run(Plane(), x, 500).x_adv, run(Plane(), x, 500, seed=1).x_adv)
