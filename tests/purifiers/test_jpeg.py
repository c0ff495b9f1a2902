import numpy as np
import pytest

from guard.purifiers.jpeg import Jpeg
from guard.settings import ConfigError, build_stage


def test_high_frequencies_go_and_low_ones_stay():
    ramp = np.broadcast_to(np.linspace(0.4, 0.6, 32, dtype=np.float32)[None, :, None], (32, 32, 3))[None].copy()
    checks = (np.indices((32, 32)).sum(axis=0) % 2 * 0.04 - 0.02).astype(np.float32)[None, ..., None]
    attacked = ramp + checks
    purified = Jpeg(50).purify(attacked)
    assert np.abs(purified - ramp).mean() < 0.5 * np.abs(attacked - ramp).mean()


def test_images_of_two_channels_are_refused():
    with pytest.raises(ValueError, match="1 or 3 channels"):
        Jpeg().purify(np.zeros((1, 8, 8, 2), dtype=np.float32))


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_out_of_range(quality):
    with pytest.raises(ConfigError, match=r"options\.quality"):
        build_stage("purifier", "jpeg", {"quality": quality})
