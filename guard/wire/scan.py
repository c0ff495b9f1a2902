"""A look at a message's outline before it is parsed: a parser makes an object of every two bytes that ask for one.

Source: the protobuf encoding.
Answers: memory exhaustion. An empty input takes two bytes, and 45 times as much in the parser: one request of 64 MiB
         would take 3 GB before any limit on tensors is looked at.
Choices: only fields are counted, of the request and of the inputs and outputs in it; values are the parser's business.
         Contents are not entered: they grow 16-fold at most (bytes into int64), and max_request_bytes bounds them.
Cost:    one step a field, MAX_FIELDS at most: some 30 ms at worst, microseconds for what clients send.
"""

from collections.abc import Iterator

from guard.types import InvalidQuery

MAX_FIELDS = 65_536
MAX_SHAPE_BYTES = 1024
MAX_TAG = 2**32 - 1
_INPUTS, _OUTPUTS, _SHAPE = 5, 6, 3  # field numbers
_MALFORMED = "the message is not a ModelInferRequest"
_FIXED = {1: 8, 5: 4}  # sizes by wire type


def check_outline(body: bytes) -> None:
    """Raises InvalidQuery for a ModelInferRequest with too many fields, or whose fields do not add up."""
    count = 0
    for number, blob, start, end in fields(body, 0, len(body)):
        count += 1
        if blob and number in {_INPUTS, _OUTPUTS}:
            for inner, inner_blob, inner_start, inner_end in fields(body, start, end):
                count += 1
                if number == _INPUTS and inner == _SHAPE and inner_blob and inner_end - inner_start > MAX_SHAPE_BYTES:
                    raise InvalidQuery("an input's shape is too long")
                _check_count(count)
        _check_count(count)


def _check_count(count: int) -> None:
    if count > MAX_FIELDS:
        raise InvalidQuery(f"the message has more than {MAX_FIELDS} fields")


def fields(body: bytes, start: int, end: int) -> Iterator[tuple[int, bool, int, int]]:
    """The fields between two offsets: number, whether its value is length-delimited, the value's start and end."""
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
