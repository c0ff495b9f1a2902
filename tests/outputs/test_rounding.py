import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from guard.outputs.rounding import Rounding
from guard.settings import ConfigError, build_stage

ALL = np.ones(1, dtype=np.bool_)


@pytest.mark.parametrize(
    ("decimals", "probs", "wanted"),
    [
        (1, [0.34, 0.33, 0.33], [0.4, 0.3, 0.3]),
        (1, [0.36, 0.35, 0.29], [0.4, 0.3, 0.3]),  # 3 3 2 by floor; the first and the last have the largest rests
        (1, [0.29, 0.31, 0.2, 0.2], [0.2, 0.4, 0.2, 0.2]),  # rounding to nearest would tie at 0.3
        (1, [0.25, 0.26, 0.25, 0.24], [0.2, 0.4, 0.2, 0.2]),
        (0, [0.2, 0.5, 0.3], [0, 1, 0]),
        (2, [0.123, 0.456, 0.421], [0.12, 0.46, 0.42]),
        (1, [0.3, 0.1, 0.6], [0.3, 0.1, 0.6]),  # on the grid already, whatever 0.3 is in binary
        (1, [0.5, 0.5], [0.6, 0.4]),  # alone at the top
        (1, [0.5 - 1e-12, 0.5 + 1e-12], [0.4, 0.6]),  # level on the grid, but not in the answer
        (1, [0.4, 0.2, 0.4], [0.5, 0.2, 0.3]),
    ],
)
def test_by_hand(decimals, probs, wanted):
    np.testing.assert_allclose(Rounding(decimals).protect(np.array([probs]), ALL), [wanted], atol=1e-12)


def test_a_thousand_equal_classes():
    out = Rounding(1).protect(np.full((1, 1000), 1e-3), ALL)[0]
    assert out.argmax() == 0
    assert sorted(np.rint(out * 10).astype(int))[-9:] == [1] * 8 + [2]
    assert out.sum() == pytest.approx(1)


def test_untouched_rows_stay_bit_equal():
    probs = np.random.default_rng(0).dirichlet(np.ones(5), 4)
    out = Rounding(1).protect(probs, np.array([False, True, False, True]))
    np.testing.assert_array_equal(out[[0, 2]], probs[[0, 2]])
    assert not np.array_equal(out[[1, 3]], probs[[1, 3]])


@given(
    hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1)).filter(lambda p: p.sum() > 1e-3),
    st.integers(0, 6),
)
def test_on_the_grid_summing_to_one_argmax_kept(weights, decimals):
    probs = (weights / weights.sum())[None]
    out = Rounding(decimals).protect(probs, ALL)
    units = out * 10**decimals
    np.testing.assert_allclose(units, np.rint(units), atol=1e-6)
    assert out.sum() == pytest.approx(1, abs=1e-9)
    assert (out >= 0).all()
    assert out.argmax() == probs.argmax()
    if len(weights) > 1:
        assert np.sort(out[0])[-1] > np.sort(out[0])[-2]


@pytest.mark.parametrize("decimals", [-1, 7])
def test_decimals_out_of_range(decimals):
    with pytest.raises(ConfigError, match=r"options\.decimals"):
        build_stage("output", "rounding", {"decimals": decimals})
