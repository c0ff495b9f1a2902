import numpy as np
import pytest

from guard.detectors.lid import LocalIntrinsicDimensionality, lid
from guard.types import Detector
from tests.detectors.fakes import fitted, material, network, share_above

AUX = {"auxiliary": network(features=lambda x: x, logits=lambda x: x)}


def test_estimate_by_hand():
    distances = np.array([[1.0, 2.0, 4.0]])
    # -(1/3 (ln 1/4 + ln 2/4 + ln 4/4))^-1 = 3 / (ln 4 + ln 2)
    np.testing.assert_allclose(lid(distances**2), [3 / np.log(8)])


def test_neighbours_at_one_distance_are_bounded():
    np.testing.assert_allclose(lid(np.ones((1, 5))), [1e6])


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_it_finds_the_dimension_of_a_cube(dimension):
    x = np.random.default_rng(0).random((2000, dimension))
    stage = fitted(LocalIntrinsicDimensionality(neighbours=50), x, networks=AUX)
    middle = 0.3 + 0.4 * np.random.default_rng(1).random((200, dimension), dtype=np.float32)
    assert isinstance(stage, Detector)
    np.testing.assert_allclose(np.median(stage.score(middle)), dimension, rtol=0.12)


def test_off_the_manifold_the_dimension_is_higher():
    rng = np.random.default_rng(2)
    plane = lambda n: np.concatenate([rng.random((n, 2)), np.full((n, 6), 0.5)], axis=1).astype(np.float32)
    stage = fitted(LocalIntrinsicDimensionality(), plane(2000), networks=AUX)
    fresh, moved = plane(200), plane(200)
    moved[:, 2:] += 0.2 * rng.choice([-1, 1], (200, 6))
    assert share_above(stage.score(moved), stage.score(fresh)) > 0.95
    control = fresh.copy()
    control[:, :2] = control[:, 1::-1]  # moved as far, within the plane
    assert share_above(stage.score(control), stage.score(fresh)) < 0.15


def test_the_reference_is_bounded_and_small():
    x = np.random.default_rng(3).random((500, 4)) * 1e6  # more than float16 holds
    arrays = LocalIntrinsicDimensionality(rows=100).learn(material(x, networks=AUX))
    assert arrays["reference"].shape == (100, 4)
    assert arrays["reference"].dtype == np.float16
    assert np.abs(arrays["reference"]).max() == 1


def test_fewer_rows_than_neighbours_are_refused():
    with pytest.raises(ValueError, match="20 neighbours need as many clean rows, and there are 18"):
        fitted(LocalIntrinsicDimensionality(), np.random.default_rng(0).random((18, 2)), networks=AUX)
