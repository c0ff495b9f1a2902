"""Requests and responses, built field by field."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.types import Array, InvalidQuery, ModelMetadata, TensorSpec
from guard.wire import messages
from guard.wire.messages import InvalidAnswer
from guard.wire.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataResponse,
    ModelStreamInferResponse,
)
from guard.wire.tensors import encode_array

from . import strategies

X = np.arange(6, dtype=np.float32).reshape(2, 3)
S = np.array([b"a", b"bc"], dtype=object)
UNKNOWN = b"\xfa\x07\x03abc"  # field 127


def typical(raw: bool = True) -> ModelInferRequest:
    """x (2, 3) FP32 and s (2,) BYTES."""
    message = ModelInferRequest(model_name="m", model_version="3", id="r-1")
    message.inputs.add(name="x", datatype="FP32", shape=[2, 3])
    message.inputs.add(name="s", datatype="BYTES", shape=[2])
    if raw:
        message.raw_input_contents.extend([X.tobytes(), b"\x01\0\0\0a\x02\0\0\0bc"])
    else:
        message.inputs[0].contents.fp32_contents.extend(range(6))
        message.inputs[1].contents.bytes_contents.extend([b"a", b"bc"])
    return message


def parse(message: ModelInferRequest | bytes, max_rows: int = 100, max_elements: int = 1000) -> messages.Inference:
    body = message if isinstance(message, bytes) else message.SerializeToString()
    return messages.parse_request(body, max_rows=max_rows, max_elements=max_elements)


def light(message: ModelInferRequest | bytes) -> messages.Inference | None:
    body = message if isinstance(message, bytes) else message.SerializeToString()
    return messages.parse_light(body, max_rows=100, max_elements=10**6)


def plain(floats: int = 4) -> ModelInferRequest:
    message = ModelInferRequest(model_name="m", raw_input_contents=[bytes(4 * floats)])
    message.inputs.add(name="x", datatype="FP32", shape=[1, floats])
    return message


def test_a_light_request_is_read_as_any_other() -> None:
    found, other = light(plain()), parse(plain())
    assert found is not None
    assert (found.message, found.body, found.rows, found.raw) == (other.message, other.body, other.rows, other.raw)
    assert strategies.same(found.tensors["x"], other.tensors["x"])
    assert light(plain(messages.LIGHT_BYTES // 4 - 100)) is not None


def test_what_may_take_longer_is_not_light() -> None:
    assert light(plain(messages.LIGHT_BYTES // 4)) is None
    assert light(typical()) is None  # strings
    typed = typical(raw=False)
    del typed.inputs[1]
    assert light(typed) is not None
    typed.inputs[0].contents.fp32_contents.extend([0.0] * messages.LIGHT_REST)
    assert light(typed) is None
    assert light(typical(raw=False)) is None
    many = plain()
    many.raw_input_contents.extend([b""] * messages.LIGHT_FIELDS)
    assert light(many) is None
    assert light(b"\x0b") is None


def test_a_light_request_that_is_wrong_is_refused() -> None:
    wrong = plain()
    wrong.raw_input_contents.append(b"")
    with pytest.raises(InvalidQuery, match="2 raw contents for 1 input"):
        light(wrong)


def test_contents_in_odd_encoding_are_the_parsers() -> None:
    message = plain()
    body = message.SerializeToString()
    odd = body.replace(b"\x3a\x10", b"\x3a\x90\x00")
    assert odd != body
    found = parse(odd)
    assert list(found.contents) == list(message.raw_input_contents)
    assert found.message == parse(body).message


@pytest.mark.parametrize("before", range(8))
def test_tensors_are_aligned_wherever_they_stand(before: int) -> None:
    message = typical()
    message.model_name = "m" * before
    for array in parse(message).tensors.values():
        assert array.flags.aligned
    assert strategies.same(parse(message).tensors["x"], X)


@pytest.mark.parametrize("raw", [True, False])
def test_a_request_is_read(raw: bool) -> None:
    body = typical(raw).SerializeToString()
    inference = parse(body)
    assert (inference.model, inference.version, inference.id) == ("m", "3", "r-1")
    assert inference.body is body
    assert inference.raw is raw
    assert inference.rows == 2
    assert not inference.sequence
    assert list(inference.tensors) == ["x", "s"]
    assert strategies.same(inference.tensors["x"], X)
    assert strategies.same(inference.tensors["s"], S)
    assert not any(array.flags.writeable for array in inference.tensors.values())


def mixed(message: ModelInferRequest) -> None:
    message.inputs[1].contents.bytes_contents.append(b"hidden")


def mixed_unknown(message: ModelInferRequest) -> None:
    message.inputs[0].contents.MergeFromString(UNKNOWN)


def fewer_raw(message: ModelInferRequest) -> None:
    del message.raw_input_contents[1]


def more_raw(message: ModelInferRequest) -> None:
    message.raw_input_contents.append(b"")


def twice(message: ModelInferRequest) -> None:
    message.inputs[1].CopyFrom(message.inputs[0])


def rows(message: ModelInferRequest) -> None:
    message.inputs[0].shape[0] = 101


def elements(message: ModelInferRequest) -> None:
    message.inputs[0].shape[1] = 501


def short(message: ModelInferRequest) -> None:
    message.raw_input_contents[0] = b"1234"


def typed_shared(message: ModelInferRequest) -> None:
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    message.inputs[0].contents.fp32_contents.append(1.0)
    del message.raw_input_contents[0]


def raw_shared(message: ModelInferRequest) -> None:
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (mixed, "input 's': typed contents and raw contents exclude each other"),
        (mixed_unknown, "input 'x': typed contents and raw contents exclude each other"),
        (fewer_raw, "1 raw contents for 2 inputs"),
        (more_raw, "3 raw contents for 2 inputs"),
        (twice, "input 'x' is given twice"),
        (rows, "input 'x' has 101 rows, at most 100 are taken"),
        (elements, "input 'x': the shape has more than 1000 elements"),
        (short, "input 'x': the shape needs 24 bytes of FP32, 4 came"),
        (typed_shared, "input 'x' has contents beside shared memory"),
        (raw_shared, "2 raw contents for 1 inputs"),
    ],
)
def test_what_two_servers_may_read_differently_is_refused(
    spoil: Callable[[ModelInferRequest], None], text: str
) -> None:
    message = typical()
    spoil(message)
    with pytest.raises(InvalidQuery) as caught:
        parse(message)
    assert str(caught.value) == text


def test_a_typed_input_without_data_is_refused() -> None:
    message = typical(raw=False)
    message.inputs[0].ClearField("contents")
    with pytest.raises(InvalidQuery, match="input 'x': the shape needs 6 values in fp32_contents, 0 came"):
        parse(message)


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x02\xff\xfe", b"\x0a\x05m", b"POST / HTTP/1.1"])
def test_other_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidQuery, match="the message is not a ModelInferRequest"):
        parse(body)


def test_a_bomb_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(InvalidQuery, match="more than 65536 fields"):
        parse(b"*\x00" * 70_000)
    assert messages.request_id(b"*\x00" * 70_000 + ModelInferRequest(id="r").SerializeToString()) == ""


def test_a_request_id_outlives_what_is_wrong_with_the_rest() -> None:
    message = typical()
    mixed(message)
    assert messages.request_id(message.SerializeToString()) == "r-1"
    assert messages.request_id(b"\xff") == ""


def test_empty_contents_beside_raw_contents_hold_nothing() -> None:
    message = typical()
    message.inputs[0].contents.SetInParent()
    assert strategies.same(parse(message).tensors["x"], X)


def test_no_inputs_at_all() -> None:
    inference = parse(b"")
    assert inference.tensors == {}
    assert inference.rows is None


def test_empty_tensors_need_no_contents() -> None:
    message = ModelInferRequest()
    message.inputs.add(name="x", datatype="FP32", shape=[0, 3])
    assert parse(message).tensors["x"].shape == (0, 3)
    assert parse(message).rows == 0


@pytest.mark.parametrize(
    ("shapes", "rows"),
    [([(2, 1), (2,)], 2), ([(2, 1), (3,)], None), ([(2, 1), ()], None), ([()], None)],
)
def test_rows_are_what_all_inputs_have(shapes: list[tuple[int, ...]], rows: int | None) -> None:
    arrays = {str(i): np.zeros(shape, np.int8) for i, shape in enumerate(shapes)}
    assert parse(messages.build_request("m", arrays)).rows == rows


@pytest.mark.parametrize(
    ("field", "value", "sequence"),
    [
        ("int64_param", 7, True),
        ("int64_param", -1, True),
        ("int64_param", 0, False),
        ("uint64_param", 7, True),
        ("string_param", "s", True),
        ("string_param", "", False),
        (None, None, False),
    ],
)
def test_sequences(field: str | None, value: object, sequence: bool) -> None:
    message = typical()
    parameter = message.parameters["sequence_id"]
    if field is not None:
        setattr(parameter, field, value)
    assert parse(message).sequence is sequence


def test_hidden_parameters() -> None:
    message = typical()
    message.outputs.add(name="y")
    assert messages.hidden_parameters(parse(message)) == frozenset()
    message.outputs[0].parameters["classification"].int64_param = 3
    assert messages.hidden_parameters(parse(message)) == {"classification"}
    message.outputs[0].parameters["shared_memory_offset"].int64_param = 0
    assert messages.hidden_parameters(parse(message)) == {"classification", "shared_memory"}


@pytest.mark.parametrize("name", ["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"])
@pytest.mark.parametrize("place", ["request", "input", "output"])
def test_shared_memory_is_seen_wherever_it_is_named(name: str, place: str) -> None:
    message = typical()
    output = message.outputs.add(name="y")
    target = {"request": message, "input": message.inputs[0], "output": output}[place]
    target.parameters[name].SetInParent()
    if (name, place) == ("shared_memory_region", "input"):
        del message.raw_input_contents[0]
    assert messages.hidden_parameters(parse(message)) == {"shared_memory"}


def shared() -> ModelInferRequest:
    """As tritonclient sends it: no raw contents for the input in shared memory."""
    message = typical()
    message.inputs[0].parameters["shared_memory_region"].string_param = "region"
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param = 24
    del message.raw_input_contents[0]
    return message


def test_inputs_in_shared_memory_carry_no_tensor() -> None:
    inference = parse(shared())
    assert list(inference.tensors) == ["s"]
    assert messages.hidden_parameters(inference) == {"shared_memory"}


MODEL = ModelMetadata(
    name="m",
    versions=("1",),
    platform="p",
    inputs=(TensorSpec("x", "FP32", (-1, 3)), TensorSpec("s", "BYTES", (2,))),
    outputs=(),
)


def against(message: ModelInferRequest, model: ModelMetadata = MODEL, **options: frozenset[str]) -> None:
    messages.check_against(parse(message), model, **options)


def renamed(message: ModelInferRequest) -> None:
    message.inputs[0].name = "z"


def retyped(message: ModelInferRequest) -> None:
    message.inputs[0].datatype = "INT32"


def flat(message: ModelInferRequest) -> None:
    message.inputs[0].shape[:] = [6]


def narrow(message: ModelInferRequest) -> None:
    message.inputs[0].shape[:] = [3, 2]


def only_x(message: ModelInferRequest) -> None:
    del message.inputs[1]
    del message.raw_input_contents[1]


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (renamed, "the model has no input 'z'"),
        (retyped, "input 'x' is 'INT32', the model takes FP32"),
        (flat, "input 'x' has 1 dimensions, the model takes 2"),
        (narrow, "input 'x' has shape [3, 2], the model takes [-1, 3]"),
        (only_x, "input 's' is missing"),
    ],
)
def test_what_the_model_does_not_take(spoil: Callable[[ModelInferRequest], None], text: str) -> None:
    message = typical()
    against(message)
    spoil(message)
    with pytest.raises(InvalidQuery) as caught:
        against(message)
    assert str(caught.value) == text


def test_optional_inputs_may_be_left_out() -> None:
    message = typical()
    only_x(message)
    against(message, required=frozenset({"x"}))
    with pytest.raises(InvalidQuery, match="input 's' is missing"):
        against(message, required=frozenset({"s"}))


def test_inputs_in_shared_memory_are_checked_too() -> None:
    message = shared()
    against(message)
    message.inputs[0].datatype = "FP64"
    with pytest.raises(InvalidQuery, match="input 'x' is 'FP64'"):
        against(message)


def test_a_model_that_names_no_inputs_takes_any() -> None:
    against(typical(), ModelMetadata("m", (), "", (), ()))


@pytest.mark.parametrize("raw", [True, False])
def test_replacing_an_input_leaves_the_rest_alone(raw: bool) -> None:
    message = typical(raw)
    message.parameters["priority"].int64_param = 1
    message.outputs.add(name="y").parameters["k"].bool_param = True
    message.inputs[1].MergeFromString(UNKNOWN)
    message.MergeFromString(UNKNOWN)
    inference = parse(message)
    before = inference.message.SerializeToString(deterministic=True)
    bodies = messages.replace_input(inference, "x", X * 2), messages.replace_input(inference, "s", S[::-1])
    assert inference.message.SerializeToString(deterministic=True) == before
    for body, changed in zip(bodies, ({"x": X * 2}, {"s": S[::-1]}), strict=True):
        again = parse(body)
        for name, array in ({"x": X, "s": S} | changed).items():
            assert strategies.same(again.tensors[name], array)
        assert again.raw is raw
        restored = ModelInferRequest.FromString(body)
        index = 0 if "x" in changed else 1
        restored.inputs[index].CopyFrom(message.inputs[index])
        if raw:
            restored.raw_input_contents[index] = message.raw_input_contents[index]
        assert restored.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
        assert body.count(UNKNOWN) == 2


def test_replacing_past_an_input_in_shared_memory() -> None:
    body = messages.replace_input(parse(shared()), "s", S[::-1])
    assert list(ModelInferRequest.FromString(body).raw_input_contents) == [b"\x02\0\0\0bc\x01\0\0\0a"]
    with pytest.raises(ValueError, match="no tensor 'x' with data"):
        messages.replace_input(parse(shared()), "x", X)


def test_replacing_sets_the_shape() -> None:
    inference = parse(messages.replace_input(parse(typical()), "x", X[:1]))
    assert inference.tensors["x"].shape == (1, 3)


def test_replacing_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="no tensor 'z'"):
        messages.replace_input(parse(typical()), "z", X)


@given(strategies.tensors(), st.booleans())
def test_any_tensor_passes_through_a_request(tensor: tuple[str, Array], raw: bool) -> None:
    datatype, array = tensor
    raw = raw or datatype not in strategies.TYPED
    body = messages.build_request("m", {"x": array}, datatypes={"x": datatype}, raw=raw)
    inference = parse(body, 1000, 10_000)
    assert strategies.same(inference.tensors["x"], array)
    again = parse(messages.replace_input(inference, "x", array), 1000, 10_000)
    assert strategies.same(again.tensors["x"], array)
    assert again.message.inputs[0].datatype == datatype


def test_build_request_names_version_and_outputs() -> None:
    message = parse(messages.build_request("m", {"x": X}, version="2", outputs=["y", "z"])).message
    assert message.model_version == "2"
    assert [output.name for output in message.outputs] == ["y", "z"]
    assert message.inputs[0].datatype == "FP32"


def test_wanting_an_output() -> None:
    message = typical()
    everything = message.SerializeToString()
    assert messages.want_output(everything, "y") == (everything, False)
    message.outputs.add(name="z")
    one = message.SerializeToString()
    assert messages.want_output(one, "z") == (one, False)
    body, added = messages.want_output(one, "y")
    assert added
    assert [output.name for output in ModelInferRequest.FromString(body).outputs] == ["z", "y"]
    with pytest.raises(InvalidQuery):
        messages.want_output(b"\xff", "y")


def test_wanting_an_output_in_numbers_and_in_the_answer() -> None:
    """Guard's own calls must not write into the client's memory, and need the output itself."""
    message = typical()
    message.outputs.add(name="y").parameters["classification"].int64_param = 1
    message.outputs.add(name="z").parameters["shared_memory_region"].string_param = "region"
    message.outputs[1].parameters["shared_memory_byte_size"].int64_param = 8
    message.outputs[1].parameters["kept"].bool_param = True
    for name, names in (("y", ["y", "z"]), ("w", ["y", "z", "w"])):
        body, lacking = messages.want_output(message.SerializeToString(), name)
        assert lacking
        outputs = ModelInferRequest.FromString(body).outputs
        assert [output.name for output in outputs] == names
        assert [list(output.parameters) for output in outputs][:2] == [[], ["kept"]]
    message.outputs[0].parameters.clear()
    body, lacking = messages.want_output(message.SerializeToString(), "y")
    assert not lacking
    assert [list(output.parameters) for output in ModelInferRequest.FromString(body).outputs] == [[], ["kept"]]


def answer(raw: bool = True) -> ModelInferResponse:
    """y (2, 3) FP32, labels (2,) BYTES."""
    message = ModelInferResponse(model_name="m", id="r-1")
    message.outputs.add(name="labels", datatype="BYTES", shape=[2])
    message.outputs.add(name="y", datatype="FP32", shape=[2, 3])
    if raw:
        message.raw_output_contents.extend([encode_array(S, "BYTES"), X.tobytes()])
    else:
        message.outputs[0].contents.bytes_contents.extend(S.tolist())
        message.outputs[1].contents.fp32_contents.extend(range(6))
    return message


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("empty_contents", [True, False])
def test_a_response_is_read(raw: bool, empty_contents: bool) -> None:
    message = answer(raw)
    if empty_contents:  # as MLServer sets them beside raw contents
        for output in message.outputs:
            output.contents.SetInParent()
    outputs = messages.parse_response(message.SerializeToString())
    assert list(outputs) == ["labels", "y"]
    assert strategies.same(outputs["y"], X)
    assert strategies.same(outputs["labels"], S)


def test_outputs_in_shared_memory_are_left_out() -> None:
    """Triton leaves their raw contents empty."""
    message = answer()
    message.raw_output_contents[0] = b""
    body = message.SerializeToString()
    assert list(messages.parse_response(body)) == ["y"]
    replaced = messages.replace_output(body, "y", X + 1)
    assert list(ModelInferResponse.FromString(replaced).raw_output_contents) == [b"", (X + 1).tobytes()]
    with pytest.raises(ValueError, match="no output 'labels' with data"):
        messages.replace_output(body, "labels", S)


def test_an_empty_output_is_there() -> None:
    message = ModelInferResponse()
    message.outputs.add(name="y", datatype="FP32", shape=[0, 3])
    message.raw_output_contents.append(b"")
    assert messages.parse_response(message.SerializeToString())["y"].shape == (0, 3)


def half(message: ModelInferResponse) -> None:
    message.outputs[1].datatype = "FP16"


def fewer(message: ModelInferResponse) -> None:
    message.raw_output_contents.append(b"")


def same_name(message: ModelInferResponse) -> None:
    message.outputs[1].name = "labels"


@pytest.mark.parametrize(
    ("raw", "spoil", "text"),
    [
        (False, half, "output 'y': FP16 has no typed form"),
        (True, half, "output 'y': the shape needs 12 bytes"),
        (True, fewer, "3 raw contents for 2 outputs"),
        (True, same_name, "output 'labels' is given twice"),
    ],
)
def test_a_servers_mistake_is_no_clients(raw: bool, spoil: Callable[[ModelInferResponse], None], text: str) -> None:
    message = answer(raw)
    spoil(message)
    for read in (messages.parse_response, lambda body: messages.replace_output(body, "y", X)):
        with pytest.raises(InvalidAnswer, match=text) as caught:
            read(message.SerializeToString())
        assert not isinstance(caught.value, InvalidQuery)


@pytest.mark.parametrize("read", [messages.parse_response, messages.parse_metadata])
def test_other_bytes_are_no_answer(read: Callable[[bytes], object]) -> None:
    with pytest.raises(InvalidAnswer, match="the message is not a Model"):
        read(b"\xff")


@pytest.mark.parametrize("raw", [True, False])
def test_replacing_an_output_mirrors_encoding_dtype_and_shape(raw: bool) -> None:
    message = answer(raw)
    message.parameters["k"].string_param = "v"
    message.outputs[0].MergeFromString(UNKNOWN)
    message.MergeFromString(UNKNOWN)
    y = np.arange(6, dtype=np.float64).reshape(6, 1) + 0.5
    body = messages.replace_output(message.SerializeToString(), "y", y)
    outputs = messages.parse_response(body)
    assert strategies.same(outputs["y"], y.astype(np.float32).reshape(2, 3))
    assert strategies.same(outputs["labels"], S)
    restored = ModelInferResponse.FromString(body)
    assert bool(restored.raw_output_contents) is raw
    restored.outputs[1].CopyFrom(message.outputs[1])
    if raw:
        restored.raw_output_contents[1] = message.raw_output_contents[1]
    assert restored.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)


def test_an_output_of_another_size_does_not_fit() -> None:
    with pytest.raises(ValueError, match="reshape"):
        messages.replace_output(answer().SerializeToString(), "y", X[:1])
    with pytest.raises(ValueError, match="no output 'z'"):
        messages.replace_output(answer().SerializeToString(), "z", X)


@given(strategies.tensors(), st.booleans())
def test_any_output_passes_through_a_response(tensor: tuple[str, Array], raw: bool) -> None:
    datatype, array = tensor
    message = ModelInferResponse()
    output = message.outputs.add(name="y", datatype=datatype, shape=array.shape)
    if raw or datatype not in strategies.TYPED:
        message.raw_output_contents.append(encode_array(array, datatype))
    else:
        request = messages.build_request("m", {"y": array}, raw=False)
        output.contents.CopyFrom(ModelInferRequest.FromString(request).inputs[0].contents)
    body = message.SerializeToString()
    assert strategies.same(messages.parse_response(body)["y"], array)
    again = messages.replace_output(body, "y", array)
    assert strategies.same(messages.parse_response(again)["y"], array)


def test_metadata() -> None:
    message = ModelMetadataResponse(name="m", versions=["1", "2"], platform="p")
    message.inputs.add(name="x", datatype="FP32", shape=[-1, 3])
    message.outputs.add(name="y", datatype="BYTES")
    message.MergeFromString(b"\x32\x06\x0a\x01k\x12\x01v")  # field 6 is a map of one kind or another
    assert messages.parse_metadata(message.SerializeToString()) == ModelMetadata(
        "m", ("1", "2"), "p", (TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "BYTES", ()),)
    )


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 70_000])
def test_a_stream_message_is_wrapped_as_it_is(size: int) -> None:
    body = ModelInferResponse(id="x" * size).SerializeToString()
    assert messages.wrap_stream(body, "mlserver") is body
    wrapped = messages.wrap_stream(body, "triton")
    assert wrapped == ModelStreamInferResponse(infer_response=ModelInferResponse(id="x" * size)).SerializeToString()
    assert messages.unwrap_stream(wrapped, "triton") == body
    assert messages.unwrap_stream(body, "mlserver") is body


def test_a_wrapped_response_keeps_even_bytes_that_are_not_canonical() -> None:
    body = UNKNOWN + b"\x1a\x01a\x1a\x01b"
    assert messages.wrap_stream(body, "triton") == b"\x12" + bytes([len(body)]) + body


def test_errors_on_a_stream() -> None:
    body = messages.stream_error("no such model", "triton", "r-1")
    assert body is not None
    message = ModelStreamInferResponse.FromString(body)
    assert (message.error_message, message.infer_response.id) == ("no such model", "r-1")
    assert messages.unwrap_stream(body, "triton") is None
    assert messages.stream_error("no such model", "mlserver") is None
    with pytest.raises(InvalidAnswer):
        messages.unwrap_stream(b"\xff", "triton")
