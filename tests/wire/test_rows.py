"""Rows put behind each other in requests, and told apart in answers: raw and typed, every datatype."""

import numpy as np
import pytest

from guard.types import Array
from guard.wire import messages, rows, tensors
from guard.wire.contents import FIELDS, encode_contents
from guard.wire.messages import InvalidAnswer
from guard.wire.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from guard.wire.tensors import WIRE_DTYPES

RAW = sorted(WIRE_DTYPES)
TYPED = sorted(FIELDS)


def values(datatype: str, count: int, seed: int = 0) -> Array:
    """(count, 3) of this datatype."""
    rng = np.random.default_rng(seed)
    if datatype == "BYTES":
        made = np.empty((count, 3), dtype=object)
        made[:] = [[b"x" * n for n in row] for row in rng.integers(0, 5, (count, 3))]
        return made
    return rng.integers(0, 2, (count, 3)).astype(tensors.dtype_of(datatype))


def request(arrays: dict[str, Array], datatypes: dict[str, str], *, raw: bool) -> ModelInferRequest:
    body = messages.build_request("m", arrays, datatypes=datatypes, outputs=["y"], raw=raw)
    message = ModelInferRequest.FromString(body)
    message.id = "mine"
    message.parameters["priority"].int64_param = 3
    return message


def read(body: bytes) -> messages.Inference:
    return messages.parse_request(body, max_rows=99, max_elements=999)


CASES = [*((datatype, True) for datatype in RAW), *((datatype, False) for datatype in TYPED)]


@pytest.mark.parametrize(("datatype", "raw"), CASES)
def test_rows_are_put_behind(datatype: str, raw: bool) -> None:
    own, more, last = (values(datatype, n, n) for n in (2, 3, 1))
    message = request({"x": own, "k": own[:, 0]}, {"x": datatype, "k": datatype}, raw=raw)
    before = message.SerializeToString(deterministic=True)
    parts = [{"x": more, "k": more[:, 0]}, {"x": last, "k": last[:, 0]}]
    made = read(rows.stack(message, parts, behind=True))
    assert made.rows == 6
    assert made.raw is raw
    assert np.array_equal(made.tensors["x"], np.concatenate([own, more, last]))
    assert np.array_equal(made.tensors["k"], np.concatenate([own, more, last])[:, 0])
    assert made.id == "mine"
    assert made.message.parameters["priority"].int64_param == 3
    assert [output.name for output in made.message.outputs] == ["y"]
    alone = read(rows.stack(message, parts, behind=False))
    assert np.array_equal(alone.tensors["x"], np.concatenate([more, last]))
    assert message.SerializeToString(deterministic=True) == before


def test_the_callers_own_bytes_are_not_encoded_again() -> None:
    """A signalling NaN in BF16 would not survive that."""
    message = request({"x": np.zeros((1, 1), np.float32)}, {"x": "BF16"}, raw=True)
    message.raw_input_contents[0] = b"\x81\x7f"
    made = ModelInferRequest.FromString(rows.stack(message, [{"x": np.ones((1, 1), np.float32)}], behind=True))
    assert made.raw_input_contents[0][:2] == b"\x81\x7f"


def test_what_does_not_fit_is_an_error() -> None:
    message = request({"x": np.zeros((1, 2), np.uint8)}, {}, raw=True)
    with pytest.raises(ValueError, match="does not go into"):
        rows.stack(message, [{"x": np.ones((1, 2), np.float32)}], behind=True)


def response(outputs: dict[str, tuple[str, Array]], *, raw: bool) -> bytes:
    message = ModelInferResponse(model_name="m", id="mine")
    for name, (datatype, array) in outputs.items():
        tensor = message.outputs.add(name=name, datatype=datatype, shape=array.shape)
        tensor.parameters["content_type"].string_param = "np"
        if raw:
            message.raw_output_contents.append(tensors.encode_array(array, datatype))
        else:
            tensor.contents.CopyFrom(encode_contents(array, datatype))
    return message.SerializeToString()


@pytest.mark.parametrize(("datatype", "raw"), CASES)
@pytest.mark.parametrize(("start", "stop"), [(0, 2), (2, 5), (5, 6), (0, 6), (3, 3)])
def test_rows_are_cut(datatype: str, raw: bool, start: int, stop: int) -> None:
    y = values(datatype, 6)
    both = {"y": (datatype, y), "label": ("INT32", np.arange(6, dtype=np.int32))}
    expected = {"y": (datatype, y[start:stop]), "label": ("INT32", np.arange(start, stop, dtype=np.int32))}
    made = rows.cut(response(both, raw=raw) + b"\xfa\x3e\x03abc", start, stop, 6)
    assert made == response(expected, raw=raw) + b"\xfa\x3e\x03abc"  # byte for byte, an unknown field included


def broken(**changes: object) -> bytes:
    message = ModelInferResponse()
    message.outputs.add(name="y", datatype="FP32", shape=[4, 1])
    message.raw_output_contents.append(bytes(16))
    for name, value in changes.items():
        if name == "raw":
            message.raw_output_contents[0] = value
        elif name == "shape":
            message.outputs[0].shape[:] = value
        elif name == "typed":
            del message.raw_output_contents[:]
            message.outputs[0].datatype = value
        elif name == "datatype":
            message.outputs[0].datatype = value
        elif name == "again":
            message.outputs.append(message.outputs[0])
            message.raw_output_contents.append(bytes(16))
        else:
            message.raw_output_contents.append(b"")
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\xff", "not a ModelInferResponse"),
        (broken(shape=[3, 1]), "has not 4 rows"),
        (broken(shape=[]), "has not 4 rows"),
        (broken(raw=b""), "cannot be divided"),  # in shared memory
        (broken(raw=bytes(15)), "cannot be divided"),
        (broken(datatype="BYTES", raw=b"\x09\0\0\0abc"), "ends past the tensor's end"),
        (broken(datatype="BYTES", raw=b"\x01\0\0\0a"), "cannot be divided"),
        (broken(typed="FP16"), "has no typed form"),
        (broken(typed="FP32"), "cannot be divided"),
        (broken(again=True), "given twice"),
        (broken(more=True), "2 raw contents for 1 outputs"),
    ],
)
def test_answers_whose_rows_cannot_be_told_apart(body: bytes, text: str) -> None:
    with pytest.raises(InvalidAnswer, match=text):
        rows.cut(body, 0, 1, 4)
    assert rows.cut(broken(), 0, 1, 4) == broken(shape=[1, 1], raw=bytes(4))
