"""Requests of a stream under ids of Guard's, and their answers under the callers' own again.

A field that is appended to a protobuf message takes the place of an earlier one (scalars: the last wins; messages:
merged), so that nothing is parsed and written anew to change an id.
"""

from dataclasses import dataclass

from guard.wire.messages import Dialect, InvalidAnswer, unwrap_stream, wrap_stream
from guard.wire.open_inference_pb2 import ModelInferResponse, ModelStreamInferResponse


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """One answer of a stream. body: the ModelInferResponse; None: an error instead."""

    body: bytes | None
    id: str
    model: str


def id_field(request_id: str) -> bytes:
    """What names a ModelInferRequest or ModelInferResponse anew when appended to it; explicit where it is empty."""
    encoded = ModelInferResponse(id=request_id).SerializeToString()
    return encoded or b"\x1a\x00"


def read_answer(message: bytes, dialect: Dialect) -> StreamAnswer:
    """Raises InvalidAnswer."""
    body = unwrap_stream(message, dialect)
    try:
        if body is None:
            answer = ModelStreamInferResponse.FromString(message).infer_response
        else:
            answer = ModelInferResponse.FromString(body)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, or anything a hostile upstream makes it raise
        raise InvalidAnswer("an answer of the stream cannot be read") from None
    return StreamAnswer(body, answer.id, answer.model_name)


def rename_answer(message: bytes, request_id: str, dialect: Dialect) -> bytes:
    """The answer under another id."""
    return message + wrap_stream(id_field(request_id), dialect)
