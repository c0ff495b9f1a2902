"""Tensors of the Open Inference Protocol to numpy and back: names of datatypes, raw bytes, typed fields."""

import numpy as np

from adversary.attack import Array

# datatype -> (numpy dtype, field of InferTensorContents; None: travels raw only)
DATATYPES: dict[str, tuple[str, str | None]] = {
    "BOOL": ("?", "bool_contents"),
    "INT8": ("<i1", "int_contents"),
    "INT16": ("<i2", "int_contents"),
    "INT32": ("<i4", "int_contents"),
    "INT64": ("<i8", "int64_contents"),
    "UINT8": ("<u1", "uint_contents"),
    "UINT16": ("<u2", "uint_contents"),
    "UINT32": ("<u4", "uint_contents"),
    "UINT64": ("<u8", "uint64_contents"),
    "FP16": ("<f2", None),
    "FP32": ("<f4", "fp32_contents"),
    "FP64": ("<f8", "fp64_contents"),
}


_SLACK = 1e-3  # by which the sum of probabilities may miss 1: models round


class UnknownDatatype(ValueError):
    """A datatype that is not one of numbers."""


def dtype_of(datatype: str) -> np.dtype[np.generic]:
    """The numpy dtype of a datatype's name. Raises UnknownDatatype."""
    try:
        return np.dtype(DATATYPES[datatype][0])
    except KeyError:
        raise UnknownDatatype(f"tensors of {datatype} are not spoken here") from None


def field_of(datatype: str) -> str:
    """The typed field that carries a datatype. Raises UnknownDatatype."""
    field = DATATYPES.get(datatype, ("", None))[1]
    if field is None:
        raise UnknownDatatype(f"{datatype} cannot travel in typed form; send it raw")
    return field


def to_wire(x: Array, datatype: str) -> Array:
    """Values in the model's own bounds -> its dtype, whole numbers rounded; contiguous."""
    dtype = dtype_of(datatype)
    return np.ascontiguousarray(np.rint(x) if dtype.kind in "iu" else x, dtype)


def from_raw(raw: bytes, datatype: str, shape: tuple[int, ...]) -> Array:
    """Raw bytes -> an array."""
    return np.frombuffer(raw, dtype_of(datatype)).reshape(shape)


def probabilities(y: Array, meaning: str) -> Array:
    """(N, C) answers -> float64 rows that sum to 1; `auto` takes for probabilities what looks like them."""
    y = np.asarray(y, np.float64)
    looks_so = bool((y >= 0.0).all() and np.abs(y.sum(axis=1) - 1.0).max(initial=0.0) <= _SLACK)
    if meaning == "probabilities" or (meaning == "auto" and looks_so):
        return y
    shifted = np.exp(y - y.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def labels(y: Array, rows: int) -> Array:
    """Answers -> (N,) labels: whole numbers, one a row, are labels themselves; of scores the largest wins."""
    if y.size == rows and y.dtype.kind in "iu":
        return y.reshape(rows).astype(np.int64)
    return np.asarray(y.reshape(rows, -1).argmax(axis=1), np.int64)
