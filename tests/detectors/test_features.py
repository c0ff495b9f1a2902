import numpy as np
import pytest
from scipy.spatial import distance

from guard.features import features_of, in_turn, learn_features, squared_distances, whitening_of
from tests.detectors.fakes import material, network


def test_rows_in_turn_are_even_over_classes_and_ascending():
    labels = np.array([0] * 90 + [1] * 9 + [2])
    rows = in_turn(labels, 13, seed=0)
    assert np.bincount(labels[rows]).tolist() == [6, 6, 1]  # 2 runs out, the others go on
    assert (np.diff(rows) > 0).all()
    assert in_turn(labels, 1000, seed=0).tolist() == list(range(100))
    assert in_turn(labels, 13, seed=1).tolist() != rows.tolist()


def test_squared_distances():
    rng = np.random.default_rng(0)
    one, others = rng.normal(size=(4, 5)), rng.normal(size=(7, 5))
    np.testing.assert_allclose(squared_distances(one, others), distance.cdist(one, others, "sqeuclidean"))
    assert (squared_distances(one, one).diagonal() > 0).all()


def test_whitening_is_the_inverse_covariance_where_rows_are_many():
    rng = np.random.default_rng(1)
    truth = np.array([[4.0, 1.0], [1.0, 1.0]])
    rows = rng.multivariate_normal([0, 0], truth, 200_000)
    whitening = whitening_of(rows)
    np.testing.assert_allclose(whitening @ whitening.T, np.linalg.inv(truth), atol=0.01)


def test_whitening_shrinks_where_rows_are_few_as_ledoit_and_wolf_say():
    rows = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    # S = diag(2, .5); mu = 1.25; d2 = .75^2 * 2 = 1.125; (16 + 16 + 1 + 1) / 4 = 8.5, less |S|^2 = 4.25: 4.25, over
    # n = 4: 1.0625; share = 1.0625 / 1.125 = .9444; shrunk = diag(1.25 + .0556 * .75, 1.25 - .0556 * .75)
    whitening = whitening_of(rows)
    shrunk = 1.25 + np.array([1, -1]) * 0.75 * (1 - 1.0625 / 1.125)
    np.testing.assert_allclose(np.diag(whitening @ whitening.T), 1 / shrunk, rtol=1e-5)


def test_whitening_of_features_that_never_vary_is_finite():
    assert np.isfinite(whitening_of(np.zeros((20, 3)))).all()


def test_wide_features_are_projected_and_keep_their_distances():
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(10, 2000)).astype(np.float32)
    aux = network(features=lambda x: x @ weights, logits=lambda x: x[:, :2])
    x = rng.random((40, 10), dtype=np.float32)
    features, _, arrays = learn_features(material(x, networks={"auxiliary": aux}), 40)
    assert features.shape == (40, 512)
    assert arrays["projection"].dtype == np.float32
    np.testing.assert_allclose(features_of(aux, x, arrays), features)
    before, after = distance.pdist(x @ weights), distance.pdist(features)
    np.testing.assert_allclose(after / before, 1, atol=0.2)


def test_labels_come_from_the_auxiliary_where_the_model_gives_labels_only():
    aux = network(features=lambda x: x, logits=lambda x: np.stack([x[:, 0], 1 - x[:, 0]], 1))
    x = np.linspace(0, 1, 20, dtype=np.float32)[:, None]
    _, labels, _ = learn_features(material(x, networks={"auxiliary": aux}), 20)
    np.testing.assert_array_equal(labels, x[:, 0] < 0.5)
    probs = np.eye(2)[np.zeros(20, int)]
    _, labels, _ = learn_features(material(x, networks={"auxiliary": aux}, probs=probs), 20)
    assert labels.sum() == 0


def test_refusals():
    aux = network(features=lambda x: x, logits=lambda x: x)
    with pytest.raises(ValueError, match="at least 16 clean rows"):
        learn_features(material(np.zeros((15, 2)), networks={"auxiliary": aux}), 20)
    with pytest.raises(ValueError, match="no output 'features'"):
        learn_features(material(np.zeros((16, 2)), networks={"auxiliary": network(logits=lambda x: x)}), 20)
