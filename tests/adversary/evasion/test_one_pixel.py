"""One pixel: finds the pixel that matters by scores; on the bare victim the more pixels the closer."""

import numpy as np
import pytest

from adversary.attack import norms
from adversary.evasion import one_pixel
from tests.adversary.evasion.oracles import InMemory, launch, over


def spot(x):
    """Class 1 where pixel (3, 8) is bright; nearby pixels count a little."""
    rows, columns = np.mgrid[:12, :12]
    near = np.exp(-((rows - 3) ** 2 + (columns - 8) ** 2) / 8.0)
    return np.stack([np.full(len(x), 0.93), (x[:, 0] * near).max(axis=(1, 2))], axis=1)


BLACK = np.zeros((1, 1, 12, 12), np.float32), np.array([0])


def test_finds_the_one_pixel_that_matters():
    oracle = InMemory(spot)
    result = launch(one_pixel, oracle, *BLACK, eps=1, budget=3000, population=40)
    assert np.argwhere(result.x_adv[0, 0]).tolist() == [[3, 8]]
    assert oracle.labels(result.x_adv).tolist() == [1]
    assert result.queries[0] < 2000


def test_paints_as_told_in_any_layout():
    image = np.zeros((3, 4, 5), np.float32)
    genes = np.array([[[0.0, 0.99, 0.1, 0.2, 0.3], [1.0, 0.0, 1.0, 1.0, 1.0]]])
    painted = one_pixel.paint(image, genes)[0]
    assert painted[:, 0, 4].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert painted[:, 3, 0].tolist() == [1.0, 1.0, 1.0]
    assert (painted != 0).any(axis=0).sum() == 2
    last = np.zeros((1, 4, 5, 3), np.float32)
    oracle = InMemory(lambda x: np.stack([0.5 - x.sum((1, 2, 3)), x.sum((1, 2, 3))], axis=1))
    result = launch(one_pixel, oracle, last, np.array([0]), eps=2, budget=50, population=10)
    assert result.x_adv.shape == last.shape
    assert 1 <= norms(result.x_adv - last, "l0")[0] <= 2


def test_a_child_comes_of_three_others():
    genes = np.array([[[v, v, v]] for v in (0.0, 0.1, 0.3, 0.9)])
    for seed in range(20):
        children = one_pixel._children(genes, 0.5, np.random.default_rng(seed))[:, 0, 0]
        for i, child in enumerate(children):
            others = np.delete(genes[:, 0, 0], i)
            made = [a + 0.5 * (b - c) for a in others for b in others for c in others if len({a, b, c}) == 3]
            assert np.isclose(np.clip(made, 0, 1), child).any()


def test_more_pixels_come_closer_on_the_bare_victim(victim, prey):
    x, y = prey[0][:6], prey[1][:6]

    def sureness(x_adv):
        oracle = over(victim)
        return np.median(np.log(oracle.probabilities(x_adv))[np.arange(6), y])

    found = [
        sureness(launch(one_pixel, over(victim), x, y, eps=k, budget=600, population=30).x_adv) for k in (1, 5, 20)
    ]
    assert sureness(x) > found[0] > found[1] > found[2]


def test_wins_with_twenty_pixels_where_the_victim_is_least_sure(victim, prey):
    sure = np.sort(over(victim).probabilities(prey[0]), axis=1)
    weak = np.argsort(np.log(sure[:, -1] / sure[:, -2]))[:5]
    x, y = prey[0][weak], prey[1][weak]
    result = launch(one_pixel, over(victim), x, y, eps=20, budget=1500, population=30)
    assert (over(victim).labels(result.x_adv) != y).mean() >= 0.6
    assert norms(result.x_adv - x, "l0").max() <= 20


def test_the_budget_is_kept_to_the_last_child(victim, prey):
    for budget in (1, 29, 30, 100):
        oracle = over(victim)
        result = launch(one_pixel, oracle, prey[0][:1], prey[1][:1], eps=1, budget=budget, population=30, batch=8)
        assert result.queries.tolist() == [oracle.sent] == [budget]
        assert max(oracle.calls) <= 8


def test_refused_children_lose(victim, prey):
    everything = launch(
        one_pixel, over(victim, refuse=lambda sent, x: True), prey[0][:1], prey[1][:1], eps=1, budget=50, population=10
    )
    assert everything.queries.tolist() == [50]
    assert norms(everything.x_adv - prey[0][:1], "l0")[0] <= 1
    oracle = InMemory(spot, refuse=lambda sent, x: sent % 3 == 0)
    result = launch(one_pixel, oracle, *BLACK, eps=1, budget=4000, population=40, batch=1)
    assert np.argwhere(result.x_adv[0, 0]).tolist() == [[3, 8]]


def test_a_pixel_at_least():
    with pytest.raises(ValueError, match="one pixel"):
        launch(one_pixel, InMemory(spot), *BLACK, eps=0.5, budget=10)
