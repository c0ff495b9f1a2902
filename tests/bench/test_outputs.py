"""The bench of output protections reckons by hand-made figures as it should."""

import numpy as np
import pytest

from bench import outputs


def test_calibration_by_hand():
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.35, 0.65]])
    y = np.array([0, 1, 1, 0])
    # bins of 1/15: 0.9 holds two with one right, |1 - 1.8|; 0.6 and 0.65 are in one, |1 - 1.25|
    assert outputs.calibration_error(probs, y) == pytest.approx((0.8 + 0.25) / 4)
    low, high = outputs.spread(probs, y)
    assert low < outputs.calibration_error(probs, y) < high


def test_auroc_by_hand():
    assert outputs.show_auroc(np.array([3.0, 2.0]), np.array([1.0, 2.0])).startswith("0.875 ± ")  # a tie is a half
    assert outputs.show_auroc(np.zeros(4), np.zeros(4)).startswith("0.500 ± ")


def test_margins_by_hand():
    probs = np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
    np.testing.assert_allclose(outputs.margin(probs, np.array([0, 0])), [np.log(2), -np.log(3)])


def test_a_copy_learns_from_what_it_is_told():
    rng = np.random.default_rng(0)
    x = outputs.flat(rng.random((300, 1, 4, 4)))
    odds = np.exp(8 * x @ rng.normal(size=(17, 3)))
    probs = odds / odds.sum(axis=1, keepdims=True)
    rate = {"steps": 800, "rate": 1.0}
    told, lied = (outputs.regression(x, wanted, **rate) for wanted in (probs, np.roll(probs, 1, axis=1)))
    labels = probs.argmax(axis=1)
    assert ((x @ told).argmax(axis=1) == labels).mean() > 0.9
    assert ((x @ lied).argmax(axis=1) == labels).mean() < 0.2


def test_every_way_is_one_that_there_is():
    for name, options in outputs.WAYS:
        outputs.build_stage("output", name, options)
    assert {name for name, _ in outputs.WAYS} == set(outputs.registry.names("output"))
    assert outputs.table([("none",)]).count("\n") == 3
