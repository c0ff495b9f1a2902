"""Calls as bytes, and requests built with tritonclient's own messages."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
OWN_TRAILER = "guard-decision-id"


@dataclass(frozen=True)
class Outcome:
    """Everything that a client can see of a call, Guard's own trailer set apart."""

    code: str
    details: str
    bodies: tuple[bytes, ...]
    initial: tuple[tuple[str, str | bytes], ...]
    trailing: tuple[tuple[str, str | bytes], ...]
    decision_id: str | None

    @property
    def seen(self) -> tuple[object, ...]:
        """What must not differ between Guard and the server behind it."""
        return self.code, self.details, self.bodies, self.initial, self.trailing


def unary(
    address: str,
    method: str,
    request: bytes = b"",
    *,
    metadata: Sequence[tuple[str, str]] = (),
    timeout_s: float = 20.0,
    compression: grpc.Compression = grpc.Compression.NoCompression,
) -> Outcome:
    """One call with untouched bytes. `method`: a name of the inference service, or a full path."""
    path = method if method.startswith("/") else SERVICE + method
    with grpc.insecure_channel(address, _LARGE) as channel:
        call = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        try:
            body, ended = call.with_call(request, timeout=timeout_s, metadata=metadata, compression=compression)
        except grpc.RpcError as error:
            return _outcome((), error)
        return _outcome((body,), ended)


def stream(
    address: str,
    requests: Iterable[bytes],
    *,
    metadata: Sequence[tuple[str, str]] = (),
    timeout_s: float = 20.0,
    compression: grpc.Compression = grpc.Compression.NoCompression,
) -> Outcome:
    """One ModelStreamInfer with untouched bytes, read to its end."""
    with grpc.insecure_channel(address, _LARGE) as channel:
        method = channel.stream_stream(
            f"{SERVICE}ModelStreamInfer", request_serializer=None, response_deserializer=None
        )
        call = method(iter(requests), timeout=timeout_s, metadata=metadata, compression=compression)
        bodies = []
        try:
            bodies.extend(call)
        except grpc.RpcError as error:
            return _outcome(tuple(bodies), error)
        return _outcome(tuple(bodies), call)


_LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def _outcome(bodies: tuple[bytes, ...], call: grpc.Call) -> Outcome:
    trailing = tuple((key, value) for key, value in call.trailing_metadata() or ())
    own = [str(value) for key, value in trailing if key == OWN_TRAILER]
    return Outcome(
        code=call.code().name,
        details=call.details() or "",
        bodies=bodies,
        initial=tuple((key, value) for key, value in call.initial_metadata() or ()),
        trailing=tuple((key, value) for key, value in trailing if key != OWN_TRAILER),
        decision_id=own[0] if own else None,
    )


def digits(
    x: NDArray[np.float32], *, raw: bool = True, request_id: str = "r1", version: str = ""
) -> pb.ModelInferRequest:
    """A request to the digit classifier."""
    request = pb.ModelInferRequest(model_name="digits", id=request_id, model_version=version)
    tensor = request.inputs.add(name="image", datatype="FP32", shape=x.shape)
    if raw:
        request.raw_input_contents.append(x.tobytes())
    else:
        tensor.contents.fp32_contents.extend(x.ravel().tolist())
    return request


def strings(values: Sequence[bytes], *, model: str = "identity", raw: bool = True) -> pb.ModelInferRequest:
    """A request to a BYTES model."""
    request = pb.ModelInferRequest(model_name=model, id="r1")
    tensor = request.inputs.add(name="INPUT0", datatype="BYTES", shape=[len(values)])
    if raw:
        request.raw_input_contents.append(b"".join(len(v).to_bytes(4, "little") + v for v in values))
    else:
        tensor.contents.bytes_contents.extend(values)
    return request
