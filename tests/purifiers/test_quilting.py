import numpy as np
import pytest

from guard.purifiers import quilting
from guard.purifiers.quilting import Quilting
from guard.settings import ConfigError, build_stage
from guard.types import Equipment, Material


def material(x, seed=0):
    return Material(x.astype(np.float32), None, 2, seed=seed)


def fitted(x, patch=5, **options):
    stage = Quilting(patch=patch, **options)
    return stage.equip(Equipment(arrays=stage.learn(material(x))))


def smooth(n, side=20, channels=1, seed=0):
    """Sums of waves, in [0, 1]."""
    rng = np.random.default_rng(seed)
    at = np.arange(side) / side
    waves = np.sin(at * rng.uniform(2, 9, (n, channels, 1)) + rng.uniform(0, 6, (n, channels, 1)))
    return ((waves[..., None] * waves[..., None, :] + 1) / 2).transpose(0, 2, 3, 1).astype(np.float32)


def test_clean_patterns_stay_and_noise_goes():
    stage, x = fitted(smooth(60)), smooth(4, seed=9)
    noise = np.random.default_rng(1).uniform(-0.1, 0.1, x.shape).astype(np.float32)
    assert np.abs(stage.purify(x) - x).mean() < 0.02
    out = stage.purify(np.clip(x + noise, 0, 1))
    assert np.abs(out - x).mean() < 0.6 * np.abs(noise).mean()


def test_a_bank_of_black_and_white_gives_black_and_white():
    bank = np.zeros((2, 10, 10, 1))
    bank[1] = 1
    x = np.full((1, 10, 10, 1), 0.45, np.float32)
    np.testing.assert_array_equal(fitted(bank).purify(x), np.zeros_like(x))
    np.testing.assert_array_equal(fitted(bank).purify(x + np.float32(0.1)), np.ones_like(x))


def test_overlaps_are_averaged():
    """Patches of 3 begin at 0 and 1 of 4 columns; black, then white: the columns they share are in between."""
    bank = np.zeros((2, 4, 4, 1))
    bank[1] = 1
    x = np.zeros((1, 3, 4, 1), np.float32)
    x[:, :, 1:] = [[0.4], [0.6], [1.0]]  # means: 1/3 of the first patch, 2/3 of the second
    np.testing.assert_allclose(fitted(bank, patch=3).purify(x)[0, 0, :, 0], [0, 0.5, 0.5, 1])


def test_the_search_finds_nearly_the_nearest():
    stage = fitted(smooth(100, channels=3), bank=5000)
    wanted = np.random.default_rng(2).uniform(0, 255, (50, 75)).astype(np.float32)
    near = np.sqrt(((stage.patches[stage._search(wanted)] - wanted) ** 2).sum(axis=1))
    least = np.sqrt(((stage.patches[None] - wanted[:, None]) ** 2).sum(axis=2).min(axis=1))
    assert (near >= least - 0.01).all()
    assert near.mean() <= least.mean() * 1.1


def test_with_all_cells_searched_it_finds_the_nearest(monkeypatch):
    monkeypatch.setattr(quilting, "_PROBES", quilting._PIVOTS)
    stage = fitted(smooth(100), bank=2000)
    wanted = np.random.default_rng(2).uniform(0, 255, (50, 25)).astype(np.float32)
    least = ((stage.patches[None] - wanted[:, None]) ** 2).sum(axis=2).min(axis=1)
    np.testing.assert_allclose(((stage.patches[stage._search(wanted)] - wanted) ** 2).sum(axis=1), least, rtol=1e-4)


def test_the_bank_is_bounded_distinct_and_seeded():
    x = smooth(40)
    arrays = Quilting(patch=5, bank=300).learn(material(x))
    assert arrays["patches"].dtype == np.uint8
    assert arrays["patches"].shape == (300, 25)
    assert len(np.unique(arrays["patches"], axis=0)) == 300
    assert arrays["ends"][-1] == 300
    other = Quilting(patch=5, bank=300).learn(material(x, seed=1))
    assert not np.array_equal(arrays["patches"], other["patches"])


@pytest.mark.parametrize("shape", [(5, 5), (6, 5), (7, 11), (8, 20)])
def test_every_pixel_is_covered(shape):
    bank = np.ones((1, 20, 20, 1))
    out = fitted(bank).purify(np.zeros((2, *shape, 1), np.float32))
    np.testing.assert_array_equal(out, np.ones((2, *shape, 1)))


def test_what_it_cannot_serve_it_refuses():
    with pytest.raises(ValueError, match="images of at least 5 x 5 pixels, not 4 x 9"):
        Quilting(patch=5).learn(material(np.zeros((3, 4, 9, 1))))
    with pytest.raises(ValueError, match="needs images"):
        Quilting().learn(material(np.zeros((3, 9))))
    with pytest.raises(ValueError, match="needs its bank"):
        Quilting().equip(Equipment())
    with pytest.raises(ValueError, match="bank is of 25 values a patch, not 75"):
        fitted(smooth(5)).purify(np.zeros((1, 20, 20, 3), np.float32))


@pytest.mark.parametrize(("side", "values"), [(64, 9), (65, 25)])
def test_patches_suit_the_image(side, values):
    arrays = Quilting(bank=100).learn(material(smooth(2, side)))
    assert arrays["patches"].shape[1] == values
    x = np.zeros((1, side, side, 1), np.float32)
    assert Quilting(bank=100).equip(Equipment(arrays=arrays)).purify(x).shape == x.shape


@pytest.mark.parametrize(("key", "value"), [("patch", 4), ("bank", 99), ("bank", 50_001)])
def test_options_out_of_range(key, value):
    with pytest.raises(ConfigError, match=rf"options\.{key}"):
        build_stage("purifier", "quilting", {key: value})
