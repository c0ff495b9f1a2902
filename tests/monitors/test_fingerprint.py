import numpy as np
import pytest

from guard.monitors.fingerprint import Fingerprint
from guard.types import History, Match

SECRET = b"sixteen bytes...and more"


def photo(seed=0, shape=(32, 32, 3)):
    """Smooth and with texture, as a photograph is."""
    coarse = np.random.default_rng(seed).random((1, 8, 8, shape[2]))
    return np.kron(coarse, np.ones((1, shape[0] // 8, shape[1] // 8, 1))).astype(np.float32)


def shared(a, b):
    return len(set(a.hashes.tolist()) & set(b.hashes.tolist()))


def sketch(x, secret=SECRET, **options):
    return Fingerprint(**options).sketch(x, secret)[0]


def test_hashes_are_distinct_and_bounded():
    one = sketch(photo())
    assert one.hashes.dtype == np.uint64
    assert one.hashes.shape == (50,)
    assert np.unique(one.hashes).size == 50
    assert (one.hashes < 2**63).all()
    assert len(one.digest) == 16


def test_windows_are_sums_over_the_window_alone():
    """A change at one value touches the windows that cover it and no other: with all windows kept, exactly those."""
    x = np.random.default_rng(0).random((1, 200), dtype=np.float32)
    y = x.copy()
    y[0, 100] = (y[0, 100] + 0.5) % 1.0
    a, b = (sketch(v, window=20, hashes=1000, step=128) for v in (x, y))
    assert a.hashes.size == b.hashes.size == 181
    assert shared(a, b) == 181 - 20


def test_a_small_perturbation_shares_much_and_another_image_nothing():
    x = photo()
    noisy = np.clip(x + np.random.default_rng(1).normal(0, 0.002, x.shape), 0, 1).astype(np.float32)
    assert shared(sketch(x), sketch(noisy)) > 30
    assert shared(sketch(x), sketch(photo(1))) == 0
    assert sketch(x).digest != sketch(noisy).digest


def test_a_patch_shares_the_rest():
    x = photo()
    patched = x.copy()
    patched[:, 4:10, 4:10] = 1 - patched[:, 4:10, 4:10]
    assert 20 < shared(sketch(x), sketch(patched)) < 50


def test_a_flat_image_has_as_many_hashes_as_any_other_and_is_found_again():
    grey = np.full((1, 16, 16, 1), 0.5, dtype=np.float32)
    near = grey.copy()
    near[0, 0, 0, 0] = 0.6
    assert sketch(grey).hashes.size == 50
    assert shared(sketch(grey), sketch(near)) > 40


def test_white_is_not_black():
    """Published code adds the salt modulo 255, where 255 is 0."""
    black, white = (np.full((1, 16, 16, 1), value, dtype=np.float32) for value in (0.0, 1.0))
    assert shared(sketch(black), sketch(white)) == 0


def test_blank_borders_do_not_make_images_alike():
    def on_black(seed):
        x = np.zeros((1, 28, 28, 1), dtype=np.float32)
        x[0, 8:20, 8:20, 0] = np.random.default_rng(seed).random((12, 12))
        return x

    flat = Fingerprint(hashes=1000)
    assert shared(flat.sketch(on_black(0), SECRET)[0], flat.sketch(on_black(1), SECRET)[0]) > 200  # the blank windows
    assert shared(sketch(on_black(0)), sketch(on_black(1))) < 5


def test_float32_and_float64_leave_one_fingerprint():
    x = photo().astype(np.float64)
    a, b = sketch(x), sketch(x.astype(np.float32))
    assert a.digest == b.digest
    np.testing.assert_array_equal(a.hashes, b.hashes)


def test_minus_zero_is_zero():
    x = np.zeros((1, 30), dtype=np.float32)
    assert sketch(-x).digest == sketch(x).digest


def test_another_secret_another_fingerprint():
    a, b = sketch(photo()), sketch(photo(), secret=b"another secret!!")
    assert shared(a, b) == 0
    assert a.digest != b.digest


def test_long_secrets_count_to_their_end():
    a, b = sketch(photo(), secret=b"s" * 200 + b"a"), sketch(photo(), secret=b"s" * 200 + b"b")
    assert shared(a, b) == 0
    assert a.digest != b.digest


@pytest.mark.parametrize("size", [1, 2, 3, 10, 19, 20, 41])
def test_short_vectors(size):
    """The window is at most half the input: (size - size // 2) + 1 windows of it, one for a single value."""
    one = sketch(np.random.default_rng(0).random((1, size), dtype=np.float32))
    width = max(1, min(20, size // 2))
    assert one.hashes.size == size - width + 1


def test_stride_thins_the_windows():
    x = np.random.default_rng(0).random((1, 100), dtype=np.float32)
    every = set(sketch(x, window=10, hashes=1000, step=128).hashes.tolist())
    fourth = set(sketch(x, window=10, hashes=1000, step=128, stride=4).hashes.tolist())
    assert len(every) == 91
    assert len(fourth) == 23
    assert fourth < every


def test_large_images_use_longer_windows():
    x = np.random.default_rng(0).random((1, 72, 72, 3), dtype=np.float32)
    assert shared(sketch(x), sketch(x, window=50)) == 50
    assert shared(sketch(x), sketch(x, window=20)) == 0


def test_score_is_the_share_of_the_hashes_that_are_there():
    monitor = Fingerprint()
    full = monitor.sketch(photo(), SECRET)
    few = monitor.sketch(np.zeros((2, 6), dtype=np.float32), SECRET)  # window 3: four hashes
    history = History((Match(25), Match(2), Match(4, duplicate=True)))
    assert monitor.judge(full + few, history).tolist() == [0.5, 0.5, 0.0]


def test_one_match_a_sketch():
    with pytest.raises(ValueError):
        Fingerprint().judge(Fingerprint().sketch(photo(), SECRET), History(()))
