"""OIP tensors in typed form: the `contents` message of a tensor, one repeated field a family of datatypes.

Source: Open Inference Protocol, InferTensorContents.
Answers: parser differentials. Values in another field than the datatype's, in several, out of the datatype's range
         (servers truncate, clip or fail), or in a field that Guard does not know, are refused.
Choices: FP16 and BF16 have no field: they travel raw only.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from google.protobuf.unknown_fields import UnknownFieldSet

from guard.types import Array, InvalidQuery
from guard.wire import tensors
from guard.wire.open_inference_pb2 import InferTensorContents

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "bool_contents",
        "INT8": "int_contents",
        "INT16": "int_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
        "UINT8": "uint_contents",
        "UINT16": "uint_contents",
        "UINT32": "uint_contents",
        "UINT64": "uint64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
        "BYTES": "bytes_contents",
    }
)
_CARRIERS = MappingProxyType({"int_contents": np.dtype("<i4"), "uint_contents": np.dtype("<u4")})


def is_empty(contents: InferTensorContents) -> bool:
    """Whether nothing is in it, unknown fields included."""
    return contents.ByteSize() == 0


def decode_contents(datatype: str, shape: Sequence[int], contents: InferTensorContents, *, max_elements: int) -> Array:
    """Typed values -> a read-only array of this shape. Raises InvalidQuery where they do not fit exactly."""
    dtype, elements = tensors.dtype_of(datatype), tensors.count_elements(shape, max_elements)
    if datatype not in FIELDS:
        raise InvalidQuery(f"{datatype} has no typed form, send it raw")
    field = FIELDS[datatype]
    others = [descriptor.name for descriptor, _ in contents.ListFields() if descriptor.name != field]
    if others or len(UnknownFieldSet(contents)):
        raise InvalidQuery(
            f"{datatype} values belong in {field}, some are in {others[0] if others else 'no known field'}"
        )
    values = getattr(contents, field)
    if len(values) != elements:
        raise InvalidQuery(f"the shape needs {elements} values in {field}, {len(values)} came")
    if datatype == "BYTES":
        return tensors.strings(list(values), shape)
    array = np.fromiter(values, dtype=_CARRIERS.get(field, dtype), count=elements)
    try:
        return tensors.frozen(tensors.cast(array, dtype).reshape(shape))
    except ValueError:
        raise InvalidQuery(f"a value is out of the range of {datatype}") from None


def encode_contents(array: Array, datatype: str) -> InferTensorContents:
    """An array -> typed values. Raises ValueError where the datatype has no typed form or values would change."""
    if datatype not in FIELDS:
        raise ValueError(f"{datatype} has no typed form")
    if datatype == "BYTES":
        return InferTensorContents(bytes_contents=tensors.items(array))
    contents = InferTensorContents()
    getattr(contents, FIELDS[datatype]).extend(tensors.cast(array, tensors.dtype_of(datatype)).ravel().tolist())
    return contents
