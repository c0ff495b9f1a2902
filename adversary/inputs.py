"""What a campaign sends, and what it knows of the victim: labelled test inputs, clean ones, pools, what was learned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adversary.attack import Array
from adversary.campaign import CampaignError, Data
from adversary.data import cifar10, foreign, mnist
from adversary.data.cache import sha256

_WHITE = 255.0
_IMAGE = frozenset({2, 3})  # axes of one
_UNKNOWN = -1
_NEEDED = ("x", "y")
_ARRAYS = (*_NEEDED, "clean", "clean_y", "pool", "pool_y", "learned_x", "learned_y")


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Images as bytes, of which float32 in [0, 1] is made when rows are asked for: `stored[rows]`, `stored[:]`."""

    images: NDArray[np.uint8]
    unit: Callable[[NDArray[np.uint8]], NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | Array) -> Array:
        return self.unit(self.images[rows])


Rows = Array | Stored


def _none() -> Array:
    return np.zeros(0, np.float32)


def _no_labels() -> Array:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """x: (N, ...) float32 in [0, 1] in the model's layout; y: (N,) labels.

    clean, clean_y:      as many again that the victim did not learn from, for `guard fit` and for surrogates; may be
                         none.
    note:                what a reader must know of the data.
    pool, pool_y:        what an attacker who copies the victim may send, and labels that he does not know (-1 where
                         nobody does); may be none.
    learned, learned_y:  what the victim learned from; may be none.
    """

    x: Array
    y: Array
    clean: Array
    clean_y: Array
    source: str
    digest: str
    note: str = ""
    pool: Rows = field(default_factory=_none)
    pool_y: Array = field(default_factory=_no_labels)
    learned: Rows = field(default_factory=_none)
    learned_y: Array = field(default_factory=_no_labels)


def load(data: Data, say: Callable[[str], None]) -> Inputs:
    """Raises CampaignError, DataUnavailable."""
    if data.file is not None:
        read = _npz(data.file, data.members)
    else:
        read = (_cifar10 if data.kind == "cifar10" else _mnist)(data.directory, data.members, say)
    return read if data.pool == "own" else _foreign(read, data.pool, say)


def _foreign(read: Inputs, name: Literal["mnist", "cifar10"], say: Callable[[str], None]) -> Inputs:
    """The same with a pool of other images, none of which its own victims learned from."""
    if name == "cifar10":
        other = cifar10.load(None, say)
        images, labels, source = other.pool.images, other.pool.labels, other.source
    else:
        digits = mnist.load(None, say)
        images, labels, source = digits.clean.images, digits.clean.labels, digits.source
    shape = read.x.shape[1:]
    if len(shape) not in _IMAGE:
        raise CampaignError("data.pool", f"inputs of shape {shape} are not images")
    pool = Stored(images, lambda some: foreign.fit(some, shape))
    return replace(read, pool=pool, pool_y=labels, source=f"{read.source}; pool: {source}")


def _mnist(directory: Path | None, members: int | None, say: Callable[[str], None]) -> Inputs:
    read = mnist.load(directory, say)
    clean, learned = mnist.unit(read.clean.images), read.learn.part(slice(members))
    return Inputs(
        mnist.unit(read.test.images), read.test.labels, clean, read.clean.labels, read.source, read.digest, read.note,
        pool=clean, pool_y=read.clean.labels, learned=Stored(learned.images, mnist.unit), learned_y=learned.labels,
    )  # fmt: skip


def _cifar10(directory: Path | None, members: int | None, say: Callable[[str], None]) -> Inputs:
    read = cifar10.load(directory, say)
    learned = read.learn.part(slice(members))
    return Inputs(
        cifar10.unit(read.test.images), read.test.labels, cifar10.unit(read.clean.images), read.clean.labels,
        read.source, read.digest, pool=Stored(read.pool.images, cifar10.unit), pool_y=read.pool.labels,
        learned=Stored(learned.images, cifar10.unit), learned_y=learned.labels,
    )  # fmt: skip


def _npz(path: Path, members: int | None) -> Inputs:
    try:
        content = path.read_bytes()
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in _ARRAYS if name in stored.files or name in _NEEDED}
    except (OSError, ValueError, KeyError) as error:
        raise CampaignError("data.file", f"cannot read x and y from {path}: {error}") from None
    if "pool" in arrays:
        arrays.setdefault("pool_y", np.full(len(arrays["pool"]), _UNKNOWN))
    x, y = _checked(arrays, *_NEEDED)
    clean, clean_y = _pair(arrays, "clean", "clean_y", x)
    pool, pool_y = _pair(arrays, "pool", "pool_y", x)
    learned, learned_y = _pair(arrays, "learned_x", "learned_y", x)
    learned, learned_y = learned[:members], learned_y[:members]
    return Inputs(
        x, y, clean, clean_y, path.name, sha256(content), pool=pool, pool_y=pool_y, learned=learned,
        learned_y=learned_y,
    )  # fmt: skip


def _pair(arrays: Mapping[str, Array], name: str, labels: str, x: Array) -> tuple[Array, Array]:
    """What else the file has, beside x: both, or none of both."""
    if name not in arrays and labels not in arrays:
        return x[:0], _no_labels()
    if name not in arrays or labels not in arrays:
        raise CampaignError("data.file", f"{name} goes with {labels}")
    rows, y = _checked(arrays, name, labels)
    if rows.shape[1:] != x.shape[1:]:
        raise CampaignError("data.file", f"{name} has rows of {rows.shape[1:]}, x of {x.shape[1:]}")
    return rows, y


def _checked(arrays: Mapping[str, Array], name: str, labels: str) -> tuple[Array, Array]:
    """-> float32 in [0, 1] and int64. Raises CampaignError."""
    x, y = arrays[name], arrays[labels]
    if x.dtype == np.uint8:
        x = x.astype(np.float32) / np.float32(_WHITE)
    if x.dtype.kind != "f" or y.dtype.kind not in "iu" or y.shape != (len(x),):
        raise CampaignError("data.file", f"{name} must be uint8 or floats, {labels} one whole number a row")
    if not (np.isfinite(x).all() and x.min(initial=0.0) >= 0.0 and x.max(initial=0.0) <= 1.0):
        raise CampaignError("data.file", f"floats in {name} must lie in [0, 1]")
    return np.asarray(x, np.float32), y.astype(np.int64)
