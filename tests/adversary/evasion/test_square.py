"""Square, linf and l2: the published behaviour on the bare victim, and the arithmetic of its moves."""

import numpy as np
import pytest

from adversary.attack import norms
from adversary.evasion import square, square_l2
from adversary.gradients import predict
from tests.adversary.evasion.oracles import launch, linear, over


@pytest.mark.parametrize(("module", "norm", "eps"), [(square, "linf", 0.3), (square_l2, "l2", 3.0)])
def test_wins_on_the_bare_victim_within_few_queries(victim, prey, module, norm, eps):
    x, y = prey[0][:20], prey[1][:20]
    result = launch(module, over(victim), x, y, eps=eps, budget=1000)
    assert (predict(victim, result.x_adv) != y).mean() > 0.9
    assert norms(result.x_adv - x, norm).max() <= eps + 1e-5
    assert np.median(result.queries) < 150


@pytest.mark.parametrize(("module", "eps"), [(square, 0.05), (square_l2, 0.8)])
def test_a_small_ball_costs_the_whole_budget(victim, prey, module, eps):
    x, y = prey[0][:4], prey[1][:4]
    result = launch(module, over(victim), x, y, eps=eps, budget=100)
    assert (predict(victim, result.x_adv) == y).mean() >= 0.75
    assert np.median(result.queries) == 100


def test_squares_shrink_on_the_authors_schedule_whatever_the_budget():
    steps = [0, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    assert [0.8 / square.share(step, 10_000, 0.8) for step in steps] == [1, 1, 2, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert square.share(6, 1000, 0.8) == square.share(60, 10_000, 0.8)


def test_linf_moves_stay_at_the_edge_of_the_ball_and_change_one_square(prey):
    image = np.full((1, 12, 12), 0.5)
    rng = np.random.default_rng(0)
    candidate = square.with_square(image, np.full((1, 12, 12), 0.8), 0.3, 4, rng)
    changed = np.argwhere(candidate[0] != 0.8)
    assert len(changed) == 16
    assert np.ptp(changed, axis=0).tolist() == [3, 3]
    assert np.unique(candidate[0]).tolist() == pytest.approx([0.2, 0.8])


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_a_bump_is_half_up_half_down_of_norm_one(size):
    delta = square_l2.bump(size, np.random.default_rng(3))
    assert np.linalg.norm(delta) == pytest.approx(1.0)
    assert (delta > 0).any()
    assert (delta < 0).any()


def test_l2_moves_keep_the_norm():
    rng = np.random.default_rng(0)
    image = np.full((3, 16, 16), 0.5)
    best = square_l2._scaled(image, square_l2._grid(image.shape, rng), 1.5)
    assert np.linalg.norm(best - image) == pytest.approx(1.5)
    for _ in range(20):
        best = square_l2._moved(image, best, 1.5, 5, rng)
        assert np.linalg.norm(best - image) == pytest.approx(1.5)


@pytest.mark.parametrize("module", [square, square_l2])
@pytest.mark.parametrize("shape", [(3, 16, 16), (16, 16, 3), (16, 16)])
def test_any_layout_of_an_image_will_do(module, shape):
    x = np.full((1, *shape), 0.5, np.float32)
    oracle = linear(np.ones(shape), 0.5 * np.prod(shape) + 1.0)
    result = launch(module, oracle, x, np.array([0]), eps=0.4, budget=200)
    assert oracle.labels(result.x_adv).tolist() == [1]


@pytest.mark.parametrize("module", [square, square_l2])
def test_vectors_are_no_images(module):
    with pytest.raises(ValueError, match="not images"):
        launch(module, linear([1.0, 1.0], 1.0), np.zeros((1, 2), np.float32), np.array([0]), eps=0.3, budget=10)


@pytest.mark.parametrize(("module", "eps"), [(square, 0.1), (square_l2, 1.0)])
def test_a_step_that_is_refused_is_not_taken(victim, prey, module, eps):
    x, y = prey[0][:1], prey[1][:1]
    barred = launch(module, over(victim, refuse=lambda sent, _: sent > 0), x, y, eps=eps, budget=50)
    only_the_first = launch(module, over(victim), x, y, eps=eps, budget=1)
    assert barred.queries.tolist() == [50]
    assert np.array_equal(barred.x_adv, only_the_first.x_adv)
    assert not np.array_equal(launch(module, over(victim), x, y, eps=eps, budget=50).x_adv, barred.x_adv)
