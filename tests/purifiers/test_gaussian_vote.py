import numpy as np
import pytest

from guard.purifiers.gaussian_vote import GaussianVote
from guard.settings import ConfigError, build_stage
from guard.types import Equipment

SECRET = b"s" * 32


def equipped(secret=SECRET, **options):
    return GaussianVote(**options).equip(Equipment(secret=secret))


def test_copies_are_under_gaussian_noise():
    x = np.full((2, 40, 40, 1), 0.5, np.float32)
    copies = equipped(sigma=0.1, samples=5).copies(x)
    assert len(copies) == 5
    noise = np.concatenate([copy - x for copy in copies]).ravel()
    assert abs(noise.mean()) < 0.005
    assert abs(noise.std() - 0.1) < 0.003
    assert abs(np.mean(np.abs(noise) < 0.1) - 0.683) < 0.02
    assert not np.array_equal(copies[0], copies[1])


def test_noise_is_of_the_row_and_the_secret():
    x = np.random.default_rng(0).random((3, 7), dtype=np.float32)
    one, again, other = (equipped(secret).copies(x)[0] for secret in (SECRET, SECRET, b"t" * 32))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(equipped().copies(x[1:2])[0], one[1:2])


def test_votes_by_hand():
    """Row 0: two votes for class 1, one for 0; row 1: one vote each, and the mean answer leans to 2."""
    copies = (
        np.array([[0.4, 0.6, 0.0], [0.9, 0.0, 0.1]]),
        np.array([[0.4, 0.6, 0.0], [0.0, 0.5, 0.5 - 1e-9]]),
        np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    )
    voted = equipped(answer="votes").vote(copies)
    np.testing.assert_allclose(voted[0], [(1 + 0.6) / 4, (2 + 0.4) / 4, 0.0])
    assert voted[1].argmax() == 2
    np.testing.assert_allclose(equipped(answer="mean").vote(copies)[0], [0.6, 0.4, 0.0])


def test_a_majority_outvotes_one_sure_copy():
    sure, unsure = np.array([[1.0, 0.0]]), np.array([[0.49, 0.51]])
    copies = (sure, unsure, unsure)
    assert equipped(answer="votes").vote(copies).argmax() == 1
    assert equipped(answer="mean").vote(copies).argmax() == 0


@pytest.mark.parametrize(
    ("key", "value"), [("sigma", 0), ("sigma", 1.5), ("samples", 0), ("samples", 65), ("answer", 1)]
)
def test_options_out_of_range(key, value):
    with pytest.raises(ConfigError, match=rf"options\.{key}"):
        build_stage("purifier", "gaussian_vote", {key: value})
