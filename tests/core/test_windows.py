import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard import kernels, windows
from guard.windows import FINGERPRINTS, fingerprint

SECRET = b"sixteen bytes...and more"
STEP = 50


def plain(row, secret=SECRET):
    """Window by window, in Python's whole numbers."""
    levels = np.rint(np.asarray(row, np.float64) * 255).astype(int)
    grid, size = windows._grid(secret, levels.size), levels.size
    width = max(1, min(50 if size > 64 * 64 * 3 else 20, size // 2))
    words = [
        int(grid.symbols[level + int(salt)]) // 2 * int(weight)
        for level, salt, weight in zip(levels.ravel(), grid.salt, grid.weights, strict=True)
    ]
    if levels.ndim > 1:
        steps = np.abs(np.diff(levels, axis=1, prepend=levels[:, :1])).ravel()
    else:
        steps = np.abs(np.diff(levels, prepend=levels[:1]))
    found = [
        (bool((steps[i : i + width] > STEP // 2).any()), sum(words[i : i + width]) % 2**63)
        for i in range(size - width + 1)
    ]
    return {word % 2**62 for _, word in sorted(found)[-FINGERPRINTS:]}


def rows(seed, shape, tones):
    """Random grey levels, few where tones are few."""
    return (np.random.default_rng(seed).integers(tones, size=shape) / max(1, tones - 1)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([(1,), (2,), (3, 3, 1), (9, 7, 3), (5, 4, 6), (130,)]),
    st.sampled_from([1, 2, 5, 256]),
    st.sampled_from([None, 7, 64, 1 << 15]),
)
def test_is_what_one_finds_window_by_window(seed, shape, tones, part):
    """part: windows that numpy looks at together; None: the compiled kernel."""
    row = rows(seed, shape, tones)
    with pytest.MonkeyPatch.context() as patch:
        if part is not None:
            patch.setattr(windows, "_PART", part)
            patch.setattr(kernels, "compiled", None)
        assert set(fingerprint(row, SECRET).tolist()) == plain(row)


def test_is_so_for_a_large_image_part_by_part():
    row = rows(1, (130, 130, 3), 256)
    assert set(fingerprint(row, SECRET).tolist()) == plain(row)


def test_windows_that_see_an_edge_come_first():
    """As many as a window is wide see the only one; the rest are flat."""
    row = np.zeros(300, np.float32)
    row[100:] = 1.0
    found = set(fingerprint(row, SECRET).tolist())
    assert found == plain(row)
    assert found != set(fingerprint(row[::-1].copy(), SECRET).tolist())


def test_one_that_is_blank_has_as_many():
    assert fingerprint(np.full((16, 16, 1), 0.5, np.float32), SECRET).size == FINGERPRINTS
