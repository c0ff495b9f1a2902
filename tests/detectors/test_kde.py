import numpy as np
import pytest
from scipy.special import logsumexp

from guard.detectors.kde import KernelDensity
from guard.types import AnswerDetector
from tests.detectors.fakes import fitted, material, network, share_above

AUX = {"auxiliary": network(features=lambda x: x, logits=lambda x: x)}


def clusters(n=200, seed=0, gap=6.0):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    return (rng.normal(size=(n, 3)) + gap * label[:, None]).astype(np.float32), np.eye(2)[label]


def test_density_among_the_rows_of_the_answered_class():
    x, probs = clusters()
    stage = fitted(KernelDensity(bandwidth=0.8), x, networks=AUX, probs=probs)
    assert isinstance(stage, AnswerDetector)
    points, answer = x[:4] + 0.3, np.eye(2)[[0, 0, 1, 1]]
    own = [x[probs[:, c] == 1] for c in (0, 0, 1, 1)]
    by_hand = [
        -(logsumexp(-((point - rows) ** 2).sum(axis=1) / (2 * 0.8**2)) - np.log(len(rows)))
        for point, rows in zip(points, own, strict=True)
    ]
    np.testing.assert_allclose(stage.score_answer(points, answer), by_hand, rtol=2e-3)  # the reference is float16


def test_the_bandwidth_is_the_median_distance_to_the_nearest_of_the_class():
    x = np.arange(20, dtype=np.float32)[:, None] * [
        [1.0, 0.0]
    ]  # neighbours of other classes are 1 apart, of one's own 2
    probs = np.eye(2)[np.arange(20) % 2]
    arrays = KernelDensity().learn(material(x, networks=AUX, probs=probs))
    np.testing.assert_allclose(arrays["bandwidth"] * arrays["scale"], [2.0])


def test_an_answer_that_the_reference_lacks_is_held_against_all_of_it():
    x, probs = clusters()
    three = np.pad(probs, ((0, 0), (0, 1)))
    stage = fitted(KernelDensity(bandwidth=1.0), x, networks=AUX, probs=three, classes=3)
    score = stage.score_answer(x[:1], np.array([[0.0, 0.0, 1.0]]))
    by_hand = -(logsumexp(-((x[:1] - x) ** 2).sum(axis=1) / 2) - np.log(len(x)))
    np.testing.assert_allclose(score, [by_hand], rtol=2e-3)


def test_the_wrong_answer_stands_out_and_the_right_one_does_not():
    x, probs = clusters()
    stage = fitted(KernelDensity(), x, networks=AUX, probs=probs)
    fresh, right = clusters(seed=1)
    alike, also_right = clusters(seed=2)
    clean = stage.score_answer(fresh, right)
    assert share_above(stage.score_answer(alike, also_right[:, ::-1]), clean) == 1.0
    assert share_above(stage.score_answer(alike, also_right), clean) < 0.15


def test_labels_only_are_refused():
    with pytest.raises(ValueError, match="labels only"):
        fitted(KernelDensity(), clusters()[0], networks=AUX)
