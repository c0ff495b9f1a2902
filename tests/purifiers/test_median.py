import numpy as np
import pytest

from guard.purifiers.median import Median
from guard.settings import ConfigError, build_stage


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_lone_pixel_vanishes(size):
    x = np.full((1, 9, 9, 3), 0.25, dtype=np.float32)
    x[0, 4, 4] = 1.0
    np.testing.assert_array_equal(Median(size).purify(x), np.full_like(x, 0.25))


def test_an_edge_stays():
    x = np.zeros((1, 8, 8, 1), dtype=np.float32)
    x[:, :, 4:] = 1.0
    np.testing.assert_array_equal(Median(3).purify(x), x)


@pytest.mark.parametrize("size", [0, 1, 4, 7, "wide"])
def test_sizes_there_are_not(size):
    with pytest.raises(ConfigError, match=r"options\.size"):
        build_stage("purifier", "median", {"size": size})
