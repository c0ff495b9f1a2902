import numpy as np
import pytest

from guard.detectors.magnet_divergence import MagnetDivergence
from guard.types import Equipment, ViewDetector
from tests.detectors.fakes import network, share_above, softmax


def working(stage, back):
    return stage.equip(Equipment({"autoencoder": network(x=back)}))


def test_its_view_is_the_reconstruction():
    stage = working(MagnetDivergence(), lambda x: x / 2)
    assert isinstance(stage, ViewDetector)
    (view,) = stage.views(np.array([[0.5, 1.0]], np.float32))
    assert view.tolist() == [[0.25, 0.5]]


def test_divergence_by_hand():
    one, other = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    middle = np.array([0.7, 0.3])
    by_hand = sum((p * np.log(p / middle)).sum() for p in (one[0], other[0])) / 2
    stage = working(MagnetDivergence(temperature=1.0), lambda x: x)
    np.testing.assert_allclose(stage.score_views(one, (other,)), [by_hand])


def test_temperatures_soften_as_softmax_of_logits_over_t():
    logits = np.random.default_rng(0).normal(0, 8, (2, 5, 10))
    sharp = [softmax(rows) for rows in logits]
    soft = [softmax(rows / 40) for rows in logits]
    at_40 = working(MagnetDivergence(temperature=40.0), lambda x: x).score_views(sharp[0], (sharp[1],))
    at_1 = working(MagnetDivergence(temperature=1.0), lambda x: x).score_views(soft[0], (soft[1],))
    np.testing.assert_allclose(at_40, at_1)


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match="autoencoder"):
        working(MagnetDivergence(), lambda x: x[:, :2]).views(np.zeros((1, 4), np.float32))


def test_answers_move_where_the_autoencoder_takes_a_perturbation_away():
    rng = np.random.default_rng(1)
    basis, w = np.linalg.qr(rng.normal(size=(64, 4)))[0], rng.normal(size=64)
    model = lambda x: softmax(np.stack([-(x - 0.5) @ w, (x - 0.5) @ w], 1))
    stage = working(MagnetDivergence(), lambda x: np.clip((x - 0.5) @ basis @ basis.T + 0.5, 0, 1))
    x = (0.5 + 0.3 * rng.uniform(-1, 1, (200, 4)) @ basis.T + 0.01 * rng.normal(size=(200, 64))).astype(np.float32)
    score = lambda rows: stage.score_views(model(rows), tuple(model(view) for view in stage.views(rows)))
    attack = (0.05 * np.sign(w)).astype(np.float32)
    assert share_above(score(x + attack), score(x)) == 1.0
    control = (0.05 * np.sign(rng.normal(size=x.shape))).astype(np.float32)
    assert share_above(score(x + control), score(x)) < 0.9
