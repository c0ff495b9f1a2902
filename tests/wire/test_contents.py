"""Typed tensors: every datatype in its own field, and in no other."""

import numpy as np
import pytest
from hypothesis import given

from guard.types import Array, InvalidQuery
from guard.wire.contents import FIELDS, decode_contents, encode_contents, is_empty
from guard.wire.open_inference_pb2 import InferTensorContents
from guard.wire.tensors import dtype_of

from . import strategies

ONE_IN_EACH = {
    "bool_contents": [True],
    "int_contents": [1],
    "int64_contents": [1],
    "uint_contents": [1],
    "uint64_contents": [1],
    "fp32_contents": [1.0],
    "fp64_contents": [1.0],
    "bytes_contents": [b"1"],
}


def decode(datatype: str, shape: tuple[int, ...], contents: InferTensorContents, max_elements: int = 100) -> Array:
    return decode_contents(datatype, shape, contents, max_elements=max_elements)


@given(strategies.tensors(strategies.TYPED))
def test_round_trip(tensor: tuple[str, Array]) -> None:
    datatype, array = tensor
    contents = InferTensorContents.FromString(encode_contents(array, datatype).SerializeToString())
    again = decode(datatype, array.shape, contents, 10_000)
    assert strategies.same(again, array)
    assert not again.flags.writeable
    assert is_empty(contents) == (array.size == 0)


@pytest.mark.parametrize("field", ONE_IN_EACH)
@pytest.mark.parametrize("datatype", FIELDS)
def test_only_the_datatypes_own_field_counts(datatype: str, field: str) -> None:
    contents = InferTensorContents(**{field: ONE_IN_EACH[field]})
    if FIELDS[datatype] == field:
        array = decode(datatype, (1,), contents)
        assert array.dtype == dtype_of(datatype)
        assert array.tolist() == ONE_IN_EACH[field]
    else:
        with pytest.raises(InvalidQuery, match=f"{datatype} values belong in {FIELDS[datatype]}, some are in {field}"):
            decode(datatype, (1,), contents)


def test_two_fields_are_one_too_many() -> None:
    with pytest.raises(InvalidQuery, match="some are in int_contents"):
        decode("FP32", (1,), InferTensorContents(fp32_contents=[1.0], int_contents=[1]))


def test_a_field_of_a_later_protocol_is_refused() -> None:
    contents = InferTensorContents.FromString(b"\x4a\x01x" + InferTensorContents(fp32_contents=[1]).SerializeToString())
    assert not is_empty(InferTensorContents.FromString(b"\x4a\x01x"))
    with pytest.raises(InvalidQuery, match="some are in no known field"):
        decode("FP32", (1,), contents)


@pytest.mark.parametrize(
    ("datatype", "low", "high"),
    [
        ("INT8", -(2**7), 2**7 - 1),
        ("INT16", -(2**15), 2**15 - 1),
        ("UINT8", 0, 2**8 - 1),
        ("UINT16", 0, 2**16 - 1),
    ],
)
def test_ranges(datatype: str, low: int, high: int) -> None:
    def contents(*values: int) -> InferTensorContents:
        return InferTensorContents(**{FIELDS[datatype]: values})

    assert decode(datatype, (2,), contents(low, high)).tolist() == [low, high]
    for outside in (high + 1, low - 1) if low else (high + 1,):
        with pytest.raises(InvalidQuery, match=f"out of the range of {datatype}"):
            decode(datatype, (2,), contents(0, outside))


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_travels_raw_only(datatype: str) -> None:
    with pytest.raises(InvalidQuery, match=f"{datatype} has no typed form, send it raw"):
        decode(datatype, (1,), InferTensorContents(fp32_contents=[1.0]))
    with pytest.raises(ValueError, match="no typed form"):
        encode_contents(np.zeros(1, np.float32), datatype)


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("datatype", FIELDS)
def test_as_many_values_as_the_shape_says(datatype: str, count: int) -> None:
    field = FIELDS[datatype]
    contents = InferTensorContents(**{field: ONE_IN_EACH[field] * count})
    with pytest.raises(InvalidQuery, match=f"the shape needs 2 values in {field}, {count} came"):
        decode(datatype, (2, 1), contents)


def test_unknown_datatypes_and_bad_shapes() -> None:
    with pytest.raises(InvalidQuery, match="unknown datatype"):
        decode("FP8", (1,), InferTensorContents())
    with pytest.raises(InvalidQuery, match="more than 100 elements"):
        decode("FP32", (101,), InferTensorContents())


def test_values_are_never_changed_silently() -> None:
    with pytest.raises(ValueError, match="out of the range"):
        encode_contents(np.array([300]), "INT8")
