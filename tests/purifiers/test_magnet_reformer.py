import numpy as np
import pytest

from guard import networks
from guard.purifiers.magnet_reformer import MagnetReformer
from guard.types import Equipment
from tests import tiny_networks

SHAPE = (4, 5, 1)


def test_it_is_the_autoencoder():
    network = networks.load(tiny_networks.towards_grey(SHAPE, 0.5))
    stage = MagnetReformer().equip(Equipment({"autoencoder": network}))
    np.testing.assert_allclose(stage.purify(np.ones((2, *SHAPE), np.float32)), np.full((2, *SHAPE), 0.75), rtol=1e-6)


@pytest.mark.parametrize(("made", "words"), [(np.zeros((2, 3)), "makes"), (np.full((2, *SHAPE), np.nan), "not finite")])
def test_what_cannot_stand_in_for_the_input_is_refused(made, words):
    stage = MagnetReformer().equip(Equipment({"autoencoder": lambda x: {"x": made}}))
    with pytest.raises(ValueError, match=words):
        stage.purify(np.zeros((2, *SHAPE), np.float32))


def test_outputs_are_cut_to_the_bounds():
    stage = MagnetReformer().equip(Equipment({"autoencoder": lambda x: {"x": x * 4 - 1}}))
    x = np.array([[0.0, 0.3, 1.0]], np.float32)
    np.testing.assert_allclose(stage.purify(x), [[0.0, 0.2, 1.0]], atol=1e-6)


def test_without_a_network_it_says_so():
    with pytest.raises(ValueError, match="needs the profile's autoencoder"):
        MagnetReformer().equip(Equipment())
