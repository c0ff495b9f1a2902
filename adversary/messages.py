"""Messages of the Open Inference Protocol: numpy rows -> the bytes of a request, the bytes of an answer -> an array.

A raw request is put together from a small message and the tensor's bytes, which are copied once: messages of protobuf
that follow each other are one message, and a field of bytes is its key, its length, and the bytes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from adversary import codec
from adversary.attack import Array
from adversary.endpoint import Endpoint, OracleError
from adversary.form import Form
from guard.wire import open_inference_pb2 as pb

_LENGTH_DELIMITED = 2
_SEVEN_BITS = 0x7F


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """body: what is sent; raw: the bytes of its tensor, for a digest."""

    body: bytes
    raw: memoryview


def describe(endpoint: Endpoint) -> bytes:
    """The request for a model's metadata."""
    body: bytes = pb.ModelMetadataRequest(name=endpoint.model, version=endpoint.version).SerializeToString()
    return body


@dataclass(frozen=True, slots=True)
class Tongue:
    """How one endpoint is spoken to. shape, datatype: of the model's input; a shape's first axis counts the rows."""

    endpoint: Endpoint
    form: Form
    input_name: str
    datatype: str
    shape: tuple[int, ...]
    output_name: str

    def request(self, x: Array) -> Request:
        """(N, ...) in [0, 1] -> one call. Raises OracleError where the rows do not fit the model."""
        try:
            rows = codec.to_wire(fitted(self.form.of(x), self.shape), self.datatype)
        except ValueError as error:
            raise OracleError(str(error)) from None
        message = pb.ModelInferRequest(model_name=self.endpoint.model, model_version=self.endpoint.version)
        tensor = message.inputs.add(name=self.input_name, datatype=self.datatype, shape=rows.shape)
        message.outputs.add(name=self.output_name)
        if self.endpoint.encoding == "typed":
            getattr(tensor.contents, codec.field_of(self.datatype)).extend(rows.ravel().tolist())
            return Request(message.SerializeToString(), memoryview(rows.tobytes()))
        raw = rows.reshape(-1).view(np.uint8).data
        body = b"".join((message.SerializeToString(), _KEY, varint(raw.nbytes), raw))
        return Request(body, memoryview(body)[len(body) - raw.nbytes :])

    def answer(self, body: bytes, rows: int) -> Array:
        """What the model said: (N, ...) in its own dtype. Raises OracleError."""
        response = _parsed(pb.ModelInferResponse, body)
        names = [output.name for output in response.outputs]
        if self.output_name not in names:
            raise OracleError(f"the answer lacks output {self.output_name!r}")
        i = names.index(self.output_name)
        output = response.outputs[i]
        try:
            y = _array(output, response.raw_output_contents, i)
        except (ValueError, IndexError) as error:
            raise OracleError(f"the answer cannot be read: {error}") from None
        if len(y) != rows:
            raise OracleError(f"{rows} rows were sent, {len(y)} were answered")
        return y


def tongue(endpoint: Endpoint, body: bytes) -> Tongue:
    """The metadata's answer -> how to ask. Raises OracleError."""
    metadata = _parsed(pb.ModelMetadataResponse, body)
    inputs = [t for t in metadata.inputs if endpoint.input_name in {"", t.name}]
    outputs = [t for t in metadata.outputs if endpoint.output_name in {"", t.name}]
    if len(inputs) != 1:
        raise OracleError(f"name one input of the model: {', '.join(t.name for t in metadata.inputs) or 'it has none'}")
    if not outputs:
        raise OracleError(f"name one output of the model: {', '.join(t.name for t in metadata.outputs)}")
    (t,) = inputs
    try:
        return Tongue(endpoint, endpoint.form, t.name, t.datatype, tuple(t.shape), outputs[0].name)
    except ValueError as error:
        raise OracleError(str(error)) from None


def fitted(rows: Array, shape: tuple[int, ...]) -> Array:
    """Rows in the model's shape, as long as they only become flat, or images again, or lose or gain axes of length 1.

    Raises ValueError where values would change their neighbours.
    """
    have, want = rows.shape[1:], shape[1:]
    if len(want) == 1 and want[0] in {-1, int(np.prod(have))}:
        return rows.reshape(len(rows), -1)
    if not want or -1 in want or have == want:
        return rows
    flat = len(have) == 1 and have[0] == int(np.prod(want))
    if not flat and [n for n in have if n != 1] != [n for n in want if n != 1]:
        hint = ": is its layout another?" if sorted(have) == sorted(want) else ""
        raise ValueError(f"inputs of shape {have} do not fit the model's {want}{hint}")
    return rows.reshape(len(rows), *want)


def varint(number: int) -> bytes:
    """Protobuf's form of a number from 0: seven bits a byte, the lowest first."""
    digits = bytearray()
    while number > _SEVEN_BITS:
        digits.append(number & _SEVEN_BITS | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_KEY = varint(pb.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number << 3 | _LENGTH_DELIMITED)


def _array(output: Any, raw: Any, i: int) -> Array:
    shape = tuple(output.shape)
    if raw:
        return codec.from_raw(raw[i], output.datatype, shape)
    values = getattr(output.contents, codec.field_of(output.datatype))
    return np.asarray(values, codec.dtype_of(output.datatype)).reshape(shape)


def _parsed(kind: Any, body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except DecodeError:
        raise OracleError("the answer is no message of the Open Inference Protocol") from None
