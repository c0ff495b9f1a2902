import gzip
import struct

import cv2
import numpy as np
import pytest

from guard.fit_clean import FitError, distinct, load, row_bytes, sha256_of


def idx(data):
    kinds = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
    big = data.astype(data.dtype.newbyteorder(">"))
    return bytes([0, 0, kinds[data.dtype.name], data.ndim]) + struct.pack(f">{data.ndim}I", *data.shape) + big.tobytes()


def write(path, data):
    path.write_bytes(data)
    return path


def test_npz_and_npy_come_as_they_are(tmp_path):
    x = np.arange(6, dtype=np.float64).reshape(3, 2)
    np.savez(tmp_path / "a.npz", x=x, gain=x[:, :1])
    np.save(tmp_path / "b.npy", x)
    arrays = load(tmp_path / "a.npz").arrays
    assert set(arrays) == {"x", "gain"}
    np.testing.assert_array_equal(arrays["x"], x)
    np.testing.assert_array_equal(load(tmp_path / "b.npy").arrays["x"], x)


def test_a_pickle_is_not_read(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    with pytest.raises(FitError, match="cannot read"):
        load(tmp_path / "objects.npy")


def test_a_broken_archive(tmp_path):
    with pytest.raises(FitError, match="cannot read"):
        load(write(tmp_path / "broken.npz", b"PK\x03\x04 and nothing more"))


@pytest.mark.parametrize("packed", [False, True])
def test_idx_images_are_pixels(tmp_path, packed):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    raw = idx(images)
    file = write(tmp_path / "images", gzip.compress(raw) if packed else raw)
    np.testing.assert_array_equal(load(file).pixels, images[..., None])


def test_idx_images_in_colour(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), dtype=np.uint8)
    np.testing.assert_array_equal(load(write(tmp_path / "images", idx(images))).pixels, images)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "float32", "float64"])
def test_idx_numbers_are_arrays(tmp_path, dtype):
    x = np.array([[1, -2], [3, 4]], dtype=dtype)
    got = load(write(tmp_path / "numbers", idx(x))).arrays["x"]
    assert got.dtype == x.dtype
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, x)


def test_a_vector_of_bytes_is_an_array(tmp_path):
    rows = np.arange(6, dtype=np.uint8).reshape(3, 2)
    np.testing.assert_array_equal(load(write(tmp_path / "rows", idx(rows))).arrays["x"], rows)


@pytest.mark.parametrize(
    "raw",
    [
        idx(np.zeros((2, 3, 3), np.uint8))[:-1],
        idx(np.zeros((2, 3, 3), np.uint8)) + b"\0",
        idx(np.zeros((2, 3, 3), np.uint8))[:7],
    ],
)
def test_idx_of_another_size_than_it_says(tmp_path, raw):
    with pytest.raises(FitError, match="broken IDX file"):
        load(write(tmp_path / "short", raw))


@pytest.mark.parametrize("raw", [b"", b"\0\0\x08", b"\0\0\x07\x01", b"\0\0\x08\0", b"hello, world"])
def test_something_else(tmp_path, raw):
    with pytest.raises(FitError, match=r"neither \.npz, \.npy, IDX nor a folder"):
        load(write(tmp_path / "else", raw))


def test_a_file_that_is_not_there_and_one_cut_short(tmp_path):
    with pytest.raises(FitError, match="cannot read"):
        load(tmp_path / "missing.npz")
    with pytest.raises(FitError, match="cannot read"):
        load(write(tmp_path / "cut.gz", gzip.compress(idx(np.zeros((9, 9, 9), np.uint8)))[:-12]))


def test_a_folder_of_images(tmp_path):
    (tmp_path / "deeper").mkdir()
    png = cv2.imencode(".png", np.zeros((2, 2), np.uint8))[1].tobytes()
    for name in ("b.png", "deeper/a.JPG", "c.jpeg", "notes.txt"):
        (tmp_path / name).write_bytes(png + name.encode())
    assert load(tmp_path).files == tuple(png + n.encode() for n in ("b.png", "c.jpeg", "deeper/a.JPG"))
    some = load(tmp_path, maximum=2, seed=1).files
    assert len(some) == 2
    assert some == load(tmp_path, maximum=2, seed=1).files
    assert set(some) < set(load(tmp_path).files)
    assert len({load(tmp_path, maximum=2, seed=seed).files for seed in range(9)}) > 1


def test_an_empty_folder(tmp_path):
    with pytest.raises(FitError, match=r"no \.png or \.jpg files"):
        load(tmp_path)


def test_the_first_of_each_kind_is_kept():
    x = np.array([[1.0, 2], [3, 4], [1, 2], [5, 6], [3, 4]])
    assert distinct(x).tolist() == [0, 1, 3]
    strings = np.array([[b"a"], [b"b"], [b"a"]], dtype=object)
    assert distinct(strings).tolist() == [0, 1]
    assert distinct(x[:0]).tolist() == []


def test_digests_tell_apart():
    x = np.arange(4, dtype=np.float32).reshape(2, 2)
    files = np.array([b"ab", b"c"], dtype=object)
    other = np.array([b"a", b"bc"], dtype=object)
    digests = {sha256_of(a) for a in (x, x[::-1], x.astype(np.float64), x.reshape(1, 4), files, other)}
    assert len(digests) == 6
    assert sha256_of(x) == sha256_of(x.copy())
    assert row_bytes(x.T[0]) == np.array([0, 2], dtype=np.float32).tobytes()
