import numpy as np
import pytest
from scipy.spatial import distance

from guard.detectors.mahalanobis import Mahalanobis
from guard.features import whitening_of
from guard.types import Detector
from tests.detectors.fakes import fitted, material, network, share_above

AUX = {"auxiliary": network(features=lambda x: x, logits=lambda x: x)}


def clusters(n=300, seed=0):
    """Two classes, long in one direction, 10 apart in the other."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    return rng.normal(size=(n, 2)) * [2.0, 0.5] + np.stack([0 * label, 10 * label], 1), np.eye(2)[label]


def test_distance_to_the_nearest_class_against_scipy():
    x, probs = clusters()
    stage = fitted(Mahalanobis(), x, networks=AUX, probs=probs)
    assert isinstance(stage, Detector)
    means = [x[probs[:, c] == 1].mean(axis=0) for c in (0, 1)]
    whitening = whitening_of(x - np.array(means)[probs.argmax(1)])
    inverse = whitening @ whitening.T
    points = np.array([[0.0, 0.0], [3.0, 9.0], [0.0, 5.0]], np.float32)
    nearest = [min(distance.mahalanobis(p, m, inverse) ** 2 for m in means) for p in points]
    np.testing.assert_allclose(stage.score(points), nearest, rtol=1e-4)


def test_relative_takes_the_distance_to_everything_away():
    x, probs = clusters()
    points = np.array([[0.0, 0.0], [0.0, 5.0], [30.0, 0.0]], np.float32)
    plain, relative = (fitted(Mahalanobis(relative=r), x, networks=AUX, probs=probs) for r in (False, True))
    whole = whitening_of(x - x.mean(axis=0))
    background = (((points - x.mean(axis=0)) @ whole) ** 2).sum(axis=1)
    np.testing.assert_allclose(relative.score(points), plain.score(points) - background, rtol=1e-3)


def test_between_classes_and_outside_them_stands_out():
    x, probs = clusters()
    stage = fitted(Mahalanobis(), x, networks=AUX, probs=probs)
    fresh, _ = clusters(seed=1)
    rng = np.random.default_rng(2)
    between = rng.normal(size=(100, 2)) * [2.0, 0.5] + [0, 5]
    assert share_above(stage.score(between.astype(np.float32)), stage.score(fresh.astype(np.float32))) == 1.0
    alike, _ = clusters(seed=3)  # control
    assert share_above(stage.score(alike.astype(np.float32)), stage.score(fresh.astype(np.float32))) < 0.15


def test_what_it_learns_is_small_and_plain():
    x, probs = clusters()
    arrays = Mahalanobis(relative=True).learn(material(x, networks=AUX, probs=probs))
    assert {name: array.shape for name, array in arrays.items()} == {
        "means": (2, 2), "whitening": (2, 2), "middle": (1, 2), "whitening_of_all": (2, 2)
    }  # fmt: skip
    assert all(array.dtype == np.float32 for array in arrays.values())


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="clean rows"):
        fitted(Mahalanobis(), np.zeros((3, 2)), networks=AUX)
