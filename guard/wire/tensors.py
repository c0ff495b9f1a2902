"""OIP tensors in raw form: bytes to read-only numpy views and back, every size checked before anything is allocated.

Source: Open Inference Protocol, "raw" tensors: row-major, little-endian; BYTES: 4-byte length, then data, each element.
Answers: requests whose declared shape is not what the server will read (short, long, negative, overflowing).
Choices: BF16 is float32 here (numpy has none). A BOOL byte other than 0 and 1 is refused, where servers read "true":
         what one server takes for true another may not. An empty tensor (a dimension of 0) is legal.
Cost:    no copy but for BF16, BYTES and data that is not aligned; BYTES costs a Python object an element.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from guard.types import Array, InvalidQuery

MAX_RANK = 16
MAX_ELEMENTS = 64 * 1024 * 1024
ANY_ELEMENTS = 2**40  # numpy can still address them; the bytes that came are the bound
SHOWN_CHARACTERS = 64

Buffer = bytes | memoryview

WIRE_DTYPES: Mapping[str, np.dtype[np.generic]] = MappingProxyType(
    {
        "BOOL": np.dtype("?"),
        "INT8": np.dtype("i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "UINT8": np.dtype("u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "FP16": np.dtype("<f2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
        "BF16": np.dtype("<u2"),
        "BYTES": np.dtype("O"),
    }
)
_FLOATS = np.dtype("<f4")


def show(text: str) -> str:
    """A client's string, safe and short enough to stand in an error text."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")


def dtype_of(datatype: str) -> np.dtype[np.generic]:
    """The dtype of decoded arrays. Raises InvalidQuery for an unknown datatype."""
    if datatype not in WIRE_DTYPES:
        raise InvalidQuery(f"unknown datatype {show(datatype)}")
    return _FLOATS if datatype == "BF16" else WIRE_DTYPES[datatype]


def datatype_of(dtype: np.dtype[np.generic]) -> str:
    """The OIP name of a numpy dtype. Raises ValueError where there is none."""
    for name, known in WIRE_DTYPES.items():
        if dtype == known:
            return name
    raise ValueError(f"no datatype for numpy's {dtype}")


def count_elements(shape: Sequence[int], max_elements: int = MAX_ELEMENTS) -> int:
    """How many elements a declared shape has. Raises InvalidQuery past any bound.

    The bound holds for the non-zero dimensions alone, too: numpy cannot make (0, 2**62) either.
    """
    if len(shape) > MAX_RANK:
        raise InvalidQuery(f"the shape has {len(shape)} dimensions, at most {MAX_RANK} are taken")
    least = min(shape, default=1)
    if least < 0:
        raise InvalidQuery("the shape has a negative dimension")
    elements = math.prod(shape)
    if (elements if least else math.prod(dim or 1 for dim in shape)) > max_elements:
        raise InvalidQuery(f"the shape has more than {max_elements} elements")
    return elements


_known_count = lru_cache(maxsize=512)(count_elements)


def decode_array(datatype: str, shape: Sequence[int], raw: Buffer, *, max_elements: int = MAX_ELEMENTS) -> Array:
    """Raw bytes -> a read-only array of this shape. Raises InvalidQuery where they do not fit exactly."""
    decoded, elements = dtype_of(datatype), _known_count(tuple(shape), max_elements)
    if datatype == "BYTES":
        return strings(_split(raw, elements), shape)
    expected = elements * WIRE_DTYPES[datatype].itemsize
    if len(raw) != expected:
        raise InvalidQuery(f"the shape needs {expected} bytes of {datatype}, {len(raw)} came")
    if datatype == "BOOL" and (np.frombuffer(raw, dtype="u1") > 1).any():
        raise InvalidQuery("a BOOL byte is neither 0 nor 1")
    array = np.frombuffer(raw, dtype=WIRE_DTYPES[datatype])
    if not array.flags.aligned:  # a part of a message stands anywhere in it
        array = array.copy()
    if datatype == "BF16":
        array = (array.astype("<u4") << 16).view(decoded)
    return frozen(array.reshape(shape))


def encode_array(array: Array, datatype: str) -> bytes:
    """An array -> raw bytes. Raises ValueError where values would change beyond rounding of floats."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(item)) + item for item in items(array))
    if datatype == "BF16":
        return _to_bf16(cast(array, np.dtype("<f4"))).tobytes()
    return cast(array, dtype_of(datatype)).tobytes()


def cast(array: Array, dtype: np.dtype[np.generic]) -> Array:
    """The array in this dtype. Floats may be rounded; integers and booleans must be exact, else ValueError."""
    if array.dtype == dtype:
        return array
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"{array.dtype} does not go into {dtype}")
    with np.errstate(over="ignore"):
        new = array.astype(dtype, copy=False)
    if new.dtype.kind in "iu" and not np.array_equal(new, array):
        raise ValueError(f"a value is out of the range of {dtype}")
    return new


def strings(values: Sequence[bytes], shape: Sequence[int]) -> Array:
    """Byte strings -> a read-only object array."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return frozen(array.reshape(shape))


def items(array: Array) -> list[bytes]:
    """An object array -> its byte strings. Raises ValueError for anything else in it."""
    values = array.ravel().tolist()
    if not all(isinstance(value, bytes) for value in values):
        raise ValueError("BYTES takes object arrays of bytes")
    return list(values)


def frozen(array: Array) -> Array:
    """The same array, read-only."""
    array.setflags(write=False)
    return array


def _split(raw: Buffer, count: int) -> list[bytes]:
    """The elements of a raw BYTES tensor. Raises InvalidQuery where the lengths do not add up."""
    if 4 * count > len(raw):
        raise InvalidQuery(f"the shape needs {count} strings, {len(raw)} bytes cannot hold them")
    values, at = [], 0
    for _ in range(count):
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        if at > len(raw):
            raise InvalidQuery("a BYTES element ends past the tensor's end")
        values.append(bytes(raw[start:at]))
    if at != len(raw):
        raise InvalidQuery(f"the shape needs {count} strings, bytes are left over behind them")
    return values


def _to_bf16(array: Array) -> Array:
    """float32 -> the upper 16 bits, rounded to nearest even; a NaN stays one."""
    bits = np.ascontiguousarray(array).view("<u4")
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    return np.asarray(np.where(np.isnan(array), (bits >> 16) | 0x40, rounded), dtype="<u2")
