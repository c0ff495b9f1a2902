import numpy as np
import pytest
from scipy import fft

from adversary.bases import cosines, enlarged, enlargement, low_frequencies


@pytest.mark.parametrize("n", [1, 2, 7, 28])
def test_cosines_are_scipys_orthonormal_dct(n):
    basis = cosines(n)
    assert np.allclose(basis.T @ basis, np.eye(n))
    x = np.random.default_rng(0).standard_normal(n)
    assert np.allclose(basis.T @ x, fft.dct(x, norm="ortho"))


def test_low_frequencies_lift_what_the_inverse_dct_gives():
    subspace = low_frequencies(8, 6, 0.5)
    assert subspace.small == (4, 3)
    z = np.random.default_rng(0).standard_normal((2, 3, 4, 3))
    padded = np.zeros((2, 3, 8, 6))
    padded[..., :4, :3] = z
    assert np.allclose(subspace.lift(z), fft.idctn(padded, axes=(2, 3), norm="ortho"))


def test_enlargement_interpolates_between_centres():
    assert enlargement(4, 2).tolist() == [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    assert enlargement(3, 1).tolist() == [[1.0]] * 3
    assert np.allclose(enlargement(28, 7).sum(axis=1), 1.0)
    assert np.array_equal(enlargement(5, 5), np.eye(5))


def test_enlarged_images_are_as_large_as_told():
    subspace = enlarged(28, 20, 0.25)
    assert subspace.small == (7, 5)
    assert subspace.lift(np.ones((3, 7, 5))).shape == (3, 28, 20)
    assert np.allclose(subspace.lift(np.ones((7, 5))), 1.0)


def test_a_subspace_has_at_least_one_dimension():
    assert low_frequencies(2, 2, 0.1).small == (1, 1)
