"""More rows in one request, and some rows of an answer: what lets Guard's own questions travel with a caller's.

Source: Open Inference Protocol: tensors are row-major, so that the rows of a batch stand one behind the other, raw or
        typed; every input and every output has the batch as its first axis.
Choices: bytes that are there already are not encoded again: a caller's own rows stay as they came.
         An output that lacks data (shared memory), or has another number of rows than were asked about, cannot be
         told apart by rows: InvalidAnswer.
"""

from collections.abc import Mapping, Sequence

from guard.types import Array, InvalidQuery
from guard.wire import tensors
from guard.wire.carriers import Tensor, carriers_of, check_names, pair
from guard.wire.contents import FIELDS, encode_contents
from guard.wire.messages import InvalidAnswer, parse
from guard.wire.open_inference_pb2 import ModelInferRequest, ModelInferResponse

LENGTH_BYTES = 4  # before each element of BYTES


def stack(message: ModelInferRequest, parts: Sequence[Mapping[str, Array]], *, behind: bool) -> bytes:
    """The request with the rows of all parts, each of which has every input: behind its own rows, or in their place.

    Inputs keep datatype and encoding. Raises ValueError where a part does not fit.
    """
    made = ModelInferRequest()
    made.CopyFrom(message)
    for index, tensor in enumerate(carriers_of(made)):
        arrays = [part[tensor.name] for part in parts]
        if made.raw_input_contents:
            own = made.raw_input_contents[index] if behind else b""
            encoded = [tensors.encode_array(array, tensor.datatype) for array in arrays]
            made.raw_input_contents[index] = b"".join([own, *encoded])
        else:
            if not behind:
                tensor.contents.Clear()
            for array in arrays:
                tensor.contents.MergeFrom(encode_contents(array, tensor.datatype))
        tensor.shape[0] = (tensor.shape[0] if behind else 0) + sum(map(len, arrays))
    return made.SerializeToString()


def cut(body: bytes, start: int, stop: int, total: int) -> bytes:
    """The response with the rows from `start` to `stop` of each output, all of which must have `total` rows.

    Datatypes, encodings and whatever else is in it stay. Raises InvalidAnswer.
    """
    message = parse(ModelInferResponse, body, InvalidAnswer)
    try:
        check_names([tensor.name for tensor in message.outputs], "output")
        pairs = pair(carriers_of(message), list(message.raw_output_contents), "output")
    except InvalidQuery as error:
        raise InvalidAnswer(str(error)) from None
    for index, (tensor, raw) in enumerate(pairs):
        if list(tensor.shape[:1]) != [total]:
            raise InvalidAnswer(f"output {tensors.show(tensor.name)} has not {total} rows")
        if raw is None:
            _cut_contents(tensor, start, stop, total)
        else:
            message.raw_output_contents[index] = _cut_raw(tensor.datatype, raw, start, stop, total)
        tensor.shape[0] = stop - start
    return message.SerializeToString()


def _cut_raw(datatype: str, raw: bytes, start: int, stop: int, total: int) -> bytes:
    if datatype == "BYTES":
        ends = _ends(raw)
        each = _each(len(ends) - 1, total)
        return raw[ends[start * each] : ends[stop * each]]
    each = _each(len(raw), total)
    return raw[start * each : stop * each]


def _cut_contents(tensor: Tensor, start: int, stop: int, total: int) -> None:
    field = FIELDS.get(tensor.datatype)
    if field is None:
        raise InvalidAnswer(f"output {tensors.show(tensor.name)} has no typed form")
    values = getattr(tensor.contents, field)
    each = _each(len(values), total)
    del values[stop * each :]
    del values[: start * each]


def _each(length: int, total: int) -> int:
    """What one row takes of a length."""
    if length == 0 or length % total:
        raise InvalidAnswer("an output's data cannot be divided into its rows")
    return length // total


def _ends(raw: bytes) -> list[int]:
    """Where the elements of a raw BYTES tensor begin, and where the last one ends."""
    ends, at = [0], 0
    while at < len(raw):
        at += LENGTH_BYTES + int.from_bytes(raw[at : at + LENGTH_BYTES], "little")
        ends.append(at)
    if at != len(raw):
        raise InvalidAnswer("a BYTES element ends past the tensor's end")
    return ends
