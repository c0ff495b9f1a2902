"""Clean inputs from files: .npz, .npy, IDX (plain or .gz), or a folder of JPEG and PNG images.

Arrays of .npz and .npy are taken as the model takes them. IDX images and folders are pixels, whatever the model takes:
`guard.fit_space` brings them into its layout and bounds. Nothing is unpickled.
"""

import gzip
import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from guard.types import Array

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
MAX_BYTES = 16 * 1024**3
_GZIP, _ZIP, _NPY = b"\x1f\x8b", b"PK", b"\x93NUMPY"
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GREY_RANK, _COLOUR_RANK = 3, 4


class FitError(ValueError):
    """`guard fit` cannot go on. The text says why and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Clean:
    """One of three forms.

    arrays:  by name, in the model's own layout and bounds.
    pixels:  (N, H, W, C) uint8.
    files:   encoded images.
    """

    arrays: Mapping[str, Array] = field(default_factory=dict)
    pixels: Array | None = None
    files: tuple[bytes, ...] = ()


def load(path: Path, *, maximum: int | None = None, seed: int = 0) -> Clean:
    """Read what is there; of a folder at most `maximum` images, chosen by the seed. Raises FitError."""
    if path.is_dir():
        return Clean(files=_folder(path, maximum, seed))
    try:
        with path.open("rb") as file:
            start = file.read(8)
        if start.startswith((_ZIP, _NPY)):
            return Clean(arrays=_numpy(path))
        return _idx(gzip.open(path).read(MAX_BYTES) if start.startswith(_GZIP) else path.read_bytes(), path)
    except (OSError, EOFError) as error:
        raise FitError(f"cannot read {path}: {error}") from None


def _folder(path: Path, maximum: int | None, seed: int) -> tuple[bytes, ...]:
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    if not found:
        raise FitError(f"{path} holds no .png or .jpg files")
    if maximum is not None and len(found) > maximum:
        chosen = np.random.default_rng(seed).choice(len(found), maximum, replace=False)
        found = [found[i] for i in sorted(chosen)]
    return tuple(file.read_bytes() for file in found)


def _numpy(path: Path) -> dict[str, Array]:
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return {"x": stored}
        with stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:  # noqa: BLE001 - numpy and zipfile raise half a dozen types on a broken archive
        raise FitError(f"cannot read {path}: {error}") from None


def _idx(raw: bytes, path: Path) -> Clean:
    """LeCun's format: 0, 0, type, rank; the dimensions as big-endian 32-bit integers; the data."""
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES or raw[3] == 0:  # noqa: PLR2004 - the magic number
        raise FitError(f"{path} is neither .npz, .npy, IDX nor a folder of images")
    dtype, rank = np.dtype(_IDX_TYPES[raw[2]]), raw[3]
    head = 4 + 4 * rank
    shape = struct.unpack(f">{rank}I", raw[4:head]) if len(raw) >= head else (0,)
    if len(raw) - head != math.prod(shape) * dtype.itemsize:
        raise FitError(f"{path} is a broken IDX file: its size is not what its header says")
    data = np.frombuffer(raw, dtype, offset=head).reshape(shape)
    if dtype.itemsize == 1 and dtype.kind == "u" and rank in {_GREY_RANK, _COLOUR_RANK}:
        return Clean(pixels=data if rank == _COLOUR_RANK else data[..., None])
    return Clean(arrays={"x": data.astype(dtype.newbyteorder("="))})


def distinct(x: Array) -> Array:
    """The positions of the first of each kind of row, upwards."""
    seen: dict[bytes, int] = {}
    for position, row in enumerate(x):
        seen.setdefault(hashlib.blake2b(row_bytes(row), digest_size=16).digest(), position)
    return np.fromiter(seen.values(), dtype=np.int64, count=len(seen))


def row_bytes(row: Array) -> bytes:
    """What tells one row from another."""
    row = np.asarray(row)
    return b"".join(row.ravel()) if row.dtype == object else np.ascontiguousarray(row).tobytes()


def sha256_of(x: Array) -> str:
    """Of rows in their order, whatever file they came from."""
    total = hashlib.sha256(f"{x.dtype} {x.shape}".encode())
    for row in x:
        data = row_bytes(row)
        total.update(struct.pack("<Q", len(data)) + data)
    return total.hexdigest()
