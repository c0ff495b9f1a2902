import numpy as np
import pytest

from guard.purifiers.bit_depth import BitDepth
from guard.settings import ConfigError, build_stage


def test_small_steps_vanish_and_levels_stay():
    levels = (np.arange(16, dtype=np.float32) / 15)[None]
    rng = np.random.default_rng(0)
    noisy = np.clip(levels + rng.uniform(-0.033, 0.033, levels.shape).astype(np.float32), 0, 1)
    np.testing.assert_allclose(BitDepth(4).purify(noisy), levels, atol=1e-6)
    assert np.abs(noisy - levels).max() > 0.01


def test_images_and_vectors():
    for shape in ((2, 4, 4, 3), (2, 7)):
        x = np.full(shape, 0.6, dtype=np.float32)
        np.testing.assert_array_equal(BitDepth(1).purify(x), np.ones(shape))


@pytest.mark.parametrize("bits", [0, 9, 1.5])
def test_bits_out_of_range(bits):
    with pytest.raises(ConfigError, match=r"options\.bits"):
        build_stage("purifier", "bit_depth", {"bits": bits})
