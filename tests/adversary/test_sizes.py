import numpy as np
import pytest

from adversary import warps
from adversary.images import changed, channel_axis, like, planes
from adversary.sizes import sizes


def test_a_pixel_is_one_pixel_whatever_its_channels():
    delta = np.zeros((2, 3, 8, 8))
    delta[0, :, 2, 5] = 0.1
    delta[1, 0, 1, 1] = delta[1, 2, 1, 2] = -0.1
    x = np.full(delta.shape, 0.5)
    assert sizes(x, x + delta, "l0").tolist() == [1.0, 2.0]
    last = np.moveaxis(x, 1, 3)
    assert sizes(last, last + np.moveaxis(delta, 1, 3), "l0").tolist() == [1.0, 2.0]
    assert sizes(np.zeros((1, 5)), np.eye(5)[:1], "l0").tolist() == [1.0]


def test_lp_sizes_are_over_all_values():
    x, x_adv = np.zeros((1, 4), np.float32), np.array([[3.0, 0.0, -4.0, 0.0]], np.float32)
    assert [sizes(x, x_adv, norm)[0] for norm in ("linf", "l2", "l1", "l0")] == [4.0, 5.0, 7.0, 2.0]


def test_a_patch_is_the_box_around_what_changed():
    x = np.zeros((3, 1, 10, 10), np.float32)
    x_adv = x.copy()
    x_adv[0, 0, 2, 3] = x_adv[0, 0, 4, 7] = 1.0  # 3 x 5 of 100
    x_adv[1, 0, 9, 9] = 1.0
    assert sizes(x, x_adv, "patch").tolist() == [0.15, 0.01, 0.0]
    assert sizes(x[:0], x_adv[:0], "patch").tolist() == []
    with pytest.raises(ValueError, match="not images"):
        sizes(np.zeros((1, 4)), np.ones((1, 4)), "patch")


def test_a_warp_is_recognised_and_nothing_else_is(prey):
    x = prey[0][:1]
    told = np.array([0.4, -0.5, 0.0])
    warped = warps.warp(x[0], told[None])
    assert sizes(x, warped, "spatial").tolist() == [0.5]
    assert sizes(x, x, "spatial").tolist() == [0.0]
    warped[0, 0, 10, 10] += 0.01
    assert sizes(x, warped, "spatial").tolist() == [np.inf]
    assert sizes(x, warps.warp(x[0], np.array([[0.41, -0.5, 0.0]])), "spatial").tolist() == [np.inf]


def test_a_warp_by_hand():
    image = np.zeros((28, 28), np.float32)
    image[10, 12] = 1.0
    shifted = warps.warp(image, np.array([[0.0, 1.0, -1.0], [0.0, 0.5, 0.0]]))
    assert np.argwhere(shifted[0] == 1.0).tolist() == [[13, 9]]
    assert shifted[1, 11:13, 12].tolist() == [0.5, 0.5]
    quarter = warps.warp(image, np.array([[3.0, 0.0, 0.0]]))[0]  # 90 degrees about (13.5, 13.5)
    assert quarter.sum() == pytest.approx(1.0, abs=1e-5)
    assert np.unravel_index(quarter.argmax(), quarter.shape) in {(12, 17), (15, 10)}


def test_warping_colour_channels_alike():
    image = np.random.default_rng(0).uniform(size=(3, 12, 10)).astype(np.float32)
    turn = np.array([[0.5, 0.0, 0.5]])
    first = warps.warp(image, turn)[0]
    assert np.allclose(first[1], warps.warp(image[1], turn)[0])
    assert np.allclose(np.moveaxis(first, 0, 2), warps.warp(np.moveaxis(image, 0, 2), turn)[0])


def test_the_lattice_has_the_published_size():
    assert warps.lattice().shape == (775, 3)
    assert np.abs(warps.lattice(0.5)).max() <= 0.5
    assert warps.lattice(0.5).shape == (15 * 9, 3)
    with pytest.raises(ValueError, match="end at eps 1"):
        warps.lattice(1.1)


def test_layouts():
    assert channel_axis((3, 32, 32)) == 0
    assert channel_axis((32, 32, 3)) == 2
    assert channel_axis((3, 32, 3)) == 0
    for shape in ((2, 3, 5, 6), (2, 5, 6, 3), (2, 5, 6)):
        x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        assert planes(x).shape[2:] == (5, 6)
        assert np.array_equal(like(planes(x), x), x)
        assert changed(x).sum() == 2 * 5 * 6 - (shape[-1] != 3 and len(shape) == 3)
