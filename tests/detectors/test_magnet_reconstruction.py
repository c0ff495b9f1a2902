import numpy as np
import pytest

from guard.detectors.magnet_reconstruction import MagnetReconstruction
from guard.types import Detector, Equipment
from tests.detectors.fakes import network, share_above


def working(stage, back):
    return stage.equip(Equipment({"autoencoder": network(x=back)}))


def test_it_scores_inputs_alone():
    assert MagnetReconstruction().needs == ("autoencoder",)
    assert isinstance(working(MagnetReconstruction(), lambda x: x), Detector)


@pytest.mark.parametrize(("norm", "by_hand"), [(1, (0.5 + 0.25) / 4), (2, (0.25 + 0.0625) / 4)])
def test_norms_by_hand(norm, by_hand):
    x = np.array([[0.5, 0.25, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]], np.float32).reshape(2, 2, 2, 1)
    stage = working(MagnetReconstruction(norm=norm), lambda x: np.where(x == 1, x, 0))
    np.testing.assert_allclose(stage.score(x), [by_hand, 0.0])


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match="autoencoder"):
        working(MagnetReconstruction(), lambda x: x[:, :2]).score(np.zeros((1, 4), np.float32))


def test_what_leaves_the_manifold_is_reconstructed_worse():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(64, 4)))[0]
    onto = lambda x: np.clip((x - 0.5) @ basis @ basis.T + 0.5, 0, 1)
    x = (0.5 + 0.3 * rng.uniform(-1, 1, (200, 4)) @ basis.T + 0.01 * rng.normal(size=(200, 64))).astype(np.float32)
    stage = working(MagnetReconstruction(), onto)
    noise = 0.05 * np.sign(rng.normal(size=x.shape)).astype(np.float32)
    along = (noise @ basis @ basis.T).astype(np.float32)
    assert share_above(stage.score(x + noise), stage.score(x)) == 1.0
    assert share_above(stage.score(x + along), stage.score(x)) < 0.2  # control: a change within the manifold
