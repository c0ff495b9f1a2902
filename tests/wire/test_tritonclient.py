"""Guard's reading of the wire against tritonclient's writing, and the other way round."""

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.grpc._utils import _get_inference_request
from tritonclient.utils import triton_to_np_dtype

from guard.types import Array
from guard.wire import messages
from guard.wire.tensors import WIRE_DTYPES, encode_array

from .strategies import same

DATATYPES = [name for name in WIRE_DTYPES if name != "BF16"]  # tritonclient wants ml_dtypes for that


def values(datatype: str) -> Array:
    """(2, 3), the range's ends among them."""
    if datatype == "BYTES":
        return np.array([[b"", b"a", b"\x00\xff"], ["日本".encode(), b"x" * 300, b"\n"]], dtype=object)
    dtype = np.dtype(triton_to_np_dtype(datatype))
    if dtype == np.bool_:
        return np.array([[True, False, True], [False, False, True]])
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return np.array([[limits.min, limits.max, 0], [1, 2, 3]], dtype=dtype)


def written(inputs: list[grpcclient.InferInput], **options: object) -> messages.Inference:
    settings = {
        "model_version": "",
        "request_id": "",
        "outputs": None,
        "sequence_id": 0,
        "sequence_start": False,
        "sequence_end": False,
        "priority": 0,
        "timeout": None,
        "parameters": None,
    }
    request = _get_inference_request(model_name="m", inputs=inputs, **(settings | options))
    return messages.parse_request(request.SerializeToString(), max_rows=100, max_elements=1000)


def infer_input(name: str, datatype: str, array: Array) -> grpcclient.InferInput:
    tensor = grpcclient.InferInput(name, array.shape, datatype)
    tensor.set_data_from_numpy(array)
    return tensor


@pytest.mark.parametrize("datatype", DATATYPES)
def test_what_tritonclient_writes_is_read(datatype: str) -> None:
    inference = written([infer_input("x", datatype, values(datatype))])
    assert inference.raw
    assert inference.rows == 2
    assert same(inference.tensors["x"], values(datatype))
    ours = messages.build_request("m", {"x": values(datatype)}, datatypes={"x": datatype})
    assert service_pb2.ModelInferRequest.FromString(ours) == service_pb2.ModelInferRequest.FromString(inference.body)


def test_its_options_are_understood() -> None:
    x = [infer_input("x", "FP32", values("FP32")), infer_input("empty", "BYTES", np.zeros((0,), object))]
    outputs = [grpcclient.InferRequestedOutput("y"), grpcclient.InferRequestedOutput("z", class_count=3)]
    inference = written(x, outputs=outputs, request_id="r", model_version="2", sequence_id="s", priority=1, timeout=5)
    assert (inference.id, inference.version, inference.sequence) == ("r", "2", True)
    assert inference.tensors["empty"].shape == (0,)
    assert messages.hidden_parameters(inference) == {"classification"}
    assert written(x, sequence_id=2**63 - 1).sequence
    assert not written(x).sequence


def test_its_shared_memory_is_seen() -> None:
    hidden = grpcclient.InferInput("x", [2, 3], "FP32")
    hidden.set_shared_memory("region", 24)
    inference = written([hidden, infer_input("s", "BYTES", values("BYTES"))])
    assert messages.hidden_parameters(inference) == {"shared_memory"}
    assert list(inference.tensors) == ["s"]
    output = grpcclient.InferRequestedOutput("y")
    output.set_shared_memory("region", 24)
    plain = infer_input("x", "FP32", values("FP32"))
    assert messages.hidden_parameters(written([plain], outputs=[output])) == {"shared_memory"}


@pytest.mark.parametrize("datatype", DATATYPES)
def test_what_is_replaced_tritonclient_reads(datatype: str) -> None:
    y = values(datatype)
    response = service_pb2.ModelInferResponse(model_name="m")
    for name, array in (("other", np.zeros(3, np.float32)), ("y", y)):
        kind = datatype if name == "y" else "FP32"
        response.outputs.add(name=name, datatype=kind, shape=array.shape)
        response.raw_output_contents.append(encode_array(array, kind))
    body = response.SerializeToString()
    for name in ("other", "y"):
        ours, theirs = messages.parse_response(body)[name], grpcclient.InferResult(response).as_numpy(name)
        assert same(ours, theirs)
    replaced = messages.replace_output(body, "y", y[::-1])
    result = grpcclient.InferResult(service_pb2.ModelInferResponse.FromString(replaced))
    assert same(result.as_numpy("y"), y[::-1])
    assert same(result.as_numpy("other"), np.zeros(3, np.float32))


def test_streams_are_tritons() -> None:
    body = service_pb2.ModelInferResponse(id="r").SerializeToString()
    message = service_pb2.ModelStreamInferResponse.FromString(messages.wrap_stream(body, "triton"))
    assert message.infer_response.id == "r"
    assert not message.error_message
    error = service_pb2.ModelStreamInferResponse.FromString(messages.stream_error("no", "triton", "r") or b"")
    assert (error.error_message, error.infer_response.id) == ("no", "r")


def test_field_numbers_are_the_protocols() -> None:
    """Every message that Guard declares has the fields of tritonclient's, number by number."""
    ours = messages.ModelInferRequest.DESCRIPTOR.file.message_types_by_name
    theirs = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}

    def fields(message: object) -> dict[str, tuple[int, int, bool]]:
        return {field.name: (field.number, field.type, field.is_repeated) for field in message.fields}

    checked = 0
    for name, message in ours.items():
        pairs = [(message, theirs[name])]
        while pairs:
            mine, other = pairs.pop()
            assert fields(mine).items() <= fields(other).items(), name
            pairs.extend((nested, other.nested_types_by_name[nested.name]) for nested in mine.nested_types)
            checked += 1
    assert checked > 15
