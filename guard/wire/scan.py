"""A look at a message's outline before it is parsed: a parser makes an object of every two bytes that ask for one.

Source: the protobuf encoding.
Answers: memory exhaustion. An empty input takes two bytes, and 45 times as much in the parser: one request of 64 MiB
         would take 3 GB before any limit on tensors is looked at.
Choices: only fields are counted, of the request and of the inputs and outputs in it; values are the parser's business.
         Contents are not entered: they grow 16-fold at most (bytes into int64), and max_request_bytes bounds them.
         Raw contents are cut out on the way, so that nobody copies them.
Cost:    one step a field, MAX_FIELDS at most: some 30 ms at worst, microseconds for what clients send.
"""

from collections.abc import Iterator
from itertools import islice

from guard import kernels
from guard.types import InvalidQuery

MAX_FIELDS = 65_536
MAX_SHAPE_BYTES = 1024
MAX_TAG = 2**32 - 1
_INPUTS, _OUTPUTS, _RAW, _SHAPE = 5, 6, 7, 3  # field numbers
_MALFORMED = "the message is not a ModelInferRequest"
_FIXED = {1: 8, 5: 4}  # sizes by wire type

Field = tuple[int, bool, int, int]
"""Number, whether the value is length-delimited, the value's start and end."""


def check_outline(body: bytes) -> None:
    """Raises InvalidQuery for a ModelInferRequest with too many fields, or whose fields do not add up."""
    divide(body)


def divide(body: bytes, most: int = MAX_FIELDS) -> tuple[bytes, tuple[memoryview, ...]]:
    """A ModelInferRequest without its raw contents, and these, in order, where they stand. Raises InvalidQuery.

    A parser copies contents, twice; so it is given the rest. Where a tag or a length is written in more bytes than it
    needs, it is given everything: what it makes of that is its own. most: fields.
    """
    found = fields(body, 0, len(body), most)
    count, rest, end_of_rest, contents = len(found), [], 0, []
    view, before, odd = memoryview(body), 0, False
    for number, blob, start, end in found:
        if blob and number in {_INPUTS, _OUTPUTS}:
            inner = fields(body, start, end, most)
            count += len(inner)
            _check_count(count, most)
            if number == _INPUTS:
                _check_shape(inner)
        elif blob and number == _RAW:
            odd = odd or start - before != 1 + _varint_bytes(end - start)
            rest.append(body[end_of_rest:before])
            end_of_rest = end
            contents.append(view[start:end])
        before = end
    if odd:
        return body, ()
    rest.append(body[end_of_rest:])
    return b"".join(rest), tuple(contents)


def _varint_bytes(value: int) -> int:
    return (max(value.bit_length(), 1) + 6) // 7


def _check_shape(tensor: list[Field]) -> None:
    for number, blob, start, end in tensor:
        if number == _SHAPE and blob and end - start > MAX_SHAPE_BYTES:
            raise InvalidQuery("an input's shape is too long")


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise InvalidQuery(f"the message has more than {most} fields")


def fields(body: bytes, start: int, end: int, most: int = MAX_FIELDS) -> list[Field]:
    """The fields between two offsets. Raises InvalidQuery where they do not add up, or are more than `most`."""
    if kernels.compiled is None:
        found = list(islice(_fields(body, start, end), most + 1))
    else:
        found = kernels.compiled.fields(body, start, end, most)
        if found is None:
            raise InvalidQuery(_MALFORMED)
    _check_count(len(found), most)
    return found


def _fields(body: bytes, start: int, end: int) -> Iterator[Field]:
    at = start
    while at < end:
        tag, at = _varint(body, at, end)
        wire = tag & 7
        if tag > MAX_TAG:  # more than a parser keeps of it
            raise InvalidQuery(_MALFORMED)
        if wire == 0:
            stop = _varint(body, at, end)[1]
        elif wire == 2:  # noqa: PLR2004 - length-delimited
            size, at = _varint(body, at, end)
            stop = at + size
        elif wire in _FIXED:
            stop = at + _FIXED[wire]
        else:  # groups: no version of the protocol has them
            raise InvalidQuery(_MALFORMED)
        if stop > end:
            raise InvalidQuery(_MALFORMED)
        yield tag >> 3, wire == 2, at, stop  # noqa: PLR2004
        at = stop


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    """A variable-length integer and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last group
            return value, at
    raise InvalidQuery(_MALFORMED)
