import numpy as np

from guard.detectors._odds import learn_odds, log_odds


def test_odds_of_two_gaussians_are_their_likelihood_ratio():
    rng = np.random.default_rng(0)
    clean, other = rng.normal(0, 1, (60_000, 1)), rng.normal(2, 1, (20_000, 1))
    arrays = learn_odds(clean, other)
    x = np.array([[-1.0], [0.0], [1.0], [2.0], [3.0]])
    # ln N(x; 2, 1) - ln N(x; 0, 1) = 2x - 2, whatever the counts
    np.testing.assert_allclose(log_odds(x, arrays), 2 * x[:, 0] - 2, atol=0.3)  # the ridge bends the ends


def test_products_tell_what_no_line_does():
    rng = np.random.default_rng(1)
    clean, other = rng.normal(0, 1, (5000, 2)), rng.normal(0, 3, (5000, 2))
    odds = log_odds(np.array([[0.0, 0.0], [4.0, 4.0], [-4.0, 4.0], [4.0, -4.0]]), learn_odds(clean, other))
    assert odds[0] < 0
    assert (odds[1:] > 0).all()


def test_beyond_the_examples_nothing_grows():
    rng = np.random.default_rng(2)
    arrays = learn_odds(rng.uniform(0, 1, (100, 1)), rng.uniform(2, 3, (100, 1)))
    far = log_odds(np.array([[arrays["high"][0]], [1e9]]), arrays)
    assert far[0] == far[1]
    assert np.isfinite(far).all()


def test_features_that_never_vary_are_finite():
    odds = log_odds(np.ones((3, 2)), learn_odds(np.ones((20, 2)), np.ones((20, 2))))
    np.testing.assert_allclose(odds, 0, atol=1e-9)
