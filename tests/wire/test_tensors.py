"""Raw tensors, against bytes written by hand from the protocol's text."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.types import Array, InvalidQuery
from guard.wire import tensors
from guard.wire.tensors import decode_array, encode_array

from . import strategies

BY_HAND = [
    ("BOOL", b"\x00\x01", [False, True]),
    ("INT8", b"\x80\x7f", [-128, 127]),
    ("INT16", b"\x00\x80\x01\x02", [-32768, 0x0201]),
    ("INT32", b"\x01\x00\x00\x00\xff\xff\xff\xff", [1, -1]),
    ("INT64", b"\x01" + 7 * b"\x00" + 7 * b"\x00" + b"\x80", [1, -(2**63)]),
    ("UINT8", b"\x00\xff", [0, 255]),
    ("UINT16", b"\x01\x02\xff\xff", [0x0201, 65535]),
    ("UINT32", b"\x01\x02\x03\x04\xff\xff\xff\xff", [0x04030201, 2**32 - 1]),
    ("UINT64", b"\x01" + 7 * b"\x00" + 8 * b"\xff", [1, 2**64 - 1]),
    ("FP16", b"\x00\x3c\x00\xc0", [1.0, -2.0]),
    ("BF16", b"\x80\x3f\x00\xc0", [1.0, -2.0]),
    ("FP32", b"\x00\x00\x80\x3f\x00\x00\x00\xc0", [1.0, -2.0]),
    ("FP64", 6 * b"\x00" + b"\xf0\x3f" + 7 * b"\x00" + b"\xc0", [1.0, -2.0]),
    ("BYTES", b"\x00\x00\x00\x00\x03\x00\x00\x00a\x00\xff", [b"", b"a\x00\xff"]),
]


@pytest.mark.parametrize(("datatype", "raw", "values"), BY_HAND)
def test_bytes_by_hand(datatype: str, raw: bytes, values: list) -> None:
    array = decode_array(datatype, (2,), raw)
    assert array.tolist() == values
    assert array.dtype == tensors.dtype_of(datatype)
    assert not array.flags.writeable
    assert encode_array(array, datatype) == raw


def test_by_hand_covers_every_datatype() -> None:
    assert {datatype for datatype, _, _ in BY_HAND} == set(tensors.WIRE_DTYPES)


def test_a_view_copies_nothing() -> None:
    raw = bytes(64)
    array = decode_array("FP32", (4, 4), raw)
    assert array.ctypes.data == np.frombuffer(raw, np.uint8).ctypes.data


@given(strategies.tensors())
def test_round_trip(tensor: tuple[str, Array]) -> None:
    datatype, array = tensor
    raw = encode_array(array, datatype)
    again = decode_array(datatype, array.shape, raw)
    assert strategies.same(again, array)
    assert encode_array(again, datatype) == raw or np.isnan(array.astype(float)).any()  # NaNs have many patterns


@pytest.mark.parametrize("datatype", [name for name in tensors.WIRE_DTYPES if name != "BYTES"])
@pytest.mark.parametrize("excess", [-1, 1])
def test_bytes_must_fit_exactly(datatype: str, excess: int) -> None:
    size = 6 * tensors.WIRE_DTYPES[datatype].itemsize
    with pytest.raises(InvalidQuery, match=f"the shape needs {size} bytes of {datatype}, {size + excess} came"):
        decode_array(datatype, (2, 3), bytes(size + excess))


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((-1,), "negative"),
        ((-1, -6), "negative"),
        ((0, -1), "negative"),
        ((2**63 - 1, 2**63 - 1), "more than 100 elements"),
        ((2**32, 2**32), "more than 100 elements"),  # 2**64 wraps to 0 in a machine's integers
        ((0, 101), "more than 100 elements"),
        ((101,), "more than 100 elements"),
        ((1,) * 17, "17 dimensions, at most 16"),
    ],
)
@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_shapes_that_are_none(shape: tuple[int, ...], text: str, datatype: str) -> None:
    with pytest.raises(InvalidQuery, match=text):
        decode_array(datatype, shape, b"", max_elements=100)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0, 2)])
@pytest.mark.parametrize("datatype", tensors.WIRE_DTYPES)
def test_empty_tensors_are_legal(datatype: str, shape: tuple[int, ...]) -> None:
    array = decode_array(datatype, shape, b"")
    assert array.shape == shape
    assert encode_array(array, datatype) == b""


def test_as_many_elements_as_allowed() -> None:
    assert decode_array("UINT8", (10, 10), bytes(100), max_elements=100).size == 100


def test_what_is_bounded_by_its_bytes_can_be_made_by_numpy() -> None:
    assert decode_array("FP64", (0, tensors.ANY_ELEMENTS), b"", max_elements=tensors.ANY_ELEMENTS).size == 0


def test_a_scalar_has_one_element() -> None:
    assert decode_array("INT8", (), b"\x05").shape == ()
    assert encode_array(np.array(5, np.int8), "INT8") == b"\x05"
    assert encode_array(np.array(1.0, np.float32), "BF16") == b"\x80\x3f"


@pytest.mark.parametrize("byte", [2, 255])
def test_a_boolean_is_0_or_1(byte: int) -> None:
    with pytest.raises(InvalidQuery, match="neither 0 nor 1"):
        decode_array("BOOL", (3,), bytes([0, byte, 1]))


@pytest.mark.parametrize("datatype", ["", "FP8", "fp32", "STRING", "FP32\n"])
def test_unknown_datatypes(datatype: str) -> None:
    with pytest.raises(InvalidQuery, match="unknown datatype"):
        decode_array(datatype, (0,), b"")


def test_error_texts_are_short_and_printable() -> None:
    with pytest.raises(InvalidQuery) as caught:
        decode_array("\x1b[2J\n" + "x" * 10_000, (0,), b"")
    assert len(str(caught.value)) < 120
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "2 strings, 0 bytes cannot hold them"),
        (b"\x00\x00\x00\x00\x00\x00\x00", "2 strings, 7 bytes cannot hold them"),
        (struct.pack("<I", 5) + b"abcd", "ends past the tensor's end"),
        (struct.pack("<I", 2**32 - 1) + b"abcd", "ends past the tensor's end"),
        (struct.pack("<I", 3) + b"abc" + b"\x00\x00\x00", "ends past the tensor's end"),  # half a length
        (struct.pack("<II", 0, 0) + b"x", "left over"),
        (struct.pack("<III", 0, 0, 0), "left over"),
    ],
)
def test_broken_strings(raw: bytes, text: str) -> None:
    with pytest.raises(InvalidQuery, match=text):
        decode_array("BYTES", (2,), raw)


@given(st.sampled_from(strategies.DATATYPES), st.lists(st.integers(-1, 5), max_size=4), st.binary(max_size=60))
def test_any_bytes_are_an_array_or_invalid(datatype: str, shape: list[int], raw: bytes) -> None:
    try:
        array = decode_array(datatype, shape, raw, max_elements=64)
    except InvalidQuery:
        return
    assert array.shape == tuple(shape)
    assert array.size <= 64


def ulp16(value: float) -> bytes:
    """BF16 by exact arithmetic: the nearest multiple of the last place; at a tie, the even one."""
    mantissa, exponent = np.frexp(value)
    return struct.pack("<f", np.ldexp(round(float(mantissa) * 256), int(exponent) - 8))[2:]


@given(st.floats(width=32, min_value=2.0**-120, max_value=2.0**120))
def test_bf16_rounds_to_nearest_even(value: float) -> None:
    assert encode_array(np.array([value], np.float32), "BF16") == ulp16(value)
    assert encode_array(np.array([-value], np.float32), "BF16") == ulp16(-value)


@pytest.mark.parametrize(
    ("bits", "upper"),
    [
        (0x3F808000, 0x3F80),  # a tie, to the even side below
        (0x3F818000, 0x3F82),  # a tie, to the even side above
        (0x3F808001, 0x3F81),
        (0x3F807FFF, 0x3F80),
        (0x7F7FFFFF, 0x7F80),  # the largest float32 rounds to infinity
        (0x7F800000, 0x7F80),
        (0xFF800000, 0xFF80),
        (0x7F800001, 0x7FC0),  # a NaN whose payload lies in the lower half stays a NaN
        (0xFFFFFFFF, 0xFFFF),
        (0x80000000, 0x8000),
    ],
)
def test_bf16_by_hand(bits: int, upper: int) -> None:
    array = np.array([bits], np.uint32).view(np.float32)
    assert encode_array(array, "BF16") == struct.pack("<H", upper)


def test_arrays_in_any_order_and_endianness() -> None:
    x = np.arange(6, dtype=">i4").reshape(2, 3)
    assert encode_array(x, "INT32") == struct.pack("<6i", *range(6))
    assert encode_array(np.asfortranarray(x), "INT32") == struct.pack("<6i", *range(6))
    assert encode_array(x[:, ::-1], "INT32") == struct.pack("<6i", 2, 1, 0, 5, 4, 3)
    assert encode_array(x[:, ::-1].astype(np.float32), "BF16")[:2] == b"\x00\x40"


def test_floats_may_be_rounded() -> None:
    assert encode_array(np.array([0.1, 1e300]), "FP32") == struct.pack("<2f", 0.1, np.inf)


@pytest.mark.parametrize(
    ("array", "datatype"),
    [
        (np.array([128]), "INT8"),
        (np.array([-129]), "INT8"),
        (np.array([2**63], np.uint64), "UINT32"),
        (np.array([1.0]), "INT8"),
        (np.array([-1]), "UINT8"),
        (np.array([1]), "BOOL"),
        (np.array([1.0j]), "FP32"),
        (np.array(["text"], object), "BYTES"),
        (np.array([1]), "BYTES"),
        (np.array([b"x"], object), "FP32"),
    ],
)
def test_values_are_never_changed_silently(array: Array, datatype: str) -> None:
    with pytest.raises(ValueError) as caught:
        encode_array(array, datatype)
    assert not isinstance(caught.value, InvalidQuery)


@pytest.mark.parametrize("datatype", [name for name in tensors.WIRE_DTYPES if name != "BF16"])
def test_names_of_dtypes(datatype: str) -> None:
    assert tensors.datatype_of(tensors.dtype_of(datatype)) == datatype
    assert tensors.datatype_of(tensors.dtype_of(datatype).newbyteorder("<")) == datatype


def test_dtypes_without_a_name() -> None:
    with pytest.raises(ValueError, match="complex128"):
        tensors.datatype_of(np.dtype(complex))
