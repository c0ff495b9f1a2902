import numpy as np
import pytest

from guard.purifiers.resize_pad import ResizePad
from guard.settings import ConfigError, build_stage
from guard.types import Equipment

SECRET = b"s" * 32


def purify(x, secret=SECRET, **options):
    return ResizePad(**options).equip(Equipment(secret=secret)).purify(x)


def images(n=40, shape=(20, 30, 3), seed=0):
    return np.random.default_rng(seed).uniform(0.2, 1, (n, *shape)).astype(np.float32)


def boxes(out):
    """Top, bottom, left, right of what is not black."""
    for image in out:
        rows, columns = np.nonzero(image.any(axis=(1, 2)))[0], np.nonzero(image.any(axis=(0, 2)))[0]
        yield rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def test_a_white_image_becomes_a_white_box_on_black():
    out = purify(np.ones((50, 20, 30, 2), np.float32), least=0.5)
    found = set()
    for image, (top, bottom, left, right) in zip(out, boxes(out), strict=True):
        assert (image[top:bottom, left:right] == 1).all()
        assert image.sum() == 2 * (bottom - top) * (right - left)
        assert 10 <= bottom - top <= 20
        assert abs((bottom - top) / 20 - (right - left) / 30) < 0.06  # the same share of both sides
        found.add((top, left, bottom - top))
    assert len(found) == 1  # one row, one draw


def test_sizes_and_places_vary_with_the_row():
    found = list(boxes(purify(images(), least=0.5)))
    heights = {bottom - top for top, bottom, _, _ in found}
    assert len(heights) > 5
    assert min(heights) >= 10
    assert len({top for top, *_ in found}) > 3


def test_what_is_inside_is_the_image():
    ramp = np.broadcast_to(np.linspace(0.2, 1, 40, dtype=np.float32)[None, :, None], (40, 40, 1))[None].copy()
    out = purify(ramp, least=0.6)
    ((top, bottom, left, right),) = boxes(out)
    inside = out[0, top:bottom, left:right, 0]
    wanted = np.interp((np.arange(right - left) + 0.5) * 40 / (right - left) - 0.5, np.arange(40), ramp[0, 0, :, 0])
    np.testing.assert_allclose(inside, np.broadcast_to(wanted, inside.shape), atol=0.005)


def test_another_secret_draws_otherwise():
    x = images()
    np.testing.assert_array_equal(purify(x), purify(x))
    assert not np.array_equal(purify(x), purify(x, b"t" * 32))


def test_a_tiny_change_is_not_averaged_out():
    x = np.full((1, 12, 12, 1), 8 / 15, np.float32)
    assert list(boxes(purify(x))) == list(boxes(purify(x + np.float32(0.01))))


def test_slim_images_keep_a_pixel():
    out = purify(np.ones((3, 1, 1, 5), np.float32), least=0.25)
    np.testing.assert_array_equal(out, np.ones((3, 1, 1, 5)))


@pytest.mark.parametrize("least", [0.2, 1.0])
def test_least_out_of_range(least):
    with pytest.raises(ConfigError, match=r"options\.least"):
        build_stage("purifier", "resize_pad", {"least": least})


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        purify(np.zeros((2, 9), np.float32))
