"""The oracle: an endpoint of the Open Inference Protocol, asked as an outsider asks it. The only file that speaks gRPC.

It keeps a hard budget of rows (what the literature calls queries; one call may carry many), writes a record of every
call, and hands back what the client saw: an answer, or a refusal as a value (adversary.ledger). `AsyncOracle` is for
event loops; `Oracle` for attacks, which are plain synchronous numpy or torch: it blocks in gRPC itself, where a call
costs less than an event loop that is run for it, and runs one only for several calls at once.

x travels as [0, 1] float32 in its own layout here, and as the model's dtype, bounds and layout on the wire.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np

from adversary import codec, messages
from adversary.attack import REFUSED, Array, Refused
from adversary.endpoint import Endpoint, Headers, Meaning, OracleError
from adversary.ledger import Answered, Ended, Ledger, Listener, Query, Record, Reply

__all__ = (
    "Answered", "AsyncOracle", "Endpoint", "Headers", "Listener", "Meaning", "Oracle", "OracleError", "Record",
    "Refused", "Reply", "reply_labels",
)  # fmt: skip

_METADATA = "/inference.GRPCInferenceService/ModelMetadata"
_INFER = "/inference.GRPCInferenceService/ModelInfer"
DECISION_ID = "guard-decision-id"
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
_WHY_S = 2.0
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),  # every try is charged and counted: none is gRPC's own
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class AsyncOracle:
    """Use as `async with AsyncOracle(endpoint, budget) as oracle`. Not shared between event loops."""

    def __init__(self, endpoint: Endpoint, budget: int, ledger: Ledger | None = None) -> None:
        """ledger: another oracle's, whose budget and records are then shared."""
        self.ledger = Ledger(endpoint, budget) if ledger is None else ledger
        self._channel: Any = None
        self._infer: Any = None

    async def __aenter__(self) -> Self:
        self._channel = _channel(grpc.aio, self.ledger.endpoint)
        self._infer = self._channel.unary_unary(_INFER)
        try:
            if self.ledger.tongue is None:
                self.ledger.open(await self._described())
        except BaseException:
            await self._channel.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def query(self, x: Array, identity: int | None = None) -> Reply:
        """(N, ...) in one call. Raises BudgetSpent before it would go past the budget, OracleError on failure."""
        query = self.ledger.query(x, identity)
        while True:
            self.ledger.start(query)
            reply = self.ledger.end(query, await self._ended(query))
            if reply is not None:
                return reply
            await asyncio.sleep(query.backoff_s)

    async def replies(
        self, batches: Sequence[Array], concurrency: int = 8, identities: Sequence[int] | None = None
    ) -> list[Reply]:
        """One call a batch, several at once, in order; each as its own identity if told so.

        Where one cannot be sent or fails, no more are sent; those on their way are awaited and recorded.
        """
        rest, replies, errors = iter(enumerate(batches)), dict[int, Reply](), list[Exception]()

        async def work() -> None:
            for i, x in rest:
                try:
                    replies[i] = await self.query(x, None if identities is None else identities[i])
                except Exception as error:  # noqa: BLE001 - it is raised below
                    errors.append(error)
                if errors:
                    break

        await asyncio.gather(*(work() for _ in range(min(concurrency, len(batches)))))
        if errors:
            raise errors[0]
        return [replies[i] for i in range(len(batches))]

    async def _described(self) -> messages.Tongue:
        endpoint = self.ledger.endpoint
        ask, error = self._channel.unary_unary(_METADATA), None
        for how in _patiently(endpoint):
            try:
                return messages.tongue(endpoint, await ask(messages.describe(endpoint), **how))
            except grpc.RpcError as failed:
                error = failed
                if failed.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    break
        raise _undescribed(endpoint, error)

    async def _ended(self, query: Query) -> Ended:
        call = self._infer(query.request.body, **_way(self.ledger.endpoint, query.identity))
        try:
            return _answered(await call, await call.trailing_metadata())
        except grpc.RpcError as error:
            return _failed(error)
        except asyncio.CancelledError:
            self.ledger.cut_off(query)
            raise


class Oracle:
    """The same for synchronous code. Use as `with Oracle(endpoint, budget) as oracle`.

    pause:  called between calls, with the rows that were just sent: others may have their turn at the endpoint.
    """

    def __init__(self, endpoint: Endpoint, budget: int) -> None:
        self._ledger = Ledger(endpoint, budget)
        self._channel: Any = None
        self._infer: Any = None
        self._runner = asyncio.Runner()
        self._several: AsyncOracle | None = None
        self.pause: Callable[[int], None] = lambda _: None

    def __enter__(self) -> Self:
        self._channel = _channel(grpc, self._ledger.endpoint)
        self._infer = self._channel.unary_unary(_INFER)
        try:
            self._ledger.open(self._described())
        except BaseException:
            self._channel.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._several is not None:
            self._runner.run(self._several.__aexit__())
        self._runner.close()
        self._channel.close()

    @property
    def records(self) -> list[Record]:
        """Every call so far."""
        return self._ledger.records

    @property
    def listeners(self) -> list[Listener]:
        """Told of every call."""
        return self._ledger.listeners

    @property
    def spent(self) -> int:
        """Rows sent so far."""
        return self._ledger.spent

    @property
    def left(self) -> int:
        """Rows that may still be sent."""
        return self._ledger.left

    @property
    def identity(self) -> int:
        """Who calls."""
        return self._ledger.identity

    def use(self, identity: int) -> None:
        """Call as another of the endpoint's identities from now on; their number wraps around."""
        self._ledger.identity = identity

    def query(self, x: Array) -> Reply:
        """(N, ...) in one call. Raises BudgetSpent before it would go past the budget, OracleError on failure."""
        reply = self._asked(x, None)
        self.pause(len(x))
        return reply

    def replies(
        self, batches: Sequence[Array], concurrency: int = 8, identities: Sequence[int] | None = None
    ) -> list[Reply]:
        """One call a batch, several at once, in order; each as its own identity if told so.

        Where one cannot be sent or fails, no more are sent; those on their way are awaited and recorded.
        """
        if concurrency == 1:
            callers = [None] * len(batches) if identities is None else identities
            replies = [self._asked(x, caller) for x, caller in zip(batches, callers, strict=True)]
        else:
            replies = []
            self._runner.run(self._together(replies, batches, concurrency, identities))
        self.pause(sum(map(len, batches)))
        return replies

    def labels(self, x: Array) -> Array:
        """(N, ...) in one call -> (N,) labels, REFUSED in every row where the call was."""
        return reply_labels(self.query(x), len(x))

    def probabilities(self, x: Array) -> Array | Refused:
        """(N, ...) in one call -> (N, C) float64 rows that sum to 1."""
        reply = self.query(x)
        meaning = self._ledger.endpoint.meaning
        if isinstance(reply, Refused):
            return reply
        if meaning == "labels" or reply.y.ndim != 2:  # noqa: PLR2004 - rows and classes
            raise OracleError("the model answers with labels only")
        return codec.probabilities(reply.y, meaning)

    def _described(self) -> messages.Tongue:
        endpoint = self._ledger.endpoint
        ask, error = self._channel.unary_unary(_METADATA), None
        for how in _patiently(endpoint):
            try:
                return messages.tongue(endpoint, ask(messages.describe(endpoint), **how))
            except grpc.RpcError as failed:
                error = failed
                if failed.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    break
        raise _undescribed(endpoint, error)

    async def _together(
        self, replies: list[Reply], batches: Sequence[Array], concurrency: int, identities: Sequence[int] | None
    ) -> None:
        """Returns nothing: a runner makes a text of what its task returns, arrays and all."""
        if self._several is None:
            ledger = self._ledger
            self._several = await AsyncOracle(ledger.endpoint, ledger.budget, ledger).__aenter__()
        replies.extend(await self._several.replies(batches, concurrency, identities))

    def _asked(self, x: Array, identity: int | None) -> Reply:
        query = self._ledger.query(x, identity)
        while True:
            self._ledger.start(query)
            reply = self._ledger.end(query, self._ended(query))
            if reply is not None:
                return reply
            time.sleep(query.backoff_s)

    def _ended(self, query: Query) -> Ended:
        try:
            body, call = self._infer.with_call(query.request.body, **_way(self._ledger.endpoint, query.identity))
        except grpc.RpcError as error:
            return _failed(error)
        return _answered(body, call.trailing_metadata())


def reply_labels(reply: Reply, rows: int) -> Array:
    """One reply -> (N,) labels, REFUSED where it was refused."""
    return np.full(rows, REFUSED, np.int64) if isinstance(reply, Refused) else codec.labels(reply.y, rows)


def _channel(kind: Any, endpoint: Endpoint) -> Any:
    """kind: grpc, or grpc.aio."""
    if endpoint.tls is None:
        return kind.insecure_channel(endpoint.target, options=_OPTIONS)
    tls = endpoint.tls
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert)
    return kind.secure_channel(endpoint.target, credentials, options=(*_OPTIONS, *tls.options))


def _way(endpoint: Endpoint, identity: int) -> dict[str, Any]:
    return {"timeout": endpoint.timeout_s, "metadata": endpoint.identities[identity]}


def _patiently(endpoint: Endpoint) -> tuple[dict[str, Any], ...]:
    """How to ask a server that may still be starting: wait for it; and when that took too long, ask why."""
    way = _way(endpoint, 0)
    return {**way, "wait_for_ready": True}, {**way, "timeout": min(_WHY_S, endpoint.timeout_s)}


def _undescribed(endpoint: Endpoint, error: Any) -> OracleError:
    why = f"{error.code().name}: {error.details()}"
    return OracleError(f"{endpoint.target} gave no metadata of {endpoint.model!r}: {why}")


def _answered(body: bytes, trailers: Any) -> Ended:
    return Ended("OK", body, decision_id=_decision_id(trailers))


def _failed(error: Any) -> Ended:
    """Of a call's error, of either kind."""
    return Ended(error.code().name, details=error.details(), decision_id=_decision_id(error.trailing_metadata()))


def _decision_id(trailers: Any) -> str:
    return next((str(value) for key, value in trailers or () if key == DECISION_ID), "")
