import numpy as np
import pytest

from guard.outputs.top_k import TopK
from guard.settings import ConfigError, build_stage
from tests.outputs.worlds import every, leads, peaked

ROW = np.array([[0.05, 0.5, 0.15, 0.3]])


@pytest.mark.parametrize(
    ("k", "wanted"),
    [
        (1, [1 / 6, 0.5, 1 / 6, 1 / 6]),
        (2, [0.1, 0.5, 0.1, 0.3]),
        (3, [0.05, 0.5, 0.15, 0.3]),
        (4, [0.05, 0.5, 0.15, 0.3]),
        (9, [0.05, 0.5, 0.15, 0.3]),
    ],
)
def test_by_hand(k, wanted):
    np.testing.assert_allclose(TopK(k).protect(ROW, every(1)), [wanted], atol=1e-12)


def test_the_told_are_bit_equal_and_the_rest_says_nothing():
    probs = peaked(50, 10)
    out = TopK(3).protect(probs, every(50))
    order = np.argsort(-probs, axis=1)
    rows = np.arange(50)[:, None]
    np.testing.assert_array_equal(out[rows, order[:, :3]], probs[rows, order[:, :3]])
    assert (np.ptp(out[rows, order[:, 3:]], axis=1) == 0).all()
    assert (np.ptp(probs[rows, order[:, 3:]], axis=1) > 0).all()  # the control: they said something
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-12)


def test_of_equals_the_first_leads_alone():
    out = TopK(1).protect(np.full((1, 8), 1 / 8), every(1))
    assert leads(out, np.full((1, 8), 1 / 8)).all()
    np.testing.assert_allclose(out, 1 / 8)


def test_k_out_of_range():
    with pytest.raises(ConfigError, match=r"options\.k"):
        build_stage("output", "top_k", {"k": 0})
