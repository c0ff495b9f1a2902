"""SimBA by pixels and by cosines."""

import numpy as np
import pytest

from adversary.attack import norms
from adversary.evasion import simba, simba_dct
from adversary.gradients import predict
from tests.adversary.evasion.oracles import launch, linear, over


@pytest.mark.parametrize(("module", "eps"), [(simba, 5.0), (simba_dct, 4.0)])
def test_wins_on_the_bare_victim(victim, prey, module, eps):
    x, y = prey[0][:8], prey[1][:8]
    result = launch(module, over(victim), x, y, eps=eps, budget=3000)
    won = (predict(victim, result.x_adv) != y) & (norms(result.x_adv - x, "l2") <= eps)
    assert won.mean() > 0.8


def test_low_frequencies_need_fewer_queries_than_pixels(victim, prey):
    x, y = prey[0][:5], prey[1][:5]
    pixels, cosines = (launch(m, over(victim), x, y, eps=9.0, budget=3000) for m in (simba, simba_dct))
    assert np.median(cosines.queries) < 0.6 * np.median(pixels.queries)


def test_on_a_line_every_pixel_steps_against_its_weight_or_stays():
    w = np.array([1.0, -2.0, 0.0, 3.0])
    x = np.full((1, 4), 0.5, np.float32)
    oracle = linear(w, 5.0)  # class 1 is out of reach
    result = launch(simba, oracle, x, np.array([0]), eps=1.0, budget=1 + 4 * 2)
    assert result.x_adv[0].tolist() == pytest.approx([0.7, 0.3, 0.5, 0.7])


def test_the_second_query_of_a_pixel_is_saved_where_the_first_helps():
    oracle = linear([-1.0, -1.0], 5.0)
    launch(simba, oracle, np.full((1, 2), 0.5, np.float32), np.array([0]), eps=1.0, budget=3)
    assert oracle.sent == 3
    result = launch(
        simba, linear([-1.0, -1.0], 5.0), np.full((1, 2), 0.5, np.float32), np.array([0]), eps=1.0, budget=3
    )
    assert result.x_adv[0].tolist() == pytest.approx([0.3, 0.3])


def test_a_step_that_the_bounds_undo_is_not_asked_for():
    x = np.array([[0.0, 1.0, 0.5, 0.0]], np.float32)
    asked = []
    oracle = linear(np.zeros(4), 5.0, refuse=lambda _, sent: asked.append(sent[0].tolist()))
    launch(simba, oracle, x, np.array([0]), eps=1.0, budget=6)
    assert oracle.sent == 6
    changed = [np.flatnonzero(np.array(image) != x[0]).tolist() for image in asked]
    assert changed[0] == []
    assert sorted(changed[1:]) == [[0], [1], [2], [2], [3]]


def test_stops_at_once_where_x_is_already_wrong():
    x = np.full((1, 2), 0.9, np.float32)
    result = launch(simba, linear([1.0, 1.0], 1.0), x, np.array([0]), eps=1.0, budget=50)
    assert result.queries.tolist() == [1]
    assert np.array_equal(result.x_adv, x)


def test_the_order_of_frequencies_has_each_once_and_the_low_ones_first():
    order = simba_dct.order((3, 28, 28), np.random.default_rng(0))
    assert len({tuple(place) for place in order.tolist()}) == 3 * 28 * 28
    assert order[: 3 * 9, 1:].max() == 2
    assert order[3 * 9 : 3 * 16, 1:].max(axis=1).tolist() == [3] * (3 * 7)
    large = simba_dct.order((1, 224, 224), np.random.default_rng(0))
    assert large[: 28 * 28, 1:].max() == 27
    assert large[28 * 28 : 35 * 35, 1:].max(axis=1).min() == 28


def test_a_step_of_a_cosine_has_the_length_of_the_step():
    x = np.full((1, 1, 28, 28), 0.5, np.float32)
    w = np.random.default_rng(0).standard_normal((1, 28, 28))
    result = launch(simba_dct, linear(w, 0.5 * w.sum() + 8.0), x, np.array([0]), eps=9.0, budget=3)
    assert norms(result.x_adv - x, "l2")[0] == pytest.approx(0.2, abs=1e-4)


@pytest.mark.parametrize("shape", [(16, 16, 3), (3, 16, 16), (16, 16)])
def test_cosines_of_any_layout(shape):
    x = np.full((1, *shape), 0.5, np.float32)
    oracle = linear(np.ones(shape), 0.5 * np.prod(shape) + 1.0)
    result = launch(simba_dct, oracle, x, np.array([0]), eps=9.0, budget=1000)
    assert oracle.labels(result.x_adv).tolist() == [1]
