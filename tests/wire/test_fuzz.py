"""Whatever bytes come, a request is read or invalid, and what was read can be written again."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from guard.types import InvalidQuery
from guard.wire import messages
from guard.wire.messages import InvalidAnswer
from guard.wire.open_inference_pb2 import InferTensorContents, ModelInferRequest, ModelInferResponse

from .strategies import same
from .test_messages import answer, typical

MAX_ROWS, MAX_ELEMENTS = 8, 64
NAMES = st.sampled_from(["x", "y", ""])
INTS = st.sampled_from([0, 1, 2, 3, 8, 9, -1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)])
DATATYPE_NAMES = st.sampled_from(["FP32", "INT8", "BYTES", "BOOL", "UINT64", "BF16", "FP16", "", "fp32"])
CONTENTS = st.builds(
    InferTensorContents,
    fp32_contents=st.lists(st.floats(width=32), max_size=3),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    bool_contents=st.lists(st.booleans(), max_size=1),
    bytes_contents=st.lists(st.binary(max_size=3), max_size=2),
)
INPUTS = st.builds(
    ModelInferRequest.InferInputTensor,
    name=NAMES,
    datatype=DATATYPE_NAMES,
    shape=st.lists(INTS, max_size=3),
    contents=st.none() | CONTENTS,
)
REQUESTS = st.builds(
    ModelInferRequest,
    model_name=NAMES,
    inputs=st.lists(INPUTS, max_size=3),
    raw_input_contents=st.lists(st.binary(max_size=12), max_size=3),
)


def read(body: bytes) -> messages.Inference | str:
    try:
        return messages.parse_request(body, max_rows=MAX_ROWS, max_elements=MAX_ELEMENTS)
    except InvalidQuery as error:
        return str(error)


def check_request(body: bytes) -> None:
    inference = read(body)
    if isinstance(inference, str):
        assert inference.isprintable()
        assert 0 < len(inference) < 300
        return
    assert messages.hidden_parameters(inference) <= {"shared_memory", "classification"}
    assert inference.rows is None or inference.rows <= MAX_ROWS
    for name, array in inference.tensors.items():
        assert array.size <= MAX_ELEMENTS
        again = messages.replace_input(inference, name, array)
        reread = read(again)
        assert isinstance(reread, messages.Inference)
        assert same(reread.tensors[name], array)
        assert reread.raw is inference.raw


@settings(max_examples=400)
@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    check_request(body)


@settings(max_examples=400)
@given(REQUESTS)
def test_any_request(message: ModelInferRequest) -> None:
    check_request(message.SerializeToString())


@settings(max_examples=400)
@given(st.booleans(), st.integers(0, 2**16), st.binary(max_size=3))
@example(raw=True, at=0, damage=b"")
def test_any_damage_to_a_good_request(raw: bool, at: int, damage: bytes) -> None:
    body = typical(raw).SerializeToString()
    at %= len(body)
    check_request(body[:at] + damage + body[at + len(damage) :])


@settings(max_examples=400)
@given(st.booleans(), st.integers(0, 2**16), st.binary(max_size=3), st.binary(max_size=100))
@example(raw=True, at=0, damage=b"", other=b"")
def test_any_answer(raw: bool, at: int, damage: bytes, other: bytes) -> None:
    body = answer(raw).SerializeToString()
    at %= len(body)
    for message in (body[:at] + damage + body[at + len(damage) :], other):
        try:
            outputs = messages.parse_response(message)
        except InvalidAnswer:
            continue
        for name, array in outputs.items():
            assert same(messages.parse_response(messages.replace_output(message, name, array))[name], array)


@given(st.binary(max_size=100))
def test_any_metadata_and_stream(body: bytes) -> None:
    for parse in (messages.parse_metadata, lambda body: messages.unwrap_stream(body, "triton")):
        try:
            parse(body)
        except InvalidAnswer:
            continue
    wrapped = messages.wrap_stream(body, "triton")
    try:
        message = ModelInferResponse.FromString(body)
    except Exception:  # noqa: BLE001 - the parser's own error, whatever it is
        return
    assert messages.unwrap_stream(wrapped, "triton") == message.SerializeToString()
