"""Asking a served model, one call after the other: what `guard fit` needs of an OIP server, or of an ONNX file.

Rows go in calls of at most `batch` rows (fewer, once `batching` has said so) and about REQUEST_BYTES, or of exactly the
model's batch size where that is fixed (a short last batch is filled up with its last row). A server that is away is
asked again, a few times.
Errors: AskError, with a text for operators. It may quote the server: never show it to a caller.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import grpc
import numpy as np

from guard.proxy import tls
from guard.proxy.embedded import SERVICE, EmbeddedUpstream
from guard.proxy.status import Code, name_of
from guard.settings import ClientTls, Embedded
from guard.types import Array, Batching, ModelMetadata
from guard.wire import batching, images, messages, tensors
from guard.wire import open_inference_pb2 as pb
from guard.wire.images import Format

__all__ = ["AskError", "Format", "ServedModel", "cast", "decode", "dtype_of", "encode"]

REQUEST_BYTES = 3 * 1024 * 1024  # servers commonly take 4 MiB
_RESPONSE_BYTES = 256 * 1024 * 1024
_ATTEMPTS = 5
_FIRST_WAIT_S = 0.2
_MAX_PIXELS = 4096 * 4096

dtype_of = tensors.dtype_of
cast = tensors.cast


class AskError(RuntimeError):
    """The model cannot be asked, or gave no answer. `code`: the call's status, where one ended it."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class _Failed(Exception):
    """A call ended with this status."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Line(Protocol):
    """How calls reach the model."""

    def call(self, path: str, body: bytes, timeout_s: float) -> bytes:
        """One unary call. Raises _Failed."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


class _Remote:
    """Calls to a server."""

    def __init__(self, address: str, settings: ClientTls | None) -> None:
        options = [
            ("grpc.max_receive_message_length", _RESPONSE_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_http_proxy", 0),
            *(tls.channel_options(settings) if settings else ()),
        ]
        self._channel = (
            grpc.secure_channel(address, tls.credentials(settings), options)
            if settings
            else grpc.insecure_channel(address, options)
        )

    def call(self, path: str, body: bytes, timeout_s: float) -> bytes:
        """One unary call. Raises _Failed."""
        try:
            unary: Callable[..., bytes] = self._channel.unary_unary(path)
            return unary(body, timeout=timeout_s)
        except grpc.RpcError as error:
            raise _Failed(error.code().value[0], error.details() or "") from None

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class _InProcess:
    """Calls to a file served in this process, whose upstream wants an event loop: it gets one, in a thread."""

    def __init__(self, settings: Embedded, name: str) -> None:
        self._upstream = EmbeddedUpstream(settings, name)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="guard-ask", daemon=True)
        self._thread.start()

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def call(self, path: str, body: bytes, timeout_s: float) -> bytes:
        """One unary call. Raises _Failed."""
        reply = self._wait(self._upstream.unary(path, body, (), timeout_s))
        if reply.code != Code.OK:
            raise _Failed(reply.code, reply.details)
        return bytes(reply.body)

    def close(self) -> None:
        """Let the model and its loop end."""
        self._wait(self._upstream.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class ServedModel:
    """One model behind a line. Not for several threads at once. A context manager."""

    def __init__(
        self,
        line: _Line,
        name: str,
        *,
        batch: int = 64,
        timeout_s: float = 60.0,
        limit: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """limit: the most rows that the model takes in one call, where its server does not say."""
        self.name, self._limit = name, limit
        self._line, self._batch, self._timeout_s, self._sleep = line, batch, timeout_s, sleep
        self._known: ModelMetadata | None = None
        self._takes: Batching | None = None

    @classmethod
    def remote(cls, address: str, name: str, *, settings: ClientTls | None = None, **options: Any) -> "ServedModel":
        """A model of the server at HOST:PORT or unix:/PATH. Raises ConfigError for TLS files that cannot be used."""
        return cls(_Remote(address, settings), name, **options)

    @classmethod
    def embedded(cls, settings: Embedded, name: str, **options: Any) -> "ServedModel":
        """An ONNX file. Raises ConfigError."""
        return cls(_InProcess(settings, name), name, limit=settings.max_batch_rows, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release what is held."""
        self._line.close()

    def metadata(self) -> ModelMetadata:
        """What the server says of the model. Raises AskError."""
        if self._known is None:
            request = pb.ModelMetadataRequest(name=self.name).SerializeToString()
            try:
                self._known = messages.parse_metadata(self._call("ModelMetadata", request))
            except messages.InvalidAnswer as error:
                raise AskError(f"the metadata of {self.name!r} cannot be read: {error}") from None
        return self._known

    def batching(self) -> Batching:
        """How the model takes rows: its configuration says it, or, where a server has none, shapes. Raises AskError."""
        if self._takes is None:
            request = pb.ModelConfigRequest(name=self.name).SerializeToString()
            try:
                self._takes = batching.of_config(self._call("ModelConfig", request))
            except messages.InvalidAnswer as error:
                raise AskError(f"the configuration of {self.name!r} cannot be read: {error}") from None
            except AskError as error:
                if error.code != Code.UNIMPLEMENTED:
                    raise
                self._takes = batching.of_metadata(self.metadata(), self._limit)
        return self._takes

    def answer(self, arrays: Mapping[str, Array], on_rows: Callable[[int], None] = lambda _: None) -> dict[str, Array]:
        """Inputs by name, all of N rows -> outputs by name, of N rows each. Raises AskError.

        `on_rows` is told how many rows have been answered, call by call.
        """
        specs = {spec.name: spec for spec in self.metadata().inputs}
        total = len(next(iter(arrays.values())))
        fixed = {specs[name].shape[0] for name in arrays if specs[name].shape and specs[name].shape[0] > 0}
        rows = min(fixed, default=self._rows_a_call(arrays, total))
        parts = []
        for start in range(0, total, rows):
            part = {name: array[start : start + rows] for name, array in arrays.items()}
            wanted = len(next(iter(part.values())))
            if fixed:
                part = {name: _filled(array, rows) for name, array in part.items()}
            parts.append({name: y[:wanted] for name, y in self._infer(part, rows if fixed else wanted).items()})
            on_rows(wanted)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}

    def _rows_a_call(self, arrays: Mapping[str, Array], total: int) -> int:
        size = sum(_nbytes(array) for array in arrays.values()) / max(total, 1)
        most = self._batch if self._takes is None else min(self._batch, self._takes.max_rows or self._batch)
        return max(1, min(most, int(REQUEST_BYTES // max(size, 1))))

    def _infer(self, part: Mapping[str, Array], rows: int) -> dict[str, Array]:
        datatypes = {spec.name: spec.datatype for spec in self.metadata().inputs}
        try:
            body = messages.build_request(self.name, part, datatypes=datatypes)
        except ValueError as error:
            raise AskError(f"the inputs do not fit the model: {error}") from None
        try:
            outputs = messages.parse_response(self._call("ModelInfer", body))
        except messages.InvalidAnswer as error:
            raise AskError(f"an answer of {self.name!r} cannot be read: {error}") from None
        for name, y in outputs.items():
            if y.ndim == 0 or len(y) != rows:
                raise AskError(f"output {name!r} has shape {list(y.shape)} for {rows} rows")
        return dict(outputs)

    def _call(self, method: str, body: bytes) -> bytes:
        """One call, again where the server is away."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._line.call(SERVICE + method, body, self._timeout_s)
            except _Failed as error:
                if error.code != Code.UNAVAILABLE or attempt == _ATTEMPTS - 1:
                    text = f"{method} of {self.name!r} failed: {name_of(error.code)}: {error}"
                    raise AskError(text, error.code) from None
            self._sleep(_FIRST_WAIT_S * 2**attempt)
        raise AssertionError("unreachable")


def _nbytes(array: Array) -> int:
    return sum(map(len, array.ravel())) if array.dtype == object else array.nbytes


def _filled(array: Array, rows: int) -> Array:
    return array if len(array) == rows else np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)])


def decode(rows: Array, shape: tuple[int, int, int]) -> tuple[Array, tuple[Format, ...]]:
    """(N,) or (N, 1) JPEG and PNG bytes -> what Guard inspects of them, uint8 (N, H, W, C). Raises AskError."""
    elements = images.MAX_IMAGES_WORTH * int(np.prod(shape))
    parts = []
    for start in range(0, len(rows), images.MAX_IMAGES_WORTH):
        few = rows[start : start + images.MAX_IMAGES_WORTH]
        try:
            parts.append(images.decode_images(few, shape, _MAX_PIXELS, 2**31, max_elements=elements))
        except ValueError as error:
            raise AskError(f"of the images from number {start} on, {error}") from None
    decoded = [np.empty((0, *shape), dtype=np.uint8), *(part for part, _ in parts)]
    return np.concatenate(decoded), tuple(kind for _, kinds in parts for kind in kinds)


def encode(x: Array, formats: tuple[Format, ...], shape: tuple[int, ...]) -> Array:
    """What was changed of it, as it is sent: bytes in the shape of the rows that they came from."""
    rows = np.empty(len(x), dtype=object)
    rows[:] = images.encode_images(x, formats)
    return rows.reshape(shape)
