"""The oracle: an endpoint of the Open Inference Protocol, asked as an outsider asks it. The only file that speaks gRPC.

It keeps a hard budget of rows (what the literature calls queries; one call may carry many), writes a record of every
call, and hands back what the client saw: an answer, or a refusal as a value. `AsyncOracle` is the client; `Oracle`
drives it for attacks, which are plain synchronous numpy or torch.

x travels as [0, 1] float32 in the model's own layout here, and as the model's dtype and bounds on the wire.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import grpc
import numpy as np

from adversary import codec
from adversary.attack import REFUSED, Array, BudgetSpent, Refused
from guard.wire import open_inference_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
DECISION_ID = "guard-decision-id"
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_REFUSALS = frozenset(
    {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED}
)

Headers = tuple[tuple[str, str], ...]
Meaning = Literal["auto", "logits", "probabilities", "labels"]


class OracleError(RuntimeError):
    """The endpoint cannot be asked, or failed otherwise than by refusing."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to ask.

    input_name, output_name:  by default the model's only input and its first output.
    low, high:                the bounds of the model's input; [0, 1] is mapped onto them.
    identities:               metadata that says who calls, one a pretended caller.
    """

    target: str
    model: str
    version: str = ""
    input_name: str = ""
    output_name: str = ""
    encoding: Literal["raw", "typed"] = "raw"
    low: float = 0.0
    high: float = 1.0
    meaning: Meaning = "auto"
    identities: tuple[Headers, ...] = ((),)
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What the model said: (N, ...) in its own dtype."""

    y: Array
    decision_id: str


Reply = Answered | Refused


@dataclass(frozen=True, slots=True)
class Record:
    """One call as the client saw it. started_s: since the oracle was opened; digest: SHA-256 of the input's bytes."""

    rows: int
    digest: str
    started_s: float
    seconds: float
    status: str
    decision_id: str
    identity: int

    @property
    def refused(self) -> bool:
        """Whether it was not answered."""
        return self.status != "OK"


Listener = Callable[[Array, Reply, Record], None]
"""Told of every call that was answered or refused: what was sent, what came back, the record."""


@dataclass(frozen=True, slots=True)
class _Tensors:
    """What the model's metadata says of the tensors in use."""

    input_name: str
    datatype: str
    shape: tuple[int, ...]
    output_name: str


@dataclass(slots=True)
class AsyncOracle:
    """Use as `async with AsyncOracle(endpoint, budget) as oracle`. Not shared between event loops."""

    endpoint: Endpoint
    budget: int
    records: list[Record] = field(default_factory=list)
    spent: int = 0
    identity: int = 0
    listeners: list[Listener] = field(default_factory=list)
    _channel: grpc.aio.Channel | None = None
    _tensors: _Tensors | None = None
    _opened: float = 0.0

    async def __aenter__(self) -> Self:
        size = MAX_MESSAGE_BYTES
        options = [("grpc.max_receive_message_length", size), ("grpc.max_send_message_length", size)]
        self._channel = grpc.aio.insecure_channel(self.endpoint.target, options=options)
        self._opened = time.monotonic()
        try:
            self._tensors = _choose(await self._metadata(), self.endpoint)
        except BaseException:
            await self._channel.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._channel is not None:
            await self._channel.close()

    @property
    def left(self) -> int:
        """Rows that may still be sent."""
        return self.budget - self.spent

    async def query(self, x: Array, identity: int | None = None) -> Reply:
        """(N, ...) in one call. Raises BudgetSpent before it would go past the budget, OracleError on failure."""
        if len(x) > self.left:
            raise BudgetSpent
        self.spent += len(x)
        request, digest = self._request(x)
        identity, started = self.identity if identity is None else identity, time.monotonic()
        identity %= len(self.endpoint.identities)
        call = self._method("ModelInfer", pb.ModelInferRequest, pb.ModelInferResponse)(
            request, timeout=self.endpoint.timeout_s, metadata=self.endpoint.identities[identity]
        )
        code: grpc.StatusCode = await call.code()
        if code is grpc.StatusCode.CANCELLED and _interrupted():  # gRPC took the interruption for the call's alone
            raise asyncio.CancelledError
        trailers = await call.trailing_metadata() or ()
        decision_id = next((str(value) for key, value in trailers if key == DECISION_ID), "")
        seconds = time.monotonic() - started
        since = started - self._opened
        record = Record(len(x), digest, since, seconds, code.name, decision_id, identity)
        self.records.append(record)
        if code is not grpc.StatusCode.OK and code not in _REFUSALS:
            raise OracleError(f"{self.endpoint.target} answered {code.name}: {await call.details()}")
        refused = code is not grpc.StatusCode.OK
        reply = Refused(code.name, decision_id) if refused else Answered(self._answer(await call, len(x)), decision_id)
        for listener in self.listeners:
            listener(x, reply, record)
        return reply

    async def replies(
        self, batches: Sequence[Array], concurrency: int = 8, identities: Sequence[int] | None = None
    ) -> list[Reply]:
        """One call a batch, several at once, in order; each as its own identity if told so."""
        gate = asyncio.Semaphore(concurrency)

        async def one(i: int, x: Array) -> Reply:
            async with gate:
                return await self.query(x, None if identities is None else identities[i])

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(i, x)) for i, x in enumerate(batches)]
        return [task.result() for task in tasks]

    def _method(self, name: str, request: Any, response: Any) -> Any:
        if self._channel is None:
            raise OracleError("the oracle is not open")
        return self._channel.unary_unary(
            SERVICE + name, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )

    async def _metadata(self) -> pb.ModelMetadataResponse:
        request = pb.ModelMetadataRequest(name=self.endpoint.model, version=self.endpoint.version)
        ask = self._method("ModelMetadata", pb.ModelMetadataRequest, pb.ModelMetadataResponse)
        headers = self.endpoint.identities[0]
        try:
            response: pb.ModelMetadataResponse = await ask(
                request, timeout=self.endpoint.timeout_s, metadata=headers, wait_for_ready=True
            )
        except grpc.aio.AioRpcError as error:
            raise OracleError(
                f"{self.endpoint.target} gave no metadata of {self.endpoint.model!r}: "
                f"{error.code().name}: {error.details()}"
            ) from None
        return response

    def _request(self, x: Array) -> tuple[pb.ModelInferRequest, str]:
        t = self._known()
        rows = codec.to_wire(x, t.datatype, self.endpoint.low, self.endpoint.high)
        if -1 not in t.shape[1:] and rows.shape[1:] != t.shape[1:]:
            if rows[:1].size != int(np.prod(t.shape[1:])):
                raise OracleError(f"inputs of shape {rows.shape[1:]} do not fit the model's {t.shape[1:]}")
            rows = rows.reshape(len(rows), *t.shape[1:])
        request = pb.ModelInferRequest(model_name=self.endpoint.model, model_version=self.endpoint.version)
        tensor = request.inputs.add(name=t.input_name, datatype=t.datatype, shape=rows.shape)
        request.outputs.add(name=t.output_name)
        raw = rows.tobytes()
        if self.endpoint.encoding == "raw":
            request.raw_input_contents.append(raw)
        else:
            getattr(tensor.contents, codec.field_of(t.datatype)).extend(rows.ravel().tolist())
        return request, hashlib.sha256(raw).hexdigest()

    def _answer(self, response: pb.ModelInferResponse, rows: int) -> Array:
        name = self._known().output_name
        names = [output.name for output in response.outputs]
        if name not in names:
            raise OracleError(f"the answer lacks output {name!r}")
        i = names.index(name)
        output = response.outputs[i]
        shape = tuple(output.shape)
        if response.raw_output_contents:
            y = codec.from_raw(response.raw_output_contents[i], output.datatype, shape)
        else:
            values = getattr(output.contents, codec.field_of(output.datatype))
            y = np.asarray(values, codec.dtype_of(output.datatype)).reshape(shape)
        if len(y) != rows:
            raise OracleError(f"{rows} rows were sent, {len(y)} were answered")
        return y

    def _known(self) -> _Tensors:
        if self._tensors is None:
            raise OracleError("the oracle is not open")
        return self._tensors


def _interrupted() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _choose(metadata: pb.ModelMetadataResponse, endpoint: Endpoint) -> _Tensors:
    inputs = [t for t in metadata.inputs if endpoint.input_name in {"", t.name}]
    outputs = [t for t in metadata.outputs if endpoint.output_name in {"", t.name}]
    if len(inputs) != 1:
        raise OracleError(f"name one input of the model: {', '.join(t.name for t in metadata.inputs) or 'it has none'}")
    if not outputs:
        raise OracleError(f"name one output of the model: {', '.join(t.name for t in metadata.outputs)}")
    return _Tensors(inputs[0].name, inputs[0].datatype, tuple(inputs[0].shape), outputs[0].name)


class Oracle:
    """The same for synchronous code: an event loop of its own. Use as `with Oracle(endpoint, budget) as oracle`.

    pause:  called between calls, with the rows that were just sent: others may have their turn at the endpoint.
    """

    def __init__(self, endpoint: Endpoint, budget: int) -> None:
        self._oracle = AsyncOracle(endpoint, budget)
        self._runner = asyncio.Runner()
        self.pause: Callable[[int], None] = lambda _: None

    def __enter__(self) -> Self:
        try:
            self._runner.run(self._oracle.__aenter__())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self._oracle.__aexit__(kind, error, trace))
        finally:
            self._runner.close()

    @property
    def records(self) -> list[Record]:
        """Every call so far."""
        return self._oracle.records

    @property
    def listeners(self) -> list[Listener]:
        """Told of every call."""
        return self._oracle.listeners

    @property
    def spent(self) -> int:
        """Rows sent so far."""
        return self._oracle.spent

    @property
    def left(self) -> int:
        """Rows that may still be sent."""
        return self._oracle.left

    @property
    def identity(self) -> int:
        """Who calls."""
        return self._oracle.identity

    def use(self, identity: int) -> None:
        """Call as another of the endpoint's identities from now on; their number wraps around."""
        self._oracle.identity = identity

    def query(self, x: Array) -> Reply:
        """(N, ...) in one call."""
        reply = self._runner.run(self._oracle.query(x))
        self.pause(len(x))
        return reply

    def replies(
        self, batches: Sequence[Array], concurrency: int = 8, identities: Sequence[int] | None = None
    ) -> list[Reply]:
        """One call a batch, several at once, in order; each as its own identity if told so."""
        replies = self._runner.run(self._oracle.replies(batches, concurrency, identities))
        self.pause(sum(map(len, batches)))
        return replies

    def labels(self, x: Array) -> Array:
        """(N, ...) in one call -> (N,) labels, REFUSED in every row where the call was."""
        reply = self.query(x)
        if isinstance(reply, Refused):
            return np.full(len(x), REFUSED, np.int64)
        return codec.labels(reply.y, len(x))

    def probabilities(self, x: Array) -> Array | Refused:
        """(N, ...) in one call -> (N, C) float64 rows that sum to 1."""
        reply = self.query(x)
        meaning = self._oracle.endpoint.meaning
        if isinstance(reply, Refused):
            return reply
        if meaning == "labels" or reply.y.ndim != 2:  # noqa: PLR2004 - rows and classes
            raise OracleError("the model answers with labels only")
        return codec.probabilities(reply.y, meaning)


def reply_labels(reply: Reply, rows: int) -> Array:
    """One reply -> (N,) labels, REFUSED where it was refused."""
    return np.full(rows, REFUSED, np.int64) if isinstance(reply, Refused) else codec.labels(reply.y, rows)
