import numpy as np
import pytest

from guard import networks
from guard.purifiers.learned_denoiser import LearnedDenoiser
from guard.types import Equipment
from tests import tiny_networks


@pytest.mark.parametrize("shape", [(4, 5, 3), (7,)])
def test_it_is_the_denoiser(shape):
    network = networks.load(tiny_networks.towards_grey(shape, 0.25))
    stage = LearnedDenoiser().equip(Equipment({"denoiser": network}))
    np.testing.assert_allclose(stage.purify(np.zeros((3, *shape), np.float32)), np.full((3, *shape), 0.125), rtol=1e-6)


def test_without_a_network_it_says_so():
    with pytest.raises(ValueError, match="needs the profile's denoiser"):
        LearnedDenoiser().equip(Equipment({"autoencoder": lambda x: {"x": x}}))
