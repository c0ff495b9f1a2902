import numpy as np
import pytest

from adversary.form import Form

X = np.linspace(0, 1, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


def test_what_is_as_the_model_wants_it_is_not_touched():
    assert Form().of(X) is X


def test_bounds():
    assert Form(-1.0, 1.0).of(np.array([[0.0, 0.5, 1.0]])).tolist() == [[-1.0, 0.0, 1.0]]


def test_the_mean_of_imagenet():
    """The usual figures, by hand: (0.5 - 0.485) / 0.229, and the same of [0, 255] with the mean of Caffe's models."""
    grey = np.full((1, 3, 2, 2), 0.5, np.float32)
    normal = Form(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).of(grey)
    assert normal[0, :, 0, 0] == pytest.approx([0.0655, 0.19643, 0.41778], abs=1e-4)
    caffe = Form(high=255.0, mean=(103.939, 116.779, 123.68)).of(grey)
    assert caffe[0, :, 1, 1] == pytest.approx([23.561, 10.721, 3.82])


def test_one_value_for_all_channels():
    assert Form(mean=(0.5,), std=(0.5,)).of(np.array([[0.0, 1.0]])).tolist() == [[-1.0, 1.0]]
    assert Form(std=(0.5,)).of(np.array([[0.25]])).tolist() == [[0.5]]


def test_axes_are_moved_there_and_back():
    there = Form(layout="nchw_to_nhwc").of(X)
    assert there.shape == (2, 4, 5, 3)
    assert there[1, 2, 3, 0] == X[1, 0, 2, 3]
    assert np.array_equal(Form(layout="nhwc_to_nchw").of(there), X)


def test_flat_rows_keep_their_order():
    assert np.array_equal(Form(layout="flat").of(X), X.reshape(2, 60))


@pytest.mark.parametrize("layout", ["as_given", "nchw_to_nhwc", "flat"])
def test_channels_are_normalised_wherever_they_go(layout):
    """Each channel has the value of its mean, so all becomes 0."""
    means = (0.1, 0.2, 0.3)
    x = np.broadcast_to(np.reshape(means, (3, 1, 1)), (2, 3, 4, 5))
    assert np.abs(Form(mean=means, layout=layout).of(x)).max() == 0.0


@pytest.mark.parametrize("layout", ["as_given", "nhwc_to_nchw"])
def test_channels_that_come_last(layout):
    means = (0.1, 0.2, 0.3)
    x = np.broadcast_to(np.array(means), (2, 5, 6, 3))
    assert np.abs(Form(mean=means, layout=layout).of(x)).max() == 0.0


def test_columns_of_a_table_are_channels():
    assert Form(mean=(1.0, 2.0), std=(1.0, 2.0), high=4.0).of(np.array([[0.5, 0.5]])).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"low": 1.0}, "low must be below high"),
        ({"std": (1.0, 0.0)}, "above 0"),
        ({"std": (-1.0,)}, "above 0"),
        ({"mean": (1.0, 2.0), "std": (1.0, 2.0, 3.0)}, "2 means and 3 stds"),
    ],
)
def test_what_does_not_go_together(parts, message):
    with pytest.raises(ValueError, match=message):
        Form(**parts)


def test_as_many_as_there_are_channels():
    with pytest.raises(ValueError, match=r"2 means or stds for the 3 channels of \(3, 4, 5\)"):
        Form(mean=(0.0, 1.0)).of(X)


def test_a_layout_of_images_is_for_images():
    with pytest.raises(ValueError, match="for images"):
        Form(layout="nchw_to_nhwc").of(X[:, 0])
