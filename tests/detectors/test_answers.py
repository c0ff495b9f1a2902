import numpy as np
from scipy import special, stats
from scipy.spatial import distance

from guard.detectors._answers import entropy, jensen_shannon, l1, log_of, log_softmax


def answers(seed, n=20, classes=6):
    return np.random.default_rng(seed).dirichlet(np.ones(classes), n)


def test_entropy_in_bits():
    p = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(entropy(p), [1.5, 0.0], atol=1e-12)  # .5 * 1 + .25 * 2 + .25 * 2
    np.testing.assert_allclose(entropy(answers(0)), stats.entropy(answers(0), base=2, axis=1))


def test_jensen_shannon_against_scipy_and_its_bounds():
    one, other = answers(1), answers(2)
    expected = distance.jensenshannon(one, other, axis=1) ** 2
    np.testing.assert_allclose(jensen_shannon(log_of(one), log_of(other)), expected)
    assert jensen_shannon(log_of(one), log_of(one)).max() <= 1e-12
    certain = log_of(np.eye(2))
    np.testing.assert_allclose(jensen_shannon(certain, certain[::-1]), np.log(2), rtol=1e-6)


def test_a_temperature_takes_probabilities_for_logits():
    logits = np.random.default_rng(3).normal(0, 5, (10, 4))
    p = special.softmax(logits, axis=1)
    np.testing.assert_allclose(log_softmax(log_of(p), 10), special.log_softmax(logits / 10, axis=1))


def test_l1():
    np.testing.assert_allclose(l1(np.array([[0.75, 0.25]]), np.array([[0.25, 0.75]])), [1.0])
