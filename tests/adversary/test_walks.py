import numpy as np
import pytest

from adversary import boundary, walks
from adversary.attack import BudgetSpent, Meter, ScoreMeter
from tests.adversary.evasion.oracles import linear

X = np.full((2, 2), 0.25, np.float32)
Y = np.array([0, 0])


def test_approach_keeps_the_nearest_and_stops_within_eps():
    def walk(i, meter):
        for size in (0.5, 0.2, 0.4, 0.1, 0.05):
            meter.adversarial(X[:1])
            yield X[i] + size

    oracle = linear([1.0, 1.0], 1.0)
    result = walks.approach(oracle, X, Y, eps=0.11, norm="linf", budget=10, batch=1, walk=walk)
    assert (result.x_adv - X).tolist() == pytest.approx(np.full((2, 2), 0.1), abs=1e-6)
    assert result.queries.tolist() == [4, 4]


def test_approach_gives_x_back_where_nothing_was_found():
    def walk(i, meter):
        while True:
            meter.adversarial(X[:1])
        yield X[i]

    result = walks.approach(linear([1.0, 1.0], 1.0), X, Y, eps=1.0, norm="l2", budget=7, batch=1, walk=walk)
    assert np.array_equal(result.x_adv, X)
    assert result.queries.tolist() == [7, 7]


def test_descend_keeps_the_last_point_when_the_budget_is_spent():
    def walk(i, meter):
        point = X[i]
        while True:
            yield point
            meter.scores(point[None])
            point = point + np.float32(0.1)

    result = walks.descend(linear([1.0, 1.0], 1.0), X, Y, budget=3, batch=1, walk=walk)
    assert (result.x_adv - X).tolist() == pytest.approx(np.full((2, 2), 0.3), abs=1e-6)
    assert result.queries.tolist() == [3, 3]


def test_pairs_of_probes_leave_room_for_the_check():
    meter = ScoreMeter(linear([1.0], 0.5), 0, 8, 8)
    assert walks.pairs_left(meter, 4) == 2
    assert walks.pairs_left(meter, 100) == 3
    meter.scores(np.zeros((6, 1)))
    with pytest.raises(BudgetSpent):
        walks.pairs_left(meter, 100)


def meter_of(w, b, budget=100):
    return Meter(linear(w, b), 0, budget, 8)


def test_the_binary_search_ends_on_the_adversarial_side():
    meter = meter_of([1.0, 1.0], 1.0)
    point = boundary.blend(meter, np.zeros(2), np.ones(2), 1e-3)
    assert 1.0 < point.sum() < 1.003
    assert boundary.adversarial(meter, point)
    assert meter.spent == 10 + 1


def test_a_start_is_taken_as_it_is_if_it_is_adversarial():
    rng = np.random.default_rng(0)
    given = np.array([0.9, 0.8], np.float32)
    assert boundary.start(meter_of([1.0, 1.0], 1.0), np.zeros(2), rng, given).tolist() == given.tolist()
    replaced = boundary.start(meter_of([1.0, 1.0], 1.0), np.zeros(2), rng, given * 0.1)
    assert 1.0 < replaced.sum() < 1.01


def test_without_any_noise_that_is_adversarial_the_budget_ends_the_search():
    meter = meter_of([1.0, 1.0], 3.0, budget=20)
    with pytest.raises(BudgetSpent):
        boundary.start(meter, np.zeros(2), np.random.default_rng(0))
    assert meter.spent == 20
