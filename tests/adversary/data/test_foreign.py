import numpy as np
import pytest

from adversary.data import foreign

GREY = np.array([[[0, 255], [255, 0]]], np.uint8)
RED = np.zeros((1, 2, 2, 3), np.uint8)
RED[..., 0] = 255


def test_grey_into_each_layout():
    assert foreign.fit(GREY, (2, 2)).tolist() == [[[0.0, 1.0], [1.0, 0.0]]]
    for shape in ((3, 2, 2), (1, 2, 2)):
        made = foreign.fit(GREY, shape)
        assert made.shape == (1, *shape)
        assert (made == GREY[:, None] / 255).all()
    assert (foreign.fit(GREY, (2, 2, 3)) == GREY[..., None] / 255).all()


def test_colour_into_grey_is_luma():
    assert foreign.fit(RED, (1, 2, 2)).tolist() == [[[[pytest.approx(0.299)] * 2] * 2]]
    assert foreign.fit(RED, (3, 2, 2))[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]


def test_shrinking_averages_and_growing_stays_within():
    assert foreign.fit(GREY, (1, 1, 1)).tolist() == [[[[0.5]]]]
    grown = foreign.fit(GREY, (1, 8, 8))
    assert grown.shape == (1, 1, 8, 8)
    assert (grown.min(), grown.max()) == (0.0, 1.0)


def test_vectors_are_no_images():
    with pytest.raises(ValueError, match="not images"):
        foreign.fit(GREY, (4,))
