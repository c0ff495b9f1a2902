"""The compiled kernels against their plain twins; they are there, because the tests' environment has a compiler."""

import importlib
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard import kernels, linking, sketching, windows
from guard.types import InvalidQuery
from guard.wire import scan

SECRET = b"sixteen bytes...and more"
SOURCE = Path(kernels.__file__).with_name("_kernels.c")


def rng(seed):
    return np.random.default_rng(seed)


def test_they_are_there_and_newer_than_their_source():
    assert kernels.compiled is not None
    assert Path(kernels.compiled.__file__).stat().st_mtime >= SOURCE.stat().st_mtime, "build them: make"


def test_their_source_is_plain_c_without_a_warning():
    compiler, include = shlex.split(sysconfig.get_config_var("CC")), sysconfig.get_paths()["include"]
    flags = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wno-sign-conversion", "-Werror")
    command = [*compiler, *flags, "-fsyntax-only", f"-I{include}", str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_them_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "guard._kernels", None)
    monkeypatch.delattr("guard._kernels", raising=False)
    try:
        assert importlib.reload(kernels).compiled is None
    finally:
        monkeypatch.undo()
        importlib.reload(kernels)
    assert kernels.compiled is not None


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([(1,), (2,), (3, 3, 1), (9, 7, 3), (5, 4, 6), (130,), (32, 32, 3), (130, 100, 1)]),
    st.sampled_from([1, 2, 5, 256]),
    st.booleans(),
)
def test_windows(seed, shape, tones, smooth):
    levels = (rng(seed).integers(tones, size=shape) * (255 // max(1, tones - 1))).astype(np.uint8)
    if smooth:
        levels = np.sort(levels, axis=0)
    grid, width = windows._grid(SECRET, levels.size), max(1, min(20, levels.size // 2))
    found, plain = (make(levels, grid, width) for make in (windows._compiled, windows._plain))
    assert sorted(found.tolist()) == sorted(plain.tolist())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_motions(seed, rows, height, width, channels):
    x = rng(seed).random((rows, height, width, channels), dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        found = sketching._moved(x)
        patch.setattr(kernels, "compiled", None)
        np.testing.assert_array_equal(found, sketching._moved(x))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 10), st.integers(0, 3))
def test_what_motion_explains(seed, rows, motions, still):
    m = rng(seed).normal(size=(rows, motions, 48)).astype(np.float32)
    m[:, :still] = 0.0
    ways = rng(seed + 1).normal(size=(rows, 2, 48))
    ways[:, 1] = 0.3 * m[:, -1] + 0.01 * ways[:, 1]
    (parts, moving), (wanted, moves) = linking._compiled(m, ways), linking._plain(m, ways)
    assert moving.tolist() == moves.tolist() == [max(0, motions - still)] * rows
    np.testing.assert_allclose(parts, wanted, rtol=1e-9, atol=1e-12)


def test_a_motion_that_says_nothing_new_explains_nothing_more():
    m = np.repeat(rng(0).normal(size=(1, 1, 48)), 2, axis=1).astype(np.float32)
    ways = m[:, :1].astype(np.float64)
    (parts, _), (wanted, _) = linking._compiled(m, ways), linking._plain(m, ways)
    np.testing.assert_allclose(parts, wanted, rtol=1e-6, atol=1e-6)
    assert parts[0, 0, 1] < 1e-3 * parts[0, 0, 0]


LEVELS, SALT, WEIGHTS = np.zeros(6, np.uint8), np.zeros(6, np.uint16), np.ones(6, np.uint64)
SYMBOLS, OUT = np.ones(305, np.uint64), np.zeros(24, np.uint64)


@pytest.mark.parametrize(
    "arguments",
    [
        (LEVELS, SALT[1:], WEIGHTS, SYMBOLS, 6, 1, 2, 25, OUT),
        (LEVELS, SALT, WEIGHTS[1:], SYMBOLS, 6, 1, 2, 25, OUT),
        (LEVELS, SALT, WEIGHTS, SYMBOLS, 0, 1, 2, 25, OUT),
        (LEVELS, SALT, WEIGHTS, SYMBOLS, 6, 0, 2, 25, OUT),
        (LEVELS, SALT, WEIGHTS, SYMBOLS, 6, 1, 7, 25, OUT),
        (np.zeros(100, np.uint8), np.zeros(100, np.uint16), np.ones(100, np.uint64), SYMBOLS, 6, 1, 65, 25, OUT),
        (LEVELS, SALT, WEIGHTS, SYMBOLS, 6, 1, 2, 25, OUT[:0]),
        (LEVELS, SALT, WEIGHTS, SYMBOLS, 6, 1, 2, 25, np.zeros(65, np.uint64)),
        (LEVELS, SALT, WEIGHTS, SYMBOLS[:0], 6, 1, 2, 25, OUT),
    ],
)
def test_windows_of_other_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match=r"bytes, not|out of bounds|no symbol"):
        kernels.compiled.largest_windows(*arguments)


def test_arrays_of_other_sizes_are_refused():
    x, u, out = np.zeros((1, 2, 3, 1), np.float32), np.zeros(3, np.float32), np.zeros((1, 10, 2, 3, 1), np.float32)
    good = (x, u, u[:2], 2, 3, 1, 0.9, 0.1, out)
    kernels.compiled.moved(*good)
    for place, bad in ((0, x[:, :, :2].copy()), (1, u[:2]), (2, u), (3, 0), (5, 1 << 30), (8, out[:, 1:].copy())):
        with pytest.raises(ValueError, match=r"bytes, not|of this size"):
            kernels.compiled.moved(*good[:place], bad, *good[place + 1 :])
    m, ways = np.zeros((1, 2, 3), np.float32), np.zeros((1, 1, 3))
    good = (m, ways, 2, 1, 3, 1e-4, 1e-24, np.zeros((1, 1, 2)), np.zeros(1, np.int64))
    kernels.compiled.explained(*good)
    for place, bad in ((0, m[:, 1:].copy()), (1, ways[:, :, 1:].copy()), (2, 17), (3, 0), (4, 0), (7, ways), (8, ways)):
        with pytest.raises(ValueError, match=r"bytes, not|of this size"):
            kernels.compiled.explained(*good[:place], bad, *good[place + 1 :])


def test_what_nobody_may_write_to_is_not_written_to():
    out = OUT.copy()
    out.flags.writeable = False
    with pytest.raises((BufferError, ValueError, TypeError)):
        kernels.compiled.largest_windows(LEVELS, SALT, WEIGHTS, SYMBOLS, 6, 1, 2, 25, out)


# --- the fields of a message

MOST = 12


def plain_fields(body, start, end):
    """What scan.fields says without kernels; None: malformed; "many"."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "compiled", None)
        return told_fields(body, start, end)


def told_fields(body, start, end):
    try:
        return scan.fields(body, start, end, MOST)
    except InvalidQuery as error:
        return "many" if "more than" in str(error) else None


PIECES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [b"\x08", b"\x80", b"\xff" * 9, b"\x3a\x02ab", b"\xba\x00\x02ab", b"\x09", b"\x0d", b"\x0b", b"\x01"]
    ),
    st.builds(
        lambda field, value: bytes([field << 3 | 2, len(value)]) + value, st.integers(1, 15), st.binary(max_size=9)
    ),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=9).map(b"".join), st.integers(0, 9), st.integers(0, 9))
def test_fields(body, start, less):
    start = min(start, len(body))
    end = max(start, len(body) - less)
    assert told_fields(body, start, end) == plain_fields(body, start, end)


@pytest.mark.parametrize(
    "body",
    [
        b"\x80" * 4 + b"\x10\x00",  # a tag of 33 bits
        b"\x88\x80\x80\x80\x00\x00",  # a tag of five bytes
        b"\x88" + b"\x80" * 8 + b"\x00\x00",  # of ten
        b"\x88" + b"\x80" * 8 + b"\x02\x00",  # whose bits are beyond 64
        b"\x08" + b"\xff" * 9 + b"\x7f",
        b"\x08" + b"\xff" * 10 + b"\x01",
        b"\x0a" + b"\xff" * 9 + b"\x01",
        b"\x0a" + b"\xff" * 8 + b"\x7f",  # 2**63 - 1 bytes
        b"\x0a" + b"\x80" * 9 + b"\x02",  # 2**64 bytes
        b"\x12\x00" * MOST,
        b"\x12\x00" * (MOST + 1),
        b"\x12\x00" * (MOST + 1) + b"\x80",  # malformed behind where counting ends
        b"\x12\x00" * MOST + b"\x80",
    ],
)
def test_fields_at_their_limits(body):
    assert told_fields(body, 0, len(body)) == plain_fields(body, 0, len(body))


def test_offsets_beyond_a_message_are_refused():
    for start, end in ((-1, 1), (0, 3), (2, 1)):
        with pytest.raises(ValueError, match="out of bounds"):
            kernels.compiled.fields(b"\x08\x01", start, end, MOST)
