import numpy as np
import pytest
from scipy import ndimage

from guard.detectors.feature_squeezing import FeatureSqueezing
from guard.settings import ConfigError, build_stage
from guard.types import ViewDetector


def test_it_is_a_view_detector():
    assert isinstance(FeatureSqueezing(), ViewDetector)


def test_score_is_the_largest_l1_gap():
    probs = np.array([[0.9, 0.1], [0.5, 0.5]])
    near = np.array([[0.8, 0.2], [0.5, 0.5]])
    far = np.array([[0.0, 1.0], [0.5, 0.5]])
    # row 0: |.9-.8|+|.1-.2| = .2 and |.9-0|+|.1-1| = 1.8; row 1: nothing moved
    np.testing.assert_allclose(FeatureSqueezing().score_views(probs, (near, far)), [1.8, 0.0])


def test_score_spans_zero_to_two():
    certain, opposite = np.eye(2)[:1], np.eye(2)[1:]
    assert FeatureSqueezing().score_views(certain, (opposite,)).tolist() == [2.0]


def test_usual_squeezers_of_grey_images_are_the_papers_for_mnist():
    x = np.random.default_rng(0).random((2, 28, 28, 1), dtype=np.float32)
    bits, median = FeatureSqueezing().views(x)
    np.testing.assert_array_equal(bits, np.rint(x))
    np.testing.assert_array_equal(median, ndimage.median_filter(x, size=(1, 2, 2, 1), mode="reflect"))


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        ((28, 28, 1), ("bit_depth_1", "median_2")),
        ((32, 32, 3), ("bit_depth_5", "median_2", "non_local_means_13_3_2")),
        ((64, 64, 3), ("bit_depth_5", "median_2", "non_local_means_13_3_2")),
        ((65, 64, 3), ("bit_depth_5", "median_2", "non_local_means_11_3_4")),
        ((16, 16, 4), ("bit_depth_5", "median_2")),
    ],
)
def test_usual_squeezers_by_shape(shape, named):
    x = np.random.default_rng(1).random((1, *shape), dtype=np.float32)
    usual, spelt = FeatureSqueezing().views(x), FeatureSqueezing(squeezers=named).views(x)
    assert len(usual) == len(spelt) == len(named)
    for one, other in zip(usual, spelt, strict=True):
        np.testing.assert_array_equal(one, other)


def test_vectors_need_named_squeezers():
    x = np.array([[0.2, 0.9]], dtype=np.float32)
    with pytest.raises(ValueError, match="need images"):
        FeatureSqueezing().views(x)
    assert FeatureSqueezing(squeezers=("bit_depth_1",)).views(x)[0].tolist() == [[0.0, 1.0]]
    needs = [FeatureSqueezing(named).needs_images for named in ((), ("bit_depth_1",), ("bit_depth_1", "median_2"))]
    assert needs == [True, False, True]


@pytest.mark.parametrize(
    "name",
    [
        "bit_depth_0",
        "bit_depth_9",
        "bit_depth_",
        "bit_depth_1_2",
        "median_4",
        "median_2_2",
        "non_local_means_12_3_2",
        "non_local_means_13_2_2",
        "non_local_means_13_3_0",
        "non_local_means_13_3_256",
        "non_local_means_13_3",
        "wavelet_3",
        "",
    ],
)
def test_names_that_are_no_squeezer(name):
    with pytest.raises(ConfigError, match="is not a squeezer"):
        build_stage("detector", "feature_squeezing", {"squeezers": [name]})


def test_a_squeezer_listed_twice_or_too_many():
    with pytest.raises(ConfigError, match="twice"):
        build_stage("detector", "feature_squeezing", {"squeezers": ["median_2", "median_2"]})
    with pytest.raises(ConfigError, match=r"options\.squeezers"):
        build_stage("detector", "feature_squeezing", {"squeezers": [f"non_local_means_5_3_{h}" for h in range(1, 10)]})
