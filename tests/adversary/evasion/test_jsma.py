"""JSMA: the search for pairs is exact, and few pixels are enough on the bare victim."""

import numpy as np
import pytest

from adversary.attack import norms
from adversary.evasion import jsma
from adversary.gradients import predict
from adversary.tensors import runner_up
from tests.adversary.evasion.models import planes, run


def brute_force(a, b, free):
    """The best product over all pairs."""
    products = (a[:, None] + a) * (b[:, None] + b)
    allowed = (a[:, None] + a > 0) & (b[:, None] + b > 0) & free[:, None] & free
    np.fill_diagonal(allowed, val=False)
    return np.where(allowed, products, -np.inf).max()


@pytest.mark.parametrize("seed", range(20))
def test_no_pair_is_better_than_the_one_found(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    a, b = rng.normal(-0.5, 1.0, (2, n)).round(int(rng.integers(0, 3)))  # rounded: with ties
    free = rng.random(n) < 0.8
    pair = jsma._best_pair(a, b, free)
    best = brute_force(a, b, free)
    if pair is None:
        assert best == -np.inf
    else:
        assert free[pair].all()
        assert pair[0] != pair[1]
        assert a[pair].sum() * b[pair].sum() == pytest.approx(best)


def test_raises_the_pair_by_hand():
    model = planes([[1.0, 0.2, -2.0, 0.5], [0.0, 0.1, 3.0, 0.4]])
    x = np.array([[0.9, 0.0, 0.0, 0.0]], np.float32)  # towards class 1, a: 0 .1 3 .4, -b: -1 -.2 2 -.5
    result = run(jsma, model, x, np.array([0]), eps=2, budget=2)
    assert result.x_adv[0].tolist() == pytest.approx([0.9, 1.0, 1.0, 0.0])  # 3.1 * 1.8 beats 3.4 * 1.5
    assert predict(model, result.x_adv).tolist() == [1]


def test_wins_on_the_bare_victim_within_the_published_share_of_pixels(victim, prey):
    x, y = prey[0][:16], prey[1][:16]
    goal = runner_up(victim, x, y)
    result = run(jsma, victim, x, y, eps=112, budget=112)  # 14.3 % of 784
    won = predict(victim, result.x_adv) == goal
    assert won.mean() > 0.8
    assert norms(result.x_adv - x, "l0").max() <= 112
    assert np.median(norms(result.x_adv - x, "l0")) < 60
    assert set((result.x_adv - x)[result.x_adv != x] + x[result.x_adv != x]) == {1.0}  # raised, and fully


def test_lowers_pixels_if_told_so(victim, prey):
    x, y = prey[0][:4], prey[1][:4]
    result = run(jsma, victim, x, y, eps=20, budget=20, theta=-1.0)
    assert (result.x_adv <= x).all()
    assert (result.x_adv < x).any()


def test_targets_are_reached(victim, prey):
    x, y = prey[0][:6], prey[1][:6]
    goal = (y + 1) % 10
    result = run(jsma, victim, x, y, eps=112, budget=112, targets=goal)
    assert (predict(victim, result.x_adv) == goal).mean() >= 0.5


def test_a_single_pixel_is_no_pair(victim, prey):
    with pytest.raises(ValueError, match="two pixels"):
        run(jsma, victim, prey[0][:1], prey[1][:1], eps=1, budget=10)
