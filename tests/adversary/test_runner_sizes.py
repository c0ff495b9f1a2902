"""The judge's test of size, for each unit an attack may be bound by."""

import numpy as np
import pytest

from adversary import runner, warps
from adversary.catalogue import CATALOGUE
from adversary.oracle import Endpoint, Oracle
from tests.adversary.tiny import Tiny, serving


def corner(x):
    """Class 1 where the upper left pixel is lit."""
    lit = x[:, 0, 0, 0]
    return np.stack([0.5 - lit, lit], axis=1)


@pytest.fixture
def oracle():
    with serving(Tiny(corner, shape=(-1, 1, 28, 28))) as tiny, Oracle(Endpoint(tiny.address, "tiny"), 100) as oracle:
        yield oracle


X = np.zeros((1, 1, 28, 28), np.float32)
X[0, 0, 3, 3] = 1.0


def judge(oracle, name, x_adv, eps):
    zero = np.zeros(1, np.int64)
    outcome = runner.judge(CATALOGUE[name], oracle, X, zero, x_adv=x_adv, eps=eps, queries=zero)
    assert outcome.adversarial.tolist() == [1]
    return bool(outcome.success[0]), float(outcome.size[0])


def lit(*pixels, by=1.0):
    x_adv = X.copy()
    for row, column in ((0, 0), *pixels):
        x_adv[0, 0, row, column] = by
    return x_adv


@pytest.mark.parametrize(
    ("name", "x_adv", "size"),
    [
        ("jsma", lit((7, 7)), 2.0),
        ("one-pixel", lit(), 1.0),
        ("ead", lit((5, 5), by=0.75), 1.5),
        ("patch", lit((2, 6)), 3 * 7 / 784),
        ("spatial-transform", warps.warp(X[0], np.array([[0.0, -1.0, -1.0]])), 1.0),
    ],
)
def test_size_within_eps_is_success_and_past_it_is_none(oracle, name, x_adv, size):
    assert judge(oracle, name, x_adv, size) == (True, pytest.approx(size))
    assert judge(oracle, name, x_adv, 0.9 * size)[0] is False


def test_what_no_warp_explains_is_no_spatial_success(oracle):
    assert judge(oracle, "spatial-transform", lit(), 1.0) == (False, np.inf)
