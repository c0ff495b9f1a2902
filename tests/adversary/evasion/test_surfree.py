"""SurFree: turns in random planes."""

import numpy as np
import pytest
from scipy import fft

from adversary.attack import Meter, norms
from adversary.evasion import surfree
from tests.adversary.evasion.oracles import fooled, launch, linear, over


def size(result, x):
    return norms(result.x_adv - x, "l2")


def test_wins_close_by_on_the_bare_victim(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    result = launch(surfree, over(victim), x, y, eps=3.0, budget=2000)
    assert (fooled(victim, result.x_adv, y) & (size(result, x) <= 3.0)).mean() > 0.8


def test_more_queries_come_closer(victim, prey):
    x, y = prey[0][:3], prey[1][:3]
    early, late = (size(launch(surfree, over(victim), x, y, eps=0.0, budget=b), x) for b in (60, 600))
    assert (late < early).all()


def test_reaches_the_distance_to_a_plane():
    x = np.random.default_rng(0).uniform(0.3, 0.5, (1, 1, 8, 8)).astype(np.float32)
    w = np.ones((8, 8)) / 8.0
    b = float((x[0, 0] * w).sum()) + 1.0
    result = launch(surfree, linear(w, b), x, np.array([0]), eps=0.0, budget=2000)
    assert size(result, x)[0] == pytest.approx(1.0, rel=0.1)


def test_the_circle_ends_in_x_and_is_nearer_at_any_angle():
    x, point = np.full((2, 2), 0.5), np.full((2, 2), 0.6)
    direction = np.array([[0.5, -0.5], [0.5, -0.5]])
    path = surfree._circle(x, point, direction)
    assert path(0.0).tolist() == pytest.approx(point)
    assert path(90.0).tolist() == pytest.approx(x)
    for angle in (-60.0, -5.0, 5.0, 60.0):
        assert np.linalg.norm(path(angle) - x) == pytest.approx(0.2 * np.cos(np.radians(angle)))
        assert ((path(angle) - x) * (path(angle) - point)).sum() == pytest.approx(0.0, abs=1e-12)


def test_directions_are_orthogonal_to_those_before():
    rng = np.random.default_rng(0)
    used, current = np.zeros((4, 16)), rng.standard_normal((4, 4))
    for i in range(4):
        direction = surfree._orthogonal(rng.standard_normal((4, 4)), used, current, rng)
        assert np.linalg.norm(direction) == pytest.approx(1.0)
        assert np.abs(used @ direction.ravel()).max() < 1e-12
        assert abs((direction * current).sum()) < 1e-12
        used[i] = direction.ravel()
    assert np.linalg.norm(surfree._orthogonal(current, used, current, rng)) == pytest.approx(1.0)


def test_blocks_are_scipys_dct_of_eight_by_eight():
    x = np.random.default_rng(0).standard_normal((20, 16))
    spectrum = surfree._blocks(20).T @ x @ surfree._blocks(16)
    assert np.allclose(spectrum[8:16, :8], fft.dctn(x[8:16, :8], norm="ortho"))
    assert np.allclose(spectrum[16:, 8:], fft.dctn(x[16:, 8:], norm="ortho"))


def test_the_mask_takes_the_first_of_the_zigzag_in_each_block():
    mask = surfree._low(0.5, (20, 16))
    assert mask[:8, :8].sum() == 32
    assert np.array_equal(mask[:8, :8], mask[8:16, 8:])
    assert mask[0, 6] == mask[6, 0] == mask[0, 7] == 1.0
    assert mask[7, 0] == mask[7, 7] == 0.0


class Half:
    """Adversarial where the angle lies within bounds; a point here is its angle."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    def labels(self, x):
        return ((x[:, 0] >= self.low) & (x[:, 0] <= self.high)).astype(np.int64)


def widest(low, high, inside, gamma=1e-4, searches=20):
    meter = Meter(Half(low, high), 0, 1000, 1)
    path = lambda angle: np.array([angle])
    return surfree._widen(meter, path, inside, 30.0, steps=(3, searches), gamma=gamma)


def test_the_angle_is_searched_to_the_edge():
    assert widest(0.0, 27.0, 20.0) == pytest.approx(27.0, abs=0.1)
    assert widest(-27.0, 0.0, -20.0) == pytest.approx(-27.0, abs=0.1)


def test_the_widest_angle_is_left_behind_where_it_still_hits():
    assert widest(0.0, 55.0, 30.0) == pytest.approx(55.0, abs=0.1)


def test_the_other_side_is_tried_once():
    assert widest(-28.0, 21.0, 20.0) == pytest.approx(-28.0, abs=0.1)


@pytest.mark.parametrize("shape", [(16, 16, 3), (3, 16, 16), (16, 16)])
def test_any_layout_of_an_image_will_do(shape):
    x = np.random.default_rng(0).uniform(0.2, 0.5, (1, *shape)).astype(np.float32)
    oracle = linear(np.ones(shape), 0.5 * np.prod(shape))
    result = launch(surfree, oracle, x, np.array([0]), eps=0.0, budget=200)
    assert oracle.labels(result.x_adv).tolist() == [1]
