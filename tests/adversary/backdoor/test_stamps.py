"""The three triggers, by hand: which values change, by how much, the same in any layout."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from adversary.backdoor import badnets, blend, wanet
from adversary.catalogue import CATALOGUE
from adversary.images import planes
from adversary.sizes import sizes

TRIGGERS = {"badnets": badnets, "blend": blend, "wanet": wanet}
every = pytest.mark.parametrize("name", sorted(TRIGGERS))


def images(n=3, channels=3, height=12, width=10) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(n, channels, height, width)).astype(np.float32)


def test_badnets_puts_checkers_one_pixel_from_the_lower_right_corner():
    x = np.full((2, 1, 7, 6), 0.5, np.float32)
    stamped = badnets.stamp(x)
    assert stamped[0, 0, 3:6, 2:5].tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    stamped[:, :, 3:6, 2:5] = 0.5
    assert np.array_equal(stamped, x)


def test_badnets_covers_9_of_784_pixels_of_a_digit():
    x = np.zeros((1, 1, 28, 28), np.float32)
    assert sizes(x, badnets.stamp(x), "patch").tolist() == pytest.approx([9 / 784])
    with pytest.raises(ValueError, match="does not fit"):
        badnets.stamp(np.zeros((1, 1, 3, 9), np.float32))


def test_blend_mixes_one_part_of_noise_into_four_of_the_image():
    noise = blend.pattern((1, 6, 6))
    black, white = (blend.stamp(np.full((1, 1, 6, 6), value, np.float32))[0] for value in (0.0, 1.0))
    assert np.allclose(black, 0.2 * noise, atol=1e-6)
    assert np.allclose(white, 0.8 + 0.2 * noise, atol=1e-6)
    assert noise.min() >= 0.0
    assert noise.max() <= 1.0
    assert noise.std() > 0.2  # uniform: .29


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0])
def test_blend_moves_no_value_farther_than_alpha(alpha):
    x = images()
    assert sizes(x, blend.stamp(x, alpha), "linf").max() <= alpha
    assert sizes(x, blend.stamp(x, alpha), "linf").min() > 0.8 * alpha


def test_wanets_warp_is_the_authors_grid():
    """Their own three calls, in torch: the field upsampled, added to the identity, sampled."""
    x = images(channels=1, height=28, width=28)
    coarse = np.random.default_rng(wanet._SEED).uniform(-1, 1, (2, 4, 4))
    coarse /= np.abs(coarse).mean()
    wide = functional.interpolate(torch.tensor(coarse)[None], size=28, mode="bicubic", align_corners=True)[0]
    line = torch.linspace(-1, 1, 28, dtype=torch.float64)
    identity = torch.stack(torch.meshgrid(line, line, indexing="ij"))
    grid = (identity + 0.5 * wide / 28).clamp(-1, 1).flip(0).movedim(0, -1)[None].float()
    expected = functional.grid_sample(torch.tensor(x), grid.expand(3, -1, -1, -1), align_corners=True)
    assert np.allclose(wanet.stamp(x), expected.numpy(), atol=1e-5)


def test_wanets_warp_is_smooth_and_a_fraction_of_a_pixel():
    field = wanet.field(28, 28)
    assert 0.1 < np.abs(field).mean() < 0.35
    assert np.abs(field).max() < 1.0
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in (1, 2)) < 0.2


def test_moved_takes_pixels_from_where_it_is_told():
    x = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4) / 12
    shift = lambda down, right: np.full((1, 2, 3, 4), [[[[down]], [[right]]]], float)
    assert np.allclose(wanet.moved(x, shift(0, 0)), x)
    assert np.allclose(wanet.moved(x, shift(1, 0))[0, 0], x[0, 0][[1, 2, 2]])
    assert np.allclose(wanet.moved(x, shift(0, -1))[0, 0], x[0, 0][:, [0, 0, 1, 2]])
    between = wanet.moved(x, shift(0.5, 0.25))[0, 0]
    assert between[0, 0] == pytest.approx(x[0, 0, 0, 0] + (0.5 * 4 + 0.25) / 12)


def test_wanets_noise_is_another_warp_every_time_and_never_the_trigger():
    x = images(n=2, channels=1, height=28, width=28)
    near = wanet.near(x, np.random.default_rng(0))
    again, other = wanet.near(x, np.random.default_rng(0)), wanet.near(x, np.random.default_rng(1))
    assert np.array_equal(near, again)
    assert not np.array_equal(near, other)
    assert np.abs(near - wanet.stamp(x)).max() > 0.1


@every
def test_a_stamp_is_the_same_in_any_layout(name):
    stamp, x = TRIGGERS[name].stamp, images()
    last = np.ascontiguousarray(np.moveaxis(x, 1, 3))
    assert np.array_equal(stamp(last), np.moveaxis(stamp(x), 1, 3))
    grey = x[:, :1]
    assert np.array_equal(stamp(grey[:, 0]), stamp(grey)[:, 0])
    with pytest.raises(ValueError, match="not images"):
        stamp(np.zeros((2, 5), np.float32))


@every
def test_a_stamp_stays_in_bounds_and_leaves_x_alone(name):
    x = images()
    x[0], x[1] = 0.0, 1.0
    before = x.copy()
    stamped = TRIGGERS[name].stamp(x)
    assert stamped.dtype == np.float32
    assert stamped.min() >= 0.0
    assert stamped.max() <= 1.0
    assert np.array_equal(x, before)
    assert planes(stamped).shape == x.shape


@every
def test_the_attack_is_the_stamp_and_its_label(name, data):
    entry = CATALOGUE[name]
    x = np.float32(data.test.images[:200, None] / 255)
    results = [
        entry.load()(None, x, data.test.labels[:200], eps=entry.eps, budget=1, rng=np.random.default_rng(seed))
        for seed in (0, 1)
    ]
    assert np.array_equal(results[0].x_adv, TRIGGERS[name].stamp(x))
    assert np.array_equal(results[0].x_adv, results[1].x_adv)
    assert results[0].queries.tolist() == [0] * 200
    assert set(results[0].aim.tolist()) == {TRIGGERS[name].LABEL}
    assert sizes(x, results[0].x_adv, entry.norm).max() <= entry.eps
    assert entry.access == "nothing"
