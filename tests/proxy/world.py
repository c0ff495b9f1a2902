"""A small world: an OIP server that records what it sees, stages that do as the numbers say, and Guard between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import grpc
import numpy as np
from grpc import aio

from guard import config
from guard.calibration import Calibration
from guard.metrics import Metrics
from guard.profile import Profile, Space, StageFit, save_profile, stage_key, stage_options
from guard.proxy.app import App
from guard.proxy.writing import write_all
from guard.settings import Settings
from guard.types import Array, Bools, Level, ModelMetadata, Past, Seen, TensorSpec
from guard.wire import messages
from guard.wire import open_inference_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"
STREAM = SERVICE + "ModelStreamInfer"
METADATA = ModelMetadata("m", ("1",), "test", (TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 3)),))
CLEAN = np.full((1, 4), 0.25, np.float32)
FLAGGED = np.full((1, 4), 0.75, np.float32)  # what `test_mean` fires at
SQUEEZED = np.array([[0.9, 0.1, 0.1, 0.1]], np.float32)  # what `test_views` fires at


@dataclass(frozen=True)
class Mean:
    """The mean of a row; `slow_s` makes it late, `broken` makes it fail."""

    slow_s: float = 0.0
    broken: bool = False

    def score(self, x: Array) -> Array:
        if self.broken:
            raise RuntimeError("secret detail")
        if self.slow_s:
            import time

            time.sleep(self.slow_s)
        return x.reshape(len(x), -1).mean(axis=1)


@dataclass(frozen=True)
class Views:
    """The gap between the answers on x and on x with its first feature at 0."""

    def views(self, x: Array) -> tuple[Array, ...]:
        view = x.copy()
        view[:, 0] = 0
        return (view,)

    def score_views(self, probs: Array, view_probs: tuple[Array, ...]) -> Array:
        return np.abs(probs - view_probs[0]).sum(axis=1)


@dataclass(frozen=True)
class Zero:
    """Nothing is left."""

    def purify(self, x: Array) -> Array:
        return np.zeros_like(x)


@dataclass(frozen=True)
class Uniform:
    """Suspicious rows say nothing."""

    def protect(self, probs: Array, suspicion: Bools) -> Array:
        out = probs.copy()
        out[suspicion] = 1.0 / probs.shape[1]
        return out


@dataclass(frozen=True)
class Repeats:
    """How much of a row was seen before."""

    def judge(self, rows: tuple[Seen, ...], past: Past) -> Array:
        return np.array([row.match.overlap for row in rows], dtype=np.float64)


@dataclass(frozen=True)
class Agreement:
    """An estimate of how well a copy would agree: a tenth a row; on watch from 0.35."""

    measures: ClassVar[str] = "agreement"

    def judge(self, rows: tuple[Seen, ...], past: Past) -> Array:
        return (past.rows + np.cumsum([not row.match.duplicate for row in rows])) / 10.0

    def level(self, agreement: float) -> Level:
        return Level.WATCH if agreement > 0.35 else Level.CLEAR


STAGES: dict[tuple[Any, str], type] = {
    ("detector", "test_mean"): Mean,
    ("detector", "test_views"): Views,
    ("purifier", "test_zero"): Zero,
    ("output", "test_uniform"): Uniform,
    ("monitor", "test_repeats"): Repeats,
    ("monitor", "test_agreement"): Agreement,
}


VECTOR = Space("vector", (0.0,), (1.0,), certain=True)


def profile(path: Path, metadata: ModelMetadata = METADATA, space: Space = VECTOR, **mean: Any) -> str:
    """A profile for the model below: 1000 clean scores each; rows of mean above 0.5 fire, view gaps above 1 too."""
    stages = {
        stage_key("detector", "test_mean"): (Mean(**mean), np.linspace(0, 0.5, 1000)),
        stage_key("detector", "test_views"): (Views(), np.linspace(0, 1, 1000)),
        stage_key("monitor", "test_repeats"): (Repeats(), np.zeros(100_000)),
        stage_key("monitor", "test_agreement"): (Agreement(), np.zeros(10)),
    }
    made = Profile(
        metadata=metadata,
        input_name="x",
        datatype=metadata.inputs[0].datatype,
        space=space,
        output_name="y",
        meaning="probabilities",
        classes=3,
        stages={key: StageFit(stage_options(stage), Calibration.of(scores)) for key, (stage, scores) in stages.items()},
    )
    save_profile(made, path)
    return str(path)


def answer(x: Array) -> Array:
    """(N, 4) -> (N, 3) probabilities: the first feature goes to class 0, the rest is shared."""
    p = x[:, :1]
    return np.concatenate([p, (1 - p) / 4, (1 - p) * 3 / 4], axis=1).astype(np.float32)


def request(x: Array = CLEAN, model: str = "m", request_id: str = "", version: str = "", raw: bool = True) -> bytes:
    body = messages.build_request(model, {"x": x}, version=version, raw=raw)
    message = pb.ModelInferRequest.FromString(body)
    message.id = request_id
    return message.SerializeToString()


def read(body: bytes) -> Array:
    return messages.parse_response(body)["y"]


@dataclass
class Seen:
    """One call, as the server saw it."""

    path: str
    metadata: tuple
    bodies: list[bytes]
    timeout_s: float | None
    cancelled: bool = False


@dataclass
class Server:
    """An OIP server with one model, `m`. Whatever is set here changes how it answers."""

    address: str = ""
    seen: list[Seen] = field(default_factory=list)
    metadata: ModelMetadata = METADATA
    ready: bool = True
    wrapped: bool = True
    infer: Callable[[bytes, Any], Awaitable[bytes]] | None = None
    stream: Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]] | None = None
    server: Any = None

    def calls(self, path: str = INFER) -> list[Seen]:
        return [call for call in self.seen if call.path == path]

    async def unary(self, path: str, body: bytes, context: Any) -> bytes:
        name = path.rpartition("/")[2]
        if name == "ModelInfer":
            return await (self.infer or self.plain)(body, context)
        if name == "ModelMetadata":
            await self.check_model(pb.ModelMetadataRequest.FromString(body).name, context)
            return metadata_bytes(self.metadata)
        if name == "ServerReady":
            return pb.ServerReadyResponse(ready=self.ready).SerializeToString()
        if name == "ModelReady":
            return pb.ModelReadyResponse(ready=self.ready).SerializeToString()
        return b"\x0a\x05other" + body  # everything else: something to recognise

    async def check_model(self, name: str, context: Any) -> None:
        if name != self.metadata.name:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")

    async def plain(self, body: bytes, context: Any) -> bytes:
        message = pb.ModelInferRequest.FromString(body)
        await self.check_model(message.model_name, context)
        y = answer(messages.parse_request(body, max_rows=99, max_elements=9999).tensors["x"])
        response = pb.ModelInferResponse(model_name=message.model_name, model_version="1", id=message.id)
        response.outputs.add(name="y", datatype="FP32", shape=y.shape)
        response.raw_output_contents.append(y.tobytes())
        return response.SerializeToString() + b"\xfa\x3e\x03abc"  # an unknown field, 1007

    async def streamed(self, bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for body in bodies:
            yield messages.wrap_stream(await self.plain(body, context), "triton" if self.wrapped else "mlserver")

    async def lingering(self, bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Stays after its caller has said everything; grpc.aio shows a cancellation as an end of the messages, too."""
        async for body in self.streamed(bodies, context):
            yield body
        await asyncio.sleep(60)


def metadata_bytes(metadata: ModelMetadata) -> bytes:
    def tensors(specs: tuple[TensorSpec, ...]) -> list:
        return [pb.ModelMetadataResponse.TensorMetadata(name=s.name, datatype=s.datatype, shape=s.shape) for s in specs]

    return pb.ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=tensors(metadata.inputs),
        outputs=tensors(metadata.outputs),
    ).SerializeToString()


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, server: Server) -> None:
        self._server = server

    def service(self, details: Any) -> Any:
        server, path = self._server, details.method

        def record(context: Any) -> Seen:
            seen = Seen(path, tuple(context.invocation_metadata()), [], context.time_remaining())
            server.seen.append(seen)
            return seen

        async def unary(body: bytes, context: Any) -> bytes:
            seen = record(context)
            seen.bodies.append(body)
            try:
                return await server.unary(path, body, context)
            except asyncio.CancelledError:
                seen.cancelled = True
                raise

        async def stream(_: Any, context: Any) -> None:
            seen = record(context)

            async def bodies() -> AsyncIterator[bytes]:
                while (body := await context.read()) is not aio.EOF:
                    seen.bodies.append(body)
                    yield body

            try:
                async for body in (server.stream or server.streamed)(bodies(), context):
                    await context.write(body)
            except asyncio.CancelledError:
                seen.cancelled = True
                raise

        if path == STREAM or not path.startswith(SERVICE):
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


async def start_server(address: str = "127.0.0.1:0", **values: Any) -> Server:
    made = Server(**values)
    made.server = aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
    made.server.add_generic_rpc_handlers((_Handlers(made),))
    port = made.server.add_insecure_port(address)
    made.address = f"127.0.0.1:{port}"
    await made.server.start()
    return made


@contextlib.asynccontextmanager
async def serving(**values: Any) -> AsyncIterator[Server]:
    made = await start_server(**values)
    try:
        yield made
    finally:
        await made.server.stop(None)


def settings(
    address: str, *, compression: str = "none", dialect: str = "triton", timeout_s: float = 30.0, **changes: Any
) -> Settings:
    """Guard in front of one upstream: everything on free ports, in shadow, quick to end."""
    tree: dict[str, Any] = {
        "listen": {"address": "127.0.0.1:0"},
        "upstream": {"address": address, "compression": compression, "dialect": dialect, "timeout_s": timeout_s},
        "models": [{"name": "m"}],
        "admin": {"http": None, "grpc": None},
        "audit": {"file": "/dev/null"},
        "limits": {"drain_s": 0.0},
    }
    for key, value in changes.items():
        tree[key] = {**tree[key], **value} if isinstance(value, dict) and isinstance(tree.get(key), dict) else value
    return config.validate(tree)


@dataclass
class Guarded:
    """A running Guard, and a channel to it."""

    app: App
    channel: aio.Channel

    @property
    def metrics(self) -> Metrics:
        return self.app.runtime.metrics

    def count(self, name: str, **labels: str) -> float:
        """The value of a metric's series; 0 where it does not exist."""
        return self.metrics._registry.get_sample_value(name, labels) or 0.0

    async def unary(self, body: bytes, path: str = INFER, **options: Any) -> "Ended":
        options.setdefault("timeout", 20)
        return await ended(self.channel.unary_unary(path)(body, **options))

    async def stream(self, *bodies: bytes, path: str = STREAM, **options: Any) -> "Ended":
        options.setdefault("timeout", 20)

        call = self.channel.stream_stream(path)(**options)
        await write_all(call, each(bodies))
        return await ended(call)


@dataclass
class Ended:
    """How a call ended."""

    code: grpc.StatusCode
    details: str
    bodies: list[bytes]
    initial: dict
    trailing: dict

    @property
    def body(self) -> bytes:
        assert self.code is grpc.StatusCode.OK, (self.code, self.details)
        (body,) = self.bodies
        return body


async def each(bodies: Iterable[bytes]) -> AsyncIterator[bytes]:
    for body in bodies:
        yield body


async def ended(call: Any) -> Ended:
    bodies: list[bytes] = []
    try:
        if hasattr(call, "read"):
            while (body := await call.read()) is not aio.EOF:
                bodies.append(body)
        else:
            bodies.append(await call)
    except aio.AioRpcError:
        pass
    return Ended(
        await call.code(),
        await call.details(),
        bodies,
        dict(await call.initial_metadata() or ()),
        dict(await call.trailing_metadata() or ()),
    )


@contextlib.asynccontextmanager
async def guarding(made: Settings, *, token: str | None = None, **options: Any) -> AsyncIterator[Guarded]:
    app = await App.start(made, lambda: made, token)
    channel = aio.insecure_channel(
        app.address, options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)], **options
    )
    try:
        yield Guarded(app, channel)
    finally:
        await channel.close()
        await app.drain()


@contextlib.asynccontextmanager
async def world(server: dict[str, Any] | None = None, **changes: Any) -> AsyncIterator[tuple[Server, Guarded]]:
    """A server and Guard in front of it."""
    async with serving(**(server or {})) as upstream, guarding(settings(upstream.address, **changes)) as guarded:
        yield upstream, guarded


async def eventually(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def raw_call(address: str, path: bytes, *headers: tuple[bytes, bytes]) -> bytes:
    """One call in hand-made HTTP/2 frames; what comes back within a moment."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    known = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"))
    known += ((b"te", b"trailers"), (b"content-type", b"application/grpc"), *headers)
    block = b"".join(b"\x00" + bytes([len(k)]) + k + bytes([len(v)]) + v for k, v in known)
    body = request()
    message = b"\0" + len(body).to_bytes(4, "big") + body
    writer.write(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, block) + frame(0, 1, 1, message)
    )
    answer = b""
    async with asyncio.timeout(10):
        while b"grpc-status" not in answer:
            answer += await reader.read(4096)
    writer.close()
    return answer


@contextlib.asynccontextmanager
async def tapped(address: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A relay before a server that keeps what goes towards it."""
    tapes: list[bytes] = []
    host, _, port = address.rpartition(":")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tape: list[bytes]) -> None:
        while data := await reader.read(65536):
            tape.append(data)
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(copy(reader, outer, tapes), copy(inner, writer, []), return_exceptions=True)
        finally:
            outer.close()
            writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", tapes
