"""An ONNX file served in this process, behind the seam: it answers as an OIP server would.

Source: Open Inference Protocol; ModelStreamInfer in Triton's dialect (errors are messages, the stream goes on).
Answers: raw to raw and typed to typed; where an output is FP16, which has no typed form, all outputs are raw.
Errors:  what a client did wrong is told, what onnxruntime says is logged and answered with "inference failed".
Cost:    one worker thread a call: CPUs / threads calls run at once, MAX_WAITING wait, further ones are refused.
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from google.protobuf.message import Message

from guard.proxy.onnx_model import VERSION, OnnxModel
from guard.proxy.seam import Metadata, Reply, UpstreamStream
from guard.proxy.status import Code
from guard.settings import Embedded
from guard.types import Array, InvalidQuery, TensorSpec
from guard.wire import contents, messages, tensors
from guard.wire import open_inference_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
MAX_WAITING = 1024
_log = logging.getLogger(__name__)


class _NotServed(Exception):
    """Another model or version was asked for. The text is for the client."""


class EmbeddedUpstream:
    """An OIP server of one model in this process. Implements `seam.Upstream`."""

    def __init__(self, settings: Embedded, name: str) -> None:
        """Load the model. Raises ConfigError."""
        self.name = name
        self._model = OnnxModel(settings, name)
        self._max_rows = settings.max_batch_rows
        workers = max(1, (os.cpu_count() or 1) // settings.threads)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="guard-embedded")
        self._room = threading.Semaphore(workers + MAX_WAITING)
        self._methods: Mapping[str, Callable[[bytes], Message]] = {
            "ServerLive": lambda _: pb.ServerLiveResponse(live=True),
            "ServerReady": lambda _: pb.ServerReadyResponse(ready=True),
            "ServerMetadata": lambda _: pb.ServerMetadataResponse(name="onnxruntime", version=VERSION),
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
        }

    @property
    def provider(self) -> str:
        """The onnxruntime execution provider really in use."""
        return self._model.provider

    async def unary(self, path: str, body: bytes, metadata: Metadata, timeout_s: float) -> Reply:
        """One unary call."""
        del metadata  # there is nobody to pass it on to
        method = path.removeprefix(SERVICE)
        if path == SERVICE + "ModelInfer":
            return await self._infer(body, timeout_s)
        if SERVICE + method != path or method not in self._methods:
            return _unimplemented(path)
        return _reply(lambda: self._methods[method](body).SerializeToString())

    def stream(
        self, path: str, bodies: AsyncIterator[bytes], metadata: Metadata, timeout_s: float | None
    ) -> UpstreamStream:
        """One bidirectional stream: requests are answered one after the other."""
        del metadata
        if path != SERVICE + "ModelStreamInfer":
            return _NoStream(_unimplemented(path))
        return _Stream(self._answers(bodies), timeout_s)

    async def close(self) -> None:
        """Wait for what runs, drop what waits."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    def _check_model(self, name: str, version: str) -> None:
        if name != self.name:
            raise _NotServed(f"Request for unknown model: {tensors.show(name)} is not found")
        if version not in {"", VERSION}:
            raise _NotServed(
                f"Request for unknown model: {tensors.show(name)} version {tensors.show(version)} is not found"
            )

    def _model_ready(self, body: bytes) -> Message:
        request = messages.parse(pb.ModelReadyRequest, body, InvalidQuery)
        return pb.ModelReadyResponse(ready=request.name == self.name and request.version in {"", VERSION})

    def _model_metadata(self, body: bytes) -> Message:
        request = messages.parse(pb.ModelMetadataRequest, body, InvalidQuery)
        self._check_model(request.name, request.version)
        known = self._model.metadata
        return pb.ModelMetadataResponse(
            name=known.name,
            versions=known.versions,
            platform=known.platform,
            inputs=map(_tensor_metadata, known.inputs),
            outputs=map(_tensor_metadata, known.outputs),
        )

    async def _infer(self, body: bytes, timeout_s: float | None) -> Reply:
        if not self._room.acquire(blocking=False):
            return Reply(code=Code.RESOURCE_EXHAUSTED, details="too many calls wait for the model")
        options = self._model.options()
        try:
            future = self._pool.submit(_reply, lambda: self._run(body, options))
        except RuntimeError:
            self._room.release()
            return Reply(code=Code.UNAVAILABLE, details="the model is shut down")
        future.add_done_callback(self._leave)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            return Reply(code=Code.DEADLINE_EXCEEDED, details="the model took too long")
        finally:
            options.terminate = True  # nobody waits for it any more

    def _leave(self, _: Future[Reply]) -> None:
        self._room.release()

    def _run(self, body: bytes, options: Any) -> bytes:
        """A request's bytes -> the response's, in a worker thread."""
        inference = messages.parse_request(body, max_rows=self._max_rows, max_elements=tensors.ANY_ELEMENTS)
        self._check_model(inference.model, inference.version)
        if messages.hidden_parameters(inference):
            raise InvalidQuery("this model takes neither shared memory nor classification")
        messages.check_against(inference, self._model.metadata)
        specs = {spec.name: spec for spec in self._model.metadata.outputs}
        wanted = list(dict.fromkeys(output.name for output in inference.message.outputs)) or list(specs)
        for name in wanted:
            if name not in specs:
                raise InvalidQuery(f"the model has no output {tensors.show(name)}")
        arrays = self._model.run(inference.tensors, wanted, options)
        return _response(inference, dict(zip(wanted, arrays, strict=True)), specs)

    async def _answers(self, bodies: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        async for body in bodies:
            reply = await self._infer(body, None)
            if reply.code == Code.OK:
                yield messages.wrap_stream(reply.body, "triton")
            else:
                yield messages.stream_error(reply.details, "triton", messages.request_id(body)) or b""


def _response(inference: messages.Inference, outputs: Mapping[str, Array], specs: Mapping[str, TensorSpec]) -> bytes:
    """The response in the request's encoding."""
    typed = not inference.raw and all(specs[name].datatype in contents.FIELDS for name in outputs)
    response = pb.ModelInferResponse(model_name=inference.model, model_version=VERSION, id=inference.id)
    for name, array in outputs.items():
        datatype = specs[name].datatype
        tensor = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if typed:
            tensor.contents.CopyFrom(contents.encode_contents(array, datatype))
        else:
            response.raw_output_contents.append(tensors.encode_array(array, datatype))
    return response.SerializeToString()


def _tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)


def _reply(answer: Callable[[], bytes]) -> Reply:
    """What `answer` returns or raises, as a reply."""
    try:
        return Reply(body=answer())
    except InvalidQuery as error:
        return Reply(code=Code.INVALID_ARGUMENT, details=str(error))
    except _NotServed as error:
        return Reply(code=Code.NOT_FOUND, details=str(error))
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class
        _log.warning("inference failed: %s: %s", type(error).__name__, error)
        return Reply(code=Code.INTERNAL, details="inference failed")


def _unimplemented(path: str) -> Reply:
    return Reply(code=Code.UNIMPLEMENTED, details=f"unknown method {tensors.show(path)}")


class _Stream:
    """One stream. Implements `seam.UpstreamStream`."""

    def __init__(self, answers: AsyncGenerator[bytes], timeout_s: float | None) -> None:
        self._answers = answers
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._end = Reply(code=Code.CANCELLED, details="the stream was cancelled")
        self._over = asyncio.Event()

    async def initial(self) -> Metadata:
        """There is none."""
        return ()

    async def messages(self) -> AsyncIterator[bytes]:
        """The answers, until the stream ends."""
        try:
            async with contextlib.aclosing(self._answers):
                while (answer := await self._next()) is not None:
                    yield answer
            self._end = Reply()
        except TimeoutError:
            self._end = Reply(code=Code.DEADLINE_EXCEEDED, details="the model took too long")
        finally:
            self._over.set()

    async def _next(self) -> bytes | None:
        left_s = None if self._deadline is None else self._deadline - time.monotonic()
        async with asyncio.timeout(left_s):  # wait_for may lose a cancellation until Python 3.12
            return await anext(self._answers, None)

    async def status(self) -> Reply:
        """How it ended, once it has."""
        await self._over.wait()
        return self._end


class _NoStream:
    """A stream that was refused. Implements `seam.UpstreamStream`."""

    def __init__(self, end: Reply) -> None:
        self._end = end

    async def initial(self) -> Metadata:
        """There is none."""
        return ()

    async def messages(self) -> AsyncIterator[bytes]:
        """No answers."""
        none: tuple[bytes, ...] = ()
        for body in none:
            yield body

    async def status(self) -> Reply:
        """Why it was refused."""
        return self._end
