import numpy as np
import pytest

from adversary import messages
from adversary.endpoint import Endpoint, OracleError
from guard.wire import open_inference_pb2 as pb

X = np.linspace(0, 1, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


def tongue(shape=(-1, 3, 4, 5), datatype="FP32", **options):
    metadata = pb.ModelMetadataResponse(name="m")
    metadata.inputs.add(name="x", datatype=datatype, shape=shape)
    metadata.outputs.add(name="y", datatype="FP32", shape=[-1, 2])
    return messages.tongue(Endpoint("a:1", "m", "3", **options), metadata.SerializeToString())


def parsed(request):
    return pb.ModelInferRequest.FromString(request.body)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 50, 500])
def test_a_request_is_what_protobuf_makes_of_it(rows):
    """Whatever the length of the tensor, whose bytes are put behind the message by hand."""
    x = np.random.default_rng(0).random((rows, 3, 4, 5), np.float32)
    plain = pb.ModelInferRequest(model_name="m", model_version="3")
    plain.inputs.add(name="x", datatype="FP32", shape=x.shape)
    plain.outputs.add(name="y")
    plain.raw_input_contents.append(x.tobytes())
    made = tongue().request(x)
    assert parsed(made) == plain
    assert bytes(made.raw) == x.tobytes()


@pytest.mark.parametrize(("number", "form"), [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02")])
def test_varints_as_in_protobufs_manual(number, form):
    assert messages.varint(number).hex() == form


def test_a_typed_request_has_no_raw_bytes():
    made = tongue(encoding="typed").request(X)
    message = parsed(made)
    assert not message.raw_input_contents
    assert np.array_equal(message.inputs[0].contents.fp32_contents, X.ravel())
    assert bytes(made.raw) == X.tobytes()


def test_a_request_keeps_what_was_sent_when_the_input_changes_afterwards():
    x = X.copy()
    made = tongue().request(x)
    x[:] = 0
    assert bytes(made.raw) == X.tobytes()


def test_the_models_layout_and_dtype():
    made = tongue((-1, 4, 5, 3), "UINT8", layout="nchw_to_nhwc", high=255.0).request(X)
    sent = parsed(made)
    assert list(sent.inputs[0].shape) == [2, 4, 5, 3]
    values = np.frombuffer(sent.raw_input_contents[0], np.uint8).reshape(2, 4, 5, 3)
    assert np.array_equal(values, np.rint(np.moveaxis(X, 1, -1).astype(float) * 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("have", "shape", "sent"),
    [
        ((2, 12), (-1, 1, 3, 4), (2, 1, 3, 4)),
        ((2, 3, 4), (-1, 1, 3, 4), (2, 1, 3, 4)),
        ((2, 1, 3, 4), (-1, 3, 4), (2, 3, 4)),
        ((2, 1, 3, 4), (-1, 3, 4, 1), (2, 3, 4, 1)),
        ((2, 1, 3, 4), (-1, 12), (2, 12)),
        ((2, 1, 3, 4), (-1, -1), (2, 12)),
        ((2, 1, 3, 4), (-1, -1, 3, 4), (2, 1, 3, 4)),
        ((2, 7), (-1,), (2, 7)),
        ((2, 7), (), (2, 7)),
    ],
)
def test_rows_get_the_models_shape_where_no_value_moves(have, shape, sent):
    assert messages.fitted(np.zeros(have), shape).shape == sent


@pytest.mark.parametrize(
    ("have", "shape", "message"),
    [
        ((2, 3, 4, 5), (-1, 4, 5, 3), "is its layout another"),
        ((2, 4, 3), (-1, 3, 4), "is its layout another"),
        ((2, 5), (-1, 4), "do not fit"),
        ((2, 3, 4), (-1, 2, 6), "do not fit"),
        ((2, 3, 4), (-1, 13), "do not fit"),
    ],
)
def test_rows_whose_values_would_change_their_neighbours_are_not_sent(have, shape, message):
    with pytest.raises(ValueError, match=message):
        messages.fitted(np.zeros(have), shape)


def answer(values, shape, raw=True):
    response = pb.ModelInferResponse(model_name="m")
    response.outputs.add(name="other", datatype="FP32", shape=[1])
    output = response.outputs.add(name="y", datatype="FP32", shape=shape)
    if raw:
        response.raw_output_contents.extend([b"\0" * 4, np.asarray(values, np.float32).tobytes()])
    else:
        output.contents.fp32_contents.extend(values)
    return response.SerializeToString()


@pytest.mark.parametrize("raw", [True, False])
def test_an_answer(raw):
    assert tongue().answer(answer([1, 2, 3, 4], [2, 2], raw), 2).tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (answer([1, 2], [1, 2]), "2 rows were sent, 1 were answered"),
        (answer([1, 2, 3], [2, 2]), "cannot be read"),
        (answer([1, 2, 3], [2, 2], raw=False), "cannot be read"),
        (pb.ModelInferResponse().SerializeToString(), "lacks output 'y'"),
        (b"\xff", "no message"),
    ],
)
def test_an_answer_that_is_none(body, message):
    with pytest.raises(OracleError, match=message):
        tongue().answer(body, 2)


def test_a_form_that_cannot_be_is_said_at_once():
    with pytest.raises(OracleError, match="above 0"):
        tongue(std=(0.0,))
