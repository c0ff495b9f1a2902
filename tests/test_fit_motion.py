"""The next frame of a film: near the one before, and of another image each time."""

import numpy as np
import pytest

from guard.fit_motion import by_camera, next_frames, other_cameras
from guard.linking import unexplained
from guard.sketching import Sketcher


def images(channels: int) -> np.ndarray:
    """(40, 32, 32, channels): smooth, with edges."""
    rng = np.random.default_rng(1)
    coarse = rng.random((40, 4, 4, channels)).repeat(8, axis=1).repeat(8, axis=2)
    across = np.linspace(0.0, 0.3, 32)[None, :, None, None]
    return np.clip(coarse * 0.6 + across, 0.0, 1.0).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_have_the_form_of_images_and_are_near_them(channels):
    x = images(channels)
    before = x.copy()
    frames = next_frames(x, np.random.default_rng(0))
    assert frames.shape == x.shape
    assert frames.dtype == np.float32
    assert frames.min() >= 0.0
    assert frames.max() <= 1.0
    np.testing.assert_array_equal(x, before)
    off = np.abs(frames - x).reshape(40, -1).mean(axis=1)
    assert (off > 0.0).all()
    assert off.mean() < 0.1
    np.testing.assert_array_equal(frames, next_frames(x, np.random.default_rng(0)))
    assert (frames != next_frames(x, np.random.default_rng(1))).any()


def test_motion_explains_most_of_them():
    x = images(1)
    sketcher = Sketcher(b"a secret of the test")
    before, after = sketcher(x), sketcher(next_frames(x, np.random.default_rng(0)))
    motions = np.stack([sketch.motions for sketch in after])
    ways = np.stack([one.position - other.position for one, other in zip(before, after, strict=True)])
    left = np.array(unexplained(motions, ways[:, None].astype(np.float64), [0.0] * 40))[:, 0]
    noise = np.array(unexplained(motions, np.random.default_rng(2).normal(size=(40, 1, ways.shape[1])), [0.0] * 40))[
        :, 0
    ]
    assert np.median(left) < 0.4 < np.median(noise)


def test_a_camera_changes_all_images_alike():
    x, (one, other) = images(3), other_cameras(np.random.default_rng(0), 2)
    seen = by_camera(x, one)
    assert seen.shape == x.shape
    assert seen.dtype == np.float32
    assert 0.0 <= seen.min() < seen.max() <= 1.0
    np.testing.assert_array_equal(seen[:3], by_camera(x[:3], one))  # whatever else it sees
    np.testing.assert_array_equal(by_camera(x[::-1], one), seen[::-1])
    assert (np.abs(seen - x).reshape(40, -1).mean(axis=1) > 0.005).all()
    assert (seen != by_camera(x, other)).any()
    np.testing.assert_allclose(by_camera(x, np.zeros(6)), x, atol=1e-6)


def test_cameras_differ_by_much_in_every_way():
    found = other_cameras(np.random.default_rng(0), 100)
    assert found.shape == (100, 6)
    assert 0.5 <= np.abs(found).min() < np.abs(found).max() <= 1.0
    assert (np.abs(found.mean(axis=0)) < 0.3).all()
    assert other_cameras(np.random.default_rng(0), 0).shape == (0, 6)


def test_vectors_have_no_next_frame():
    vectors = np.zeros((3, 24), np.float32)
    assert next_frames(vectors, np.random.default_rng(0)) is None
    assert by_camera(vectors, np.zeros(6)) is None
