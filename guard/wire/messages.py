"""OIP messages: bytes to frozen views and back. What was not changed keeps its bytes, unknown fields included.

Source: Open Inference Protocol (KServe v2), Triton's and MLServer's supersets.
Answers: parser differentials between Guard and the server: a request whose tensors two parsers may read differently
         (both encodings, a tensor without data, a name given twice) is refused, never guessed.
Errors:  InvalidQuery for what a client sent, InvalidAnswer for what a server sent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, TypeVar

from google.protobuf.message import DecodeError, Message

from guard.types import Array, InvalidQuery, ModelMetadata, TensorSpec
from guard.wire import tensors
from guard.wire.carriers import (
    Declared,
    Tensor,
    carriers_of,
    check_names,
    declared,
    decode,
    find_carrier,
    in_shared_memory,
    pair,
    replace,
)
from guard.wire.contents import encode_contents, is_empty
from guard.wire.open_inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataResponse,
    ModelStreamInferResponse,
)
from guard.wire.scan import check_outline, divide
from guard.wire.tensors import Buffer

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

LIGHT_BYTES, LIGHT_REST, LIGHT_FIELDS = 1024 * 1024, 4096, 64
"""Of a message that is read at once: all of it, what is not raw contents, and fields."""
KNOWN_HEADS, KNOWN_REST = 256, 512
_SLOW = frozenset({"BYTES", "BOOL", "BF16"})
"""Every element is looked at."""
_M = TypeVar("_M", bound=Message)


class InvalidAnswer(ValueError):
    """A server's message that cannot be read. Its text is for operators."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Head:
    """What a request says beside its raw contents. Requests that say the same may have the same one: do not change it.

    message:  without raw contents.
    carriers: the inputs with data, in order.
    rows:     their common first dimension; None where they have none.
    sequence: belongs to a sequence (stateful model).
    hidden:   what it asks for that Guard cannot inspect.
    rest:     the bytes of `message`, where it is short; else None.
    """

    message: ModelInferRequest
    model: str
    version: str
    carriers: tuple[Declared, ...]
    rows: int | None
    sequence: bool
    hidden: frozenset[Hidden]
    rest: bytes | None = None


@dataclass(frozen=True, slots=True)
class Inference:
    """One inference request, read.

    contents:  the raw contents, in order; they are the body's.
    tensors:   by input name, without inputs in shared memory, which carry no data.
    classes:   how many of the inspected output's classes its caller asked for (`classes.widen`); None: for its numbers.
    came:      the bytes as they came, where `body` asks for more classes than that; else None.
    """

    head: Head
    body: bytes
    contents: tuple[Buffer, ...]
    tensors: Mapping[str, Array]
    classes: int | None = None
    came: bytes | None = None

    @property
    def received(self) -> bytes:
        """As it came."""
        return self.body if self.came is None else self.came

    @property
    def message(self) -> ModelInferRequest:
        """Without its raw contents."""
        return self.head.message

    @property
    def raw(self) -> bool:
        """Encoding: raw_input_contents, or typed contents."""
        return bool(self.contents)

    @property
    def rows(self) -> int | None:
        """The inputs' common first dimension; None where they have none."""
        return self.head.rows

    @property
    def sequence(self) -> bool:
        """Whether it belongs to a sequence (stateful model)."""
        return self.head.sequence

    @property
    def model(self) -> str:
        """The model's name."""
        return self.head.model

    @property
    def version(self) -> str:
        """The model's version, empty for the server's choice."""
        return self.head.version

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
    contents, head = _divided(*divide(body), max_rows)
    return _read(head, body, contents, max_elements)


def parse_light(body: bytes, *, max_rows: int, max_elements: int) -> Inference | None:
    """The same where it takes microseconds; None where it may take longer, or is not even a message.

    Raises InvalidQuery.
    """
    if len(body) > LIGHT_BYTES:
        return None
    try:
        rest, contents = divide(body, LIGHT_FIELDS)
    except InvalidQuery:
        return None
    if len(rest) > LIGHT_REST:
        return None
    found, head = _divided(rest, contents, max_rows)
    if any(tensor.datatype in _SLOW for tensor in head.carriers):
        return None
    return _read(head, body, found, max_elements)


def _divided(rest: bytes, contents: tuple[Buffer, ...], max_rows: int) -> tuple[tuple[Buffer, ...], Head]:
    """The raw contents, and what is said of them. Raises InvalidQuery."""
    if contents:
        return contents, _head_of(rest, max_rows)
    message = _parsed(rest)  # contents are typed, or oddly encoded
    contents = tuple(message.raw_input_contents)
    message.ClearField("raw_input_contents")
    return contents, _head(message, max_rows)


def _head_of(rest: bytes, max_rows: int) -> Head:
    """Of a request without its raw contents. Raises InvalidQuery."""
    return _known_head(rest, max_rows) if len(rest) <= KNOWN_REST else _head(_parsed(rest), max_rows)


@lru_cache(maxsize=KNOWN_HEADS)
def _known_head(rest: bytes, max_rows: int) -> Head:
    """Callers say the same again and again: it is read once."""
    return _head(_parsed(rest), max_rows, rest)


def _parsed(body: bytes) -> ModelInferRequest:
    return parse(ModelInferRequest, body, InvalidQuery)


def _head(message: ModelInferRequest, max_rows: int, rest: bytes | None = None) -> Head:
    check_names([tensor.name for tensor in message.inputs], "input")
    for tensor in message.inputs:
        _check_input(tensor, max_rows)
    carriers = tuple(map(declared, carriers_of(message)))
    firsts = {tensor.shape[0] if tensor.shape else None for tensor in carriers}
    return Head(
        message=message,
        model=message.model_name,
        version=message.model_version,
        carriers=carriers,
        rows=firsts.pop() if len(firsts) == 1 else None,
        sequence=_is_set(message.parameters, "sequence_id"),
        hidden=_hidden(message),
        rest=rest,
    )


def _read(head: Head, body: bytes, contents: tuple[Buffer, ...], max_elements: int) -> Inference:
    arrays = decode(pair(head.carriers, contents, "input"), "input", max_elements)
    return Inference(head, body, contents, MappingProxyType(arrays))


def _check_input(tensor: Tensor, max_rows: int) -> None:
    if tensor.shape and tensor.shape[0] > max_rows:
        name = tensors.show(tensor.name)
        raise InvalidQuery(f"input {name} has {tensor.shape[0]} rows, at most {max_rows} are taken")
    if in_shared_memory(tensor) and not is_empty(tensor.contents):
        raise InvalidQuery(f"input {tensors.show(tensor.name)} has contents beside shared memory")


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
    return inference.head.hidden


def _hidden(message: ModelInferRequest) -> frozenset[Hidden]:
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
    head = inference.head
    index = next((place for place, tensor in enumerate(head.carriers) if tensor.name == name), None)
    if head.rest is not None and inference.raw and index is not None and head.carriers[index].shape == x.shape:
        encoded, rest = tensors.encode_array(x, head.carriers[index].datatype), head.rest
    else:
        message = ModelInferRequest()
        message.CopyFrom(inference.message)
        if not inference.raw:
            replace(message, name, x)
            return message.SerializeToString()
        index, tensor = find_carrier(message, name)
        encoded = tensors.encode_array(x, tensor.datatype)
        tensor.shape[:] = x.shape
        rest = message.SerializeToString()
    parts: list[Buffer] = [rest]
    for place, content in enumerate(inference.contents):
        own = encoded if place == index else content
        parts += (b"\x3a", _varint(len(own)), own)  # field 7, length-delimited
    return b"".join(parts)


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
        pairs = pair(list(map(declared, carriers_of(message))), list(message.raw_output_contents), "output")
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
