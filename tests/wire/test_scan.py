"""The outline of a message, before it is parsed."""

import subprocess
import sys

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from guard import kernels
from guard.types import InvalidQuery
from guard.wire import scan
from guard.wire.open_inference_pb2 import ModelInferRequest
from guard.wire.scan import check_outline, divide

from .test_messages import typical


def blob(number: int, value: bytes) -> bytes:
    assert len(value) < 2**14
    return bytes([number << 3 | 2, len(value) & 0x7F | 0x80, len(value) >> 7]) + value


def test_what_clients_send_passes() -> None:
    check_outline(typical().SerializeToString())
    check_outline(b"")


@pytest.mark.parametrize(
    "body",
    [
        b"*\x00" * (scan.MAX_FIELDS + 1),
        b"2\x00" * (scan.MAX_FIELDS + 1),
        b":\x00" * (scan.MAX_FIELDS + 1),
        b"\xf8\x01\x00" * (scan.MAX_FIELDS + 1),  # unknown fields
        blob(5, b'"\x00' * 6000) * 11,  # parameters of inputs
        blob(6, b"\x12\x00" * 6000) * 11,
    ],
)
def test_too_many_fields(body: bytes) -> None:
    assert ModelInferRequest.FromString(body) is not None  # a parser takes it
    with pytest.raises(InvalidQuery, match="more than 65536 fields"):
        check_outline(body)


def test_as_many_fields_as_allowed() -> None:
    check_outline(b"*\x00" * scan.MAX_FIELDS)


def test_a_packed_shape_is_bounded() -> None:
    check_outline(blob(5, blob(3, b"\x01" * scan.MAX_SHAPE_BYTES)))
    with pytest.raises(InvalidQuery, match="shape is too long"):
        check_outline(blob(5, blob(3, b"\x01" * (scan.MAX_SHAPE_BYTES + 1))))


def test_only_inputs_have_shapes() -> None:
    check_outline(blob(6, blob(3, b"\x01" * 2000)))


def test_contents_are_not_entered() -> None:
    check_outline(blob(5, blob(5, b"\x08\x01" * 8000)))
    check_outline(blob(7, b"\xff" * 16000))


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a",  # no length
        b"\x0a\x02x",  # short
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # 2**64 - 1 bytes
        b"\x80",  # a tag that does not end
        b"\x08" + b"\xff" * 10 + b"\x01",  # eleven groups of a number
        b"\x09\x00",  # 64 bits, short
        b"\x0d\x00",  # 32 bits, short
        b"\x0b\x0c",  # a group
        b"\x0e\x00",  # wire type 6
        b"\xaa\x80\x80\x80\x10\x00",  # field 5 in the lower 32 bits of a tag
        b"*\x02\x0a\x05",  # an input that ends inside a field
        b"*\x01\x80",
    ],
)
def test_fields_that_do_not_add_up(body: bytes) -> None:
    with pytest.raises(InvalidQuery, match="not a ModelInferRequest"):
        check_outline(body)


def test_fixed_widths_are_skipped() -> None:
    check_outline(b"\x09" + bytes(8) + b"\x0d" + bytes(4) + b"\x08\xff\x01")


@given(st.binary(max_size=64))
def test_what_a_parser_takes_has_the_outline_seen_here(body: bytes) -> None:
    """Groups aside, the scan refuses nothing that the parser takes, and sees every field it sees."""
    try:
        message = ModelInferRequest.FromString(body)
    except DecodeError:
        return
    try:
        seen = [number for number, blob, _, _ in scan.fields(body, 0, len(body)) if blob]
    except InvalidQuery:
        assert any(byte & 7 in {3, 4} for byte in body)
        return
    assert seen.count(5) == len(message.inputs)
    assert seen.count(6) == len(message.outputs)
    assert seen.count(7) == len(message.raw_input_contents)


@pytest.mark.parametrize("compiled", [True, False])
def test_raw_contents_are_cut_out(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(kernels, "compiled", None)
    message = typical()
    body = message.SerializeToString()
    rest, contents = divide(body)
    assert list(contents) == list(message.raw_input_contents)
    message.ClearField("raw_input_contents")
    assert ModelInferRequest.FromString(rest) == message
    assert all(content.obj is body for content in contents)  # no copy


def test_contents_between_other_fields_keep_their_order() -> None:
    body = b"\x3a\x01a" + b"\x0a\x01m" + b"\x3a\x00" + b"\x12\x013" + b"\x3a\x01c" + b"\x38\x05"  # 7, a number
    rest, contents = divide(body)
    assert [bytes(content) for content in contents] == [b"a", b"", b"c"]
    assert rest == b"\x0a\x01m" + b"\x12\x013" + b"\x38\x05"
    assert list(ModelInferRequest.FromString(body).raw_input_contents) == [b"a", b"", b"c"]


@pytest.mark.parametrize("odd", [b"\xba\x00\x01a", b"\x3a\x81\x00a"])
def test_a_parser_gets_what_is_written_in_more_bytes_than_it_needs(odd: bytes) -> None:
    body = b"\x3a\x01b" + odd
    assert divide(body) == (body, ())


def test_counting_can_end_early() -> None:
    body = typical().SerializeToString()
    assert divide(body, 13) == divide(body)
    with pytest.raises(InvalidQuery, match="more than 3 fields"):
        divide(body, 3)
    with pytest.raises(InvalidQuery, match="more than 8 fields"):  # those of inputs count, too
        divide(body, 8)


@given(st.binary(max_size=64))
def test_what_a_parser_takes_it_takes_divided(body: bytes) -> None:
    try:
        whole = ModelInferRequest.FromString(body)
        rest, contents = divide(body)
    except (DecodeError, InvalidQuery):
        return
    message = ModelInferRequest.FromString(rest)
    message.raw_input_contents.extend(bytes(content) for content in contents)
    assert message == whole


def test_memory_stays_in_bounds() -> None:
    """16 MiB of empty inputs: refused in a few MiB; the parser alone (the control) takes hundreds."""
    code = """
import re, sys
from pathlib import Path
from guard import kernels
from guard.types import InvalidQuery
from guard.wire import messages
body = b"*\\0" * 2**23
def peak():  # of this program alone: ru_maxrss begins with what the process had before it became this program
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
if sys.argv[1] == "control":
    messages.ModelInferRequest.FromString(body)
else:
    try:
        messages.parse_request(body, max_rows=8, max_elements=8)
    except InvalidQuery:
        pass
print((peak() - before) // 1024)
"""

    def grown_mib(mode: str) -> int:
        done = subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert grown_mib("guarded") < 16
    assert grown_mib("control") > 256
