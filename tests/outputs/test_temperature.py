import numpy as np
import pytest

from guard.outputs.temperature import Temperature
from guard.settings import ConfigError, build_stage
from tests.outputs.worlds import every, leads, peaked, softmax


@pytest.mark.parametrize("t", [0.01, 0.5, 1.0, 3.0, 100.0])
def test_it_is_the_softmax_of_scaled_logits(t):
    logits = np.random.default_rng(0).normal(size=(20, 7)) * 3
    out = Temperature(t).protect(softmax(logits), every(20))
    np.testing.assert_allclose(out, softmax(logits / t), rtol=1e-6, atol=1e-12)


def test_by_hand():
    out = Temperature(2.0).protect(np.array([[0.64, 0.36]]), every(1))
    np.testing.assert_allclose(out, [[0.8 / 1.4, 0.6 / 1.4]])


def test_certainty_stays_certain():
    one_hot = np.eye(4)
    np.testing.assert_array_equal(Temperature(100.0).protect(one_hot, every(4)), one_hot)


@pytest.mark.parametrize("t", [0.01, 100.0])
def test_the_top_stays_alone(t):
    close = np.array([[0.3, 0.3 + 1e-16, 0.4 - 1e-16], [0.25, 0.5 - 1e-15, 0.25 + 1e-15]])
    probs = np.concatenate([peaked(40, 3), close])
    assert leads(Temperature(t).protect(probs, every(len(probs))), probs).all()


def test_temperatures_that_are_none():
    for t in (0, -1, 101):
        with pytest.raises(ConfigError, match=r"options\.temperature"):
            build_stage("output", "temperature", {"temperature": t})
