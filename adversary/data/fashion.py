"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747): 60,000 and 10,000 articles of clothing, 28x28 grey.

Sources, in this order:
1. a directory of IDX files that the user names (plain or .gz), named as MNIST's;
2. the Debian package dataset-fashion-mnist, by `apt-get download`: nothing is installed.

Returns: what adversary.data.mnist returns, the splits divided the same way.
Cost:    the first time 31 MB.
"""

import gzip
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from adversary.data import cache, mnist
from adversary.data.mnist import Mnist

PACKAGE = "dataset-fashion-mnist"
IDX_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_PLACE = "./usr/share/datasets/fashion-mnist/{}.gz"


def load(directory: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Mnist:
    """The data set, from the first source that gives it. Raises DataUnavailable."""
    if directory is not None:
        return mnist.load(directory)
    home = cache.root() / "fashion-mnist"
    if any(cache.cached(home / name, digest) is None for name, digest in IDX_SHA256.items()):
        say(f"fetching Fashion-MNIST: apt-get download {PACKAGE}, 31 MB")
        for name, content in _fetch().items():
            cache.write_atomic(home / name, content)
    return replace(mnist.load(home), source=f"Debian {PACKAGE}")


def _fetch() -> dict[str, bytes]:
    """The IDX files of the Debian package. Raises DataUnavailable."""
    try:
        with tempfile.TemporaryDirectory(prefix="adversary-") as directory:
            _run(["apt-get", "download", "--quiet", PACKAGE], directory)
            (package,) = Path(directory).glob("*.deb")
            content = _run(["dpkg-deb", "--fsys-tarfile", package.name], directory)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            packed = {name: archive.extractfile(_PLACE.format(name)) for name in IDX_SHA256}
            files = {name: gzip.decompress(file.read()) for name, file in packed.items() if file is not None}
    except (OSError, ValueError, KeyError, tarfile.TarError, subprocess.SubprocessError) as error:
        raise cache.DataUnavailable(
            f"Fashion-MNIST is out of reach here ({type(error).__name__}). Fetch it elsewhere with `apt-get download "
            f"{PACKAGE}`, unpack it, and name the directory with the IDX files by --data DIR."
        ) from None
    for name, digest in IDX_SHA256.items():
        if cache.sha256(files.get(name, b"")) != digest:
            raise cache.DataUnavailable(f"{name} in {PACKAGE} is not the expected file")
    return files


def _run(command: list[str], directory: str) -> bytes:
    """Standard output of a command in the directory. Raises OSError, SubprocessError."""
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(command[0])
    done = subprocess.run(  # noqa: S603 - fixed words, no shell
        command, cwd=directory, capture_output=True, timeout=cache.FETCH_TIMEOUT_S, check=True
    )
    return done.stdout
