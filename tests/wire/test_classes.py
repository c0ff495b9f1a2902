"""Triton's classification extension, read and written: entries as Triton 2.51 wrote them."""

from typing import Any

import numpy as np
import pytest

from guard.wire import classes, messages, tensors
from guard.wire import open_inference_pb2 as pb
from guard.wire.messages import InvalidAnswer

ROWS = [
    [b"0.500000:2:cat", b"0.300000:0:a:b", b"0.200000:1:dog"],
    [b"0.400000:1:dog", b"0.400000:0:a:b", b"0.200000:2:cat"],
]


def strings(rows: list) -> Any:
    made = np.empty(np.shape(rows), dtype=object)
    made[...] = rows
    return made


def response(rows: list, *, raw: bool = True) -> bytes:
    array = strings(rows)
    message = pb.ModelInferResponse(model_name="m", model_version="1")
    output = message.outputs.add(name="y", datatype="BYTES", shape=array.shape)
    message.outputs.add(name="z", datatype="FP32", shape=[1])
    if raw:
        message.raw_output_contents.extend([tensors.encode_array(array, "BYTES"), b"\0\0\x80\x3f"])
    else:
        output.contents.bytes_contents.extend(tensors.items(array))
        message.outputs[1].contents.fp32_contents.append(1.0)
    return message.SerializeToString() + b"\xfa\x3e\x03abc"  # an unknown field


def request(count: Any, *, outputs: tuple[str, ...] = ("y",), on: tuple[str, ...] = ("y",), kind: str = "int64") -> Any:
    message = pb.ModelInferRequest.FromString(messages.build_request("m", {"x": np.zeros((2, 4), np.float32)}))
    for name in outputs:
        output = message.outputs.add(name=name)
        if name in on:
            setattr(output.parameters["classification"], f"{kind}_param", count)
    return messages.parse_request(message.SerializeToString(), max_rows=99, max_elements=999)


def count_of(body: bytes) -> int:
    return pb.ModelInferRequest.FromString(body).outputs[0].parameters["classification"].int64_param


def test_a_request_is_widened_to_all_classes_and_narrowed_again() -> None:
    before = request(1)
    after = classes.widen(before, "y", 3)
    assert (after.classes, count_of(after.body), after.received) == (1, 3, before.body)
    whole = pb.ModelInferRequest.FromString(after.body)
    assert list(whole.raw_input_contents) == list(after.contents)
    whole.ClearField("raw_input_contents")
    assert after.message == whole
    assert count_of(before.message.SerializeToString()) == 1
    assert classes.narrow(after.body, "y", 1) == before.body


def test_a_widened_request_with_another_input_still_asks_for_all_classes() -> None:
    after = classes.widen(request(1), "y", 3)
    body = messages.replace_input(after, "x", np.ones((2, 4), np.float32))
    assert count_of(body) == 3
    assert messages.parse_request(body, max_rows=99, max_elements=999).tensors["x"].min() == 1.0


@pytest.mark.parametrize("count", [3, 4, 2**31 - 1])
def test_a_request_for_all_is_left_as_it_came(count: int) -> None:
    after = classes.widen(request(count), "y", 3)
    assert (after.classes, after.body) == (count, request(count).body)


@pytest.mark.parametrize(
    "inference",
    [
        request(0),
        request(-1),
        request(2**31),
        request("1", kind="string"),
        request(1, kind="uint64"),
        request(1, outputs=("z",), on=("z",)),
        request(1, outputs=("y", "z"), on=("y", "z")),
        request(1, outputs=("y", "y")),  # Triton takes the first one's number
        request(1, outputs=("y",), on=()),
    ],
)
def test_what_triton_reads_in_its_own_way_is_not_taken(inference: Any) -> None:
    after = classes.widen(inference, "y", 3)
    assert after is inference
    assert after.classes is None


def test_scores_go_back_to_their_index() -> None:
    scores = classes.read(strings(ROWS), 3, "FP32")
    assert scores is not None
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, np.array([[0.3, 0.2, 0.5], [0.4, 0.4, 0.2]], np.float32))
    one = classes.read(strings(ROWS[0]), 3, "FP64")  # a model that does not batch
    assert one is not None
    assert one.tolist() == [[0.3, 0.2, 0.5]]
    whole = classes.read(strings([[b"7:1", b"-2:0"]]), 2, "INT32")
    assert whole is not None
    assert whole.tolist() == [[-2, 7]]


@pytest.mark.parametrize(
    "rows",
    [
        [[b"0.5:2", b"0.3:0"]],  # not all
        [[b"0.5:2", b"0.3:0", b"0.2:0"]],  # one twice
        [[b"0.5:2", b"0.3:0", b"0.2:3"]],
        [[b"0.5:2", b"0.3:0", b"0.2:-1"]],
        [[b"0.5:2", b"0.3:0", b"0.2"]],
        [[b"0.5:2", b"0.3:0", b":1"]],
        [[b"0.5:2", b"0.3:0", b"\xff:1"]],
        [[b"0.5:2", b"0.3:0", b"0.2:" + b"1" * 5000]],
        [[[b"0.5:2", b"0.3:0", b"0.2:1"]]],
    ],
)
def test_other_strings_are_no_classes(rows: list) -> None:
    assert classes.read(strings(rows), 3, "FP32") is None
    with pytest.raises(InvalidAnswer):
        classes.cut(response(rows), "y", 1, classes=3, datatype="FP32", rows=None)


@pytest.mark.parametrize("raw", [True, False])
def test_an_answer_is_cut_and_all_else_in_it_stays(raw: bool) -> None:
    cut = classes.cut(response(ROWS, raw=raw), "y", 2, classes=3, datatype="FP32", rows=2)
    assert cut == response([row[:2] for row in ROWS], raw=raw)
    assert classes.cut(response(ROWS), "y", 9, classes=3, datatype="FP32", rows=2) == response(ROWS)
    assert classes.cut(response(ROWS), "other", 1, classes=3, datatype="FP32", rows=2) == response(ROWS)
    flat = classes.cut(response(ROWS[0]), "y", 1, classes=3, datatype="FP32", rows=1)
    assert flat == response(ROWS[0][:1])


def test_an_answer_for_other_rows_is_not_handed_on() -> None:
    with pytest.raises(InvalidAnswer):
        classes.cut(response(ROWS[0]), "y", 1, classes=3, datatype="FP32", rows=2)


@pytest.mark.parametrize("raw", [True, False])
def test_other_scores_take_their_labels_along(raw: bool) -> None:
    y = np.array([[0.1, 0.25, 0.65], [0.4, 0.4, 0.2]], np.float32)
    made = classes.write(response(ROWS, raw=raw), "y", y, "FP32")
    first = [b"0.650000:2:cat", b"0.250000:1:dog", b"0.100000:0:a:b"]
    assert made == response([first, ROWS[1]], raw=raw)  # the second row, a tie, keeps its order


def test_equal_scores_stand_in_the_order_of_their_index() -> None:
    made = classes.write(response(ROWS), "y", np.array([[0, 0, 1], [0, 1, 0]], np.float32), "FP32")
    assert messages.parse_response(made)["y"].tolist() == [
        [b"1.000000:2:cat", b"0.000000:0:a:b", b"0.000000:1:dog"],
        [b"1.000000:1:dog", b"0.000000:0:a:b", b"0.000000:2:cat"],
    ]


def test_scores_of_another_shape_do_not_fit() -> None:
    with pytest.raises(ValueError, match="fit"):
        classes.write(response(ROWS), "y", np.zeros((3, 3), np.float32), "FP32")


def test_a_request_that_names_no_output_is_left_as_it_is() -> None:
    plain = request(1, outputs=())
    assert classes.widen(plain, "y", 3) is plain
