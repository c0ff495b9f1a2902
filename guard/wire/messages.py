"""OIP messages: bytes to frozen views and back. What was not changed keeps its bytes, unknown fields included.

Source: Open Inference Protocol (KServe v2), Triton's and MLServer's supersets.
Answers: parser differentials between Guard and the server: a request whose tensors two parsers may read differently
         (both encodings, a tensor without data, a name given twice) is refused, never guessed.
Errors:  InvalidQuery for what a client sent, InvalidAnswer for what a server sent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeVar

from google.protobuf.message import DecodeError, Message

from guard.types import Array, InvalidQuery, ModelMetadata, TensorSpec
from guard.wire import tensors
from guard.wire.carriers import Tensor, carriers_of, check_names, decode, in_shared_memory, pair, replace
from guard.wire.contents import encode_contents, is_empty
from guard.wire.open_inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataResponse,
    ModelStreamInferResponse,
)
from guard.wire.scan import check_outline

Dialect = Literal["triton", "mlserver"]
Hidden = Literal["shared_memory", "classification"]
HIDDEN_PARAMETERS: Mapping[str, Hidden] = MappingProxyType(
    {
        "shared_memory_region": "shared_memory",
        "shared_memory_byte_size": "shared_memory",
        "shared_memory_offset": "shared_memory",
        "classification": "classification",
    }
)

_M = TypeVar("_M", bound=Message)


class InvalidAnswer(ValueError):
    """A server's message that cannot be read. Its text is for operators."""


@dataclass(frozen=True, slots=True)
class Inference:
    """One inference request, read.

    tensors:   by input name, without inputs in shared memory, which carry no data.
    raw:       encoding: raw_input_contents, or typed contents.
    rows:      the inputs' common first dimension; None where they have none.
    sequence:  belongs to a sequence (stateful model).
    classes:   how many of the inspected output's classes its caller asked for (`classes.widen`); None: for its numbers.
    came:      the bytes as they came, where `body` asks for more classes than that; else None.
    """

    message: ModelInferRequest
    body: bytes
    tensors: Mapping[str, Array]
    raw: bool
    rows: int | None
    sequence: bool
    classes: int | None = None
    came: bytes | None = None

    @property
    def received(self) -> bytes:
        """As it came."""
        return self.body if self.came is None else self.came

    @property
    def model(self) -> str:
        """The model's name."""
        return self.message.model_name

    @property
    def version(self) -> str:
        """The model's version, empty for the server's choice."""
        return self.message.model_version

    @property
    def id(self) -> str:
        """The client's name for the request."""
        return self.message.id


def parse(kind: type[_M], body: bytes, error: type[ValueError]) -> _M:
    """A message of this kind. Raises `error`."""
    try:
        return kind.FromString(body)
    except DecodeError:
        raise error(f"the message is not a {kind.DESCRIPTOR.name}") from None


def parse_request(body: bytes, *, max_rows: int, max_elements: int) -> Inference:
    """A ModelInferRequest, every tensor decoded and checked. Raises InvalidQuery."""
    check_outline(body)
    message = parse(ModelInferRequest, body, InvalidQuery)
    check_names([tensor.name for tensor in message.inputs], "input")
    pairs = pair(carriers_of(message), list(message.raw_input_contents), "input")
    for tensor in message.inputs:
        _check_input(tensor, max_rows)
    arrays = decode(pairs, "input", max_elements)
    firsts = {array.shape[0] if array.ndim else None for array in arrays.values()}
    return Inference(
        message=message,
        body=body,
        tensors=MappingProxyType(arrays),
        raw=len(message.raw_input_contents) > 0,
        rows=firsts.pop() if len(firsts) == 1 else None,
        sequence=_is_set(message.parameters, "sequence_id"),
    )


def _check_input(tensor: Tensor, max_rows: int) -> None:
    name = tensors.show(tensor.name)
    if tensor.shape and tensor.shape[0] > max_rows:
        raise InvalidQuery(f"input {name} has {tensor.shape[0]} rows, at most {max_rows} are taken")
    if in_shared_memory(tensor) and not is_empty(tensor.contents):
        raise InvalidQuery(f"input {name} has contents beside shared memory")


def _is_set(parameters: Mapping[str, InferParameter], name: str) -> bool:
    if name not in parameters:
        return False
    choice = parameters[name].WhichOneof("parameter_choice")
    return choice is not None and bool(getattr(parameters[name], choice))


def request_id(body: bytes) -> str:
    """What a ModelInferRequest that may be no good calls itself; empty where that cannot be told."""
    try:
        check_outline(body)
        return parse(ModelInferRequest, body, InvalidQuery).id
    except InvalidQuery:
        return ""


def hidden_parameters(inference: Inference) -> frozenset[Hidden]:
    """What the request asks for that Guard cannot inspect."""
    message = inference.message
    carriers = [message.parameters, *(t.parameters for t in message.inputs), *(t.parameters for t in message.outputs)]
    return frozenset(
        HIDDEN_PARAMETERS[name] for parameters in carriers for name in parameters if name in HIDDEN_PARAMETERS
    )


def check_against(inference: Inference, metadata: ModelMetadata, *, required: frozenset[str] | None = None) -> None:
    """Compare the declared inputs with the model's own. Raises InvalidQuery.

    required: inputs that must be there, by name; None: all of the model's. A model that names no inputs is not checked.
    """
    if not metadata.inputs:
        return
    specs = {spec.name: spec for spec in metadata.inputs}
    given = {tensor.name: tensor for tensor in inference.message.inputs}
    for name, tensor in given.items():
        if name not in specs:
            raise InvalidQuery(f"the model has no input {tensors.show(name)}")
        _check_spec(tensor, specs[name])
    for name in specs if required is None else required:
        if name not in given:
            raise InvalidQuery(f"input {tensors.show(name)} is missing")


def _check_spec(tensor: Tensor, spec: TensorSpec) -> None:
    name = tensors.show(tensor.name)
    if tensor.datatype != spec.datatype:
        raise InvalidQuery(f"input {name} is {tensors.show(tensor.datatype)}, the model takes {spec.datatype}")
    if len(tensor.shape) != len(spec.shape):
        raise InvalidQuery(f"input {name} has {len(tensor.shape)} dimensions, the model takes {len(spec.shape)}")
    if any(want not in (-1, dim) for dim, want in zip(tensor.shape, spec.shape, strict=True)):
        raise InvalidQuery(f"input {name} has shape {list(tensor.shape)}, the model takes {list(spec.shape)}")


def replace_input(inference: Inference, name: str, x: Array) -> bytes:
    """The request with another array for one input, in the same datatype and encoding. Raises ValueError."""
    message = ModelInferRequest()
    message.CopyFrom(inference.message)
    replace(message, name, x)
    return message.SerializeToString()


def want_output(body: bytes, name: str) -> tuple[bytes, bool]:
    """The request for a call of Guard's own, with this output in its answer; and whether the client's lacks it.

    A request that lists no outputs asks for all. Outputs lose the parameters that would send them into the client's
    shared memory, or turn them into labels.
    """
    message = parse(ModelInferRequest, body, InvalidQuery)
    plain = {output.name for output in message.outputs if not HIDDEN_PARAMETERS.keys() & output.parameters.keys()}
    lacking = len(message.outputs) > 0 and name not in plain
    if not lacking and len(plain) == len(message.outputs):
        return body, False
    for output in message.outputs:
        for parameter in HIDDEN_PARAMETERS:
            output.parameters.pop(parameter, None)
    if lacking and all(output.name != name for output in message.outputs):
        message.outputs.add(name=name)
    return message.SerializeToString(), lacking


def parse_answer(body: bytes) -> tuple[ModelInferResponse, dict[str, Array]]:
    """A ModelInferResponse, and its outputs by name without those in shared memory. Raises InvalidAnswer."""
    message = parse(ModelInferResponse, body, InvalidAnswer)
    try:
        check_names([tensor.name for tensor in message.outputs], "output")
        pairs = pair(carriers_of(message), list(message.raw_output_contents), "output")
        carried = [(tensor, raw) for tensor, raw in pairs if raw != b"" or 0 in tensor.shape]  # else in shared memory
        return message, decode(carried, "output", tensors.ANY_ELEMENTS)
    except InvalidQuery as error:
        raise InvalidAnswer(str(error)) from None


def parse_response(body: bytes) -> Mapping[str, Array]:
    """A ModelInferResponse's outputs by name, without those in shared memory. Raises InvalidAnswer."""
    return MappingProxyType(parse_answer(body)[1])


def replace_output(body: bytes, name: str, y: Array) -> bytes:
    """The response with another array of the same size for one output, in its datatype, encoding and shape.

    Raises InvalidAnswer where the response cannot be read, ValueError where `y` does not fit.
    """
    message, outputs = parse_answer(body)
    if name not in outputs:
        raise ValueError(f"there is no output {tensors.show(name)} with data")
    replace(message, name, y.reshape(outputs[name].shape))
    return message.SerializeToString()


def parse_metadata(body: bytes) -> ModelMetadata:
    """A ModelMetadataResponse. Raises InvalidAnswer."""
    message = parse(ModelMetadataResponse, body, InvalidAnswer)
    return ModelMetadata(
        name=message.name,
        versions=tuple(message.versions),
        platform=message.platform,
        inputs=tuple(TensorSpec(t.name, t.datatype, tuple(t.shape)) for t in message.inputs),
        outputs=tuple(TensorSpec(t.name, t.datatype, tuple(t.shape)) for t in message.outputs),
    )


def build_request(
    model: str,
    arrays: Mapping[str, Array],
    *,
    datatypes: Mapping[str, str] | None = None,
    version: str = "",
    outputs: Iterable[str] = (),
    raw: bool = True,
) -> bytes:
    """A ModelInferRequest. An input's datatype is its dtype's unless it is given (BF16)."""
    message = ModelInferRequest(model_name=model, model_version=version)
    for name, array in arrays.items():
        datatype = (datatypes or {}).get(name) or tensors.datatype_of(array.dtype)
        tensor = message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            message.raw_input_contents.append(tensors.encode_array(array, datatype))
        else:
            tensor.contents.CopyFrom(encode_contents(array, datatype))
    for name in outputs:
        message.outputs.add(name=name)
    return message.SerializeToString()


def wrap_stream(body: bytes, dialect: Dialect) -> bytes:
    """A ModelInferResponse's bytes -> one message of a ModelStreamInfer answer, the bytes as they are."""
    if dialect == "mlserver":
        return body
    return b"\x12" + _varint(len(body)) + body  # field 2, length-delimited


def _varint(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def unwrap_stream(body: bytes, dialect: Dialect) -> bytes | None:
    """One message of a ModelStreamInfer answer -> the ModelInferResponse's bytes; None: an error message instead.

    Raises InvalidAnswer.
    """
    if dialect == "mlserver":
        return body
    message = parse(ModelStreamInferResponse, body, InvalidAnswer)
    return None if message.error_message else message.infer_response.SerializeToString()


def stream_error(text: str, dialect: Dialect, request_id: str = "") -> bytes | None:
    """An error as one message of a ModelStreamInfer answer; None: no such message, end with a status."""
    if dialect == "mlserver":
        return None
    message = ModelStreamInferResponse(error_message=text)
    message.infer_response.id = request_id
    return message.SerializeToString()
