"""The shared filters against SciPy and against what can be computed by hand."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from guard import filters

SHAPES = [(2, 28, 28, 1), (3, 32, 32, 3), (1, 5, 9, 2), (2, 1, 4, 1), (1, 1, 1, 3)]


def images(shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [2, 3, 5])
def test_median_is_scipys(shape, size):
    x = images(shape)
    wanted = ndimage.median_filter(x, size=(1, size, size, 1), mode="reflect")
    np.testing.assert_array_equal(filters.median(x, size), wanted)


def test_median_by_hand():
    x = np.array([[0.1, 0.9], [0.5, 0.3]], dtype=np.float32)[None, ..., None]
    # bottom right sees all four: 0.1 0.3 [0.5] 0.9; bottom left sees 0.1 0.1 [0.5] 0.5 by its mirrored edge
    assert filters.median(x, 2)[0, :, :, 0].tolist() == np.array([[0.1, 0.9], [0.5, 0.5]], dtype=np.float32).tolist()


@pytest.mark.parametrize(("bits", "wanted"), [(1, [0, 0, 1, 1]), (2, [0, 1 / 3, 2 / 3, 1])])
def test_bit_depth_by_hand(bits, wanted):
    x = np.array([[0.1, 0.4, 0.6, 0.99]], dtype=np.float32)
    np.testing.assert_allclose(filters.bit_depth(x, bits), [wanted], rtol=1e-6)


def test_bit_depth_of_eight_keeps_eight_bit_images():
    x = (np.arange(256, dtype=np.float32) / 255)[None]
    np.testing.assert_allclose(filters.bit_depth(x, 8), x, rtol=0, atol=1e-7)


@pytest.mark.parametrize("bits", range(1, 9))
def test_bit_depth_ends_where_the_range_ends(bits):
    assert filters.bit_depth(np.array([[0, 1]], dtype=np.float32), bits).tolist() == [[0, 1]]


def test_a_large_batch_is_as_its_rows():
    x = images((3, 224, 224, 3))
    for use in (lambda x: filters.bit_depth(x, 4), lambda x: filters.median(x, 2)):
        np.testing.assert_array_equal(use(x), np.concatenate([use(x[i : i + 1]) for i in range(len(x))]))


def naive_non_local_means(grey, search, patch, strength):
    """Buades et al. 2005 with uniform patches, in float; OpenCV rounds weights and averages."""
    half, around = search // 2, patch // 2
    wide = np.pad(grey.astype(np.float64), half + around, mode="reflect")
    out = np.zeros(grey.shape)
    for i, j in np.ndindex(*grey.shape):
        own = wide[i + half : i + half + patch, j + half : j + half + patch]
        total = weight = 0.0
        for k, m in np.ndindex(search, search):
            other = wide[i + k : i + k + patch, j + m : j + m + patch]
            w = np.exp(-np.mean((own - other) ** 2) / strength**2)
            total, weight = total + w * other[around, around], weight + w
        out[i, j] = total / weight
    return out


def test_non_local_means_is_what_the_words_say():
    rng = np.random.default_rng(3)
    grey = np.clip(np.where(np.arange(16) < 8, 60, 180)[None] + rng.normal(0, 8, (16, 16)), 0, 255).astype(np.uint8)
    got = filters.non_local_means(grey[None, ..., None].astype(np.float32) / 255, 7, 3, 20)[0, ..., 0] * 255
    wanted = naive_non_local_means(grey, 7, 3, 20)
    assert np.abs(got - wanted).mean() < 1.0
    assert np.abs(grey - wanted).mean() > 3.0  # the filter did something, so the line above says something


def test_non_local_means_takes_argument_order_of_the_papers_names():
    x = images((1, 16, 16, 3))
    eight = np.rint(x[0] * 255).astype(np.uint8)
    wanted = cv2.fastNlMeansDenoisingColored(eight, None, h=4, hColor=4, templateWindowSize=3, searchWindowSize=11)
    np.testing.assert_allclose(filters.non_local_means(x, 11, 3, 4)[0] * 255, wanted, atol=1e-4)


def test_jpeg_keeps_channels_apart():
    x = np.zeros((1, 16, 16, 3), dtype=np.float32)
    x[..., 0] = 1.0  # pure red
    back = filters.jpeg(x, 95)
    assert np.abs(back - x).max() < 0.02


def test_jpeg_of_lower_quality_loses_more():
    x = images((2, 32, 32, 1))
    losses = [np.abs(filters.jpeg(x, quality) - x).mean() for quality in (95, 50, 5)]
    assert losses[0] < losses[1] < losses[2]


@pytest.mark.parametrize(
    "use",
    [
        lambda x: filters.median(x, 3),
        lambda x: filters.non_local_means(x, 5, 3, 2),
        lambda x: filters.jpeg(x, 75),
    ],
)
def test_vectors_are_refused(use):
    with pytest.raises(ValueError, match="needs images, not vectors"):
        use(np.zeros((2, 9), dtype=np.float32))


@pytest.mark.parametrize("use", [lambda x: filters.non_local_means(x, 5, 3, 2), lambda x: filters.jpeg(x, 75)])
def test_odd_channels_are_refused(use):
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        use(np.zeros((1, 8, 8, 2), dtype=np.float32))


@pytest.mark.parametrize("shape", [(0, 8, 8, 1), (0, 8, 8, 3)])
def test_no_rows_in_no_rows_out(shape):
    x = np.zeros(shape, dtype=np.float32)
    for use in (
        lambda x: filters.median(x, 2),
        lambda x: filters.median(x, 3),
        lambda x: filters.non_local_means(x, 5, 3, 2),
        lambda x: filters.jpeg(x, 75),
        lambda x: filters.bit_depth(x, 4),
    ):
        assert use(x).shape == shape
