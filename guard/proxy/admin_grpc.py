"""Guard's own API over gRPC, with health and reflection, all behind the bearer token.

Keep it on loopback: the token travels as it is.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from guard import audit, events
from guard.audit import TooManyReaders
from guard.proxy import admin_callers, admin_messages, record
from guard.proxy.admin_messages import Guarded
from guard.proxy.door import GRPC, Door, Knock
from guard.proxy.health import OWN
from guard.proxy.inspection import Inspection
from guard.proxy.status import Code
from guard.settings import ConfigError, Limits, Settings
from guard.types import Conclusion, InvalidQuery, Store
from guard.wire.guard.v1 import guard_pb2 as pb
from guard.wire.guard.v1 import guard_pb2_grpc

SERVICE = OWN
MAX_CALLS = 128
MAX_COMPUTING = 2
MAX_WATCHED = 1000

T = TypeVar("T")
if TYPE_CHECKING:  # generic in the stubs only
    _Handler = grpc.RpcMethodHandler[Any, Any]
_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_log = logging.getLogger(__name__)


class Runtime(record.Runtime, Protocol):
    """What this API shows and uses."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        ...

    @property
    def models(self) -> Mapping[str, Guarded]:
        """The guarded models by name."""
        ...

    @property
    def store(self) -> Store:
        """What monitors remember."""
        ...

    @property
    def started(self) -> float:
        """Seconds since 1970."""
        ...


async def _abort(context: Any, code: Code, text: str) -> NoReturn:
    await context.abort(_STATUS[code], text)
    raise AssertionError  # pragma: no cover - abort raises


class _Service:
    """The handlers. The runtime is asked for at each call: a reload swaps it."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime
        self._computing = asyncio.Semaphore(MAX_COMPUTING)

    async def _compute(self, work: Callable[[], T]) -> T:
        async with self._computing:
            return await asyncio.to_thread(work)

    async def Inspect(self, request: pb.InspectRequest, context: Any) -> pb.InspectResponse:  # noqa: N802 - as generated
        runtime = self._runtime()
        model = runtime.models.get(request.model)
        if model is None:
            await _abort(context, Code.NOT_FOUND, "there is no such model")
        if model.engine is None or model.profile is None or model.mismatch is not None:
            await _abort(context, Code.FAILED_PRECONDITION, model.mismatch or "the model has no profile")
        inspection = Inspection(
            model.engine, model.profile, model.settings, runtime.settings.limits, runtime.store, self._compute
        )
        try:
            conclusion, response = await inspection.run(request, secrets.token_hex(16), time.time())
        except InvalidQuery as error:
            await _abort(context, Code.INVALID_ARGUMENT, str(error))
        except Exception:  # noqa: BLE001 - its text must not reach a client
            _log.exception("Inspect failed")
            await _abort(context, Code.INTERNAL, "internal error")
        if request.remember:
            _record(runtime, conclusion, request)
        return response

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchResponse]:  # noqa: N802
        try:
            reader = self._runtime().watchers.subscribe(MAX_WATCHED)
        except TooManyReaders:
            await _abort(context, Code.RESOURCE_EXHAUSTED, "too many readers")
        try:
            await context.send_initial_metadata(())  # from here on nothing is missed
            async for event, lost in reader:
                if request.model in {"", event.model} and not (request.only_non_allowed and event.plain):
                    yield admin_messages.watched(event, lost)
        finally:
            reader.close()

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:  # noqa: ARG002, N802
        runtime = self._runtime()
        return admin_messages.status(runtime.settings, runtime.models, runtime.started)

    async def _models(self, name: str, context: Any) -> tuple[str, ...]:
        models = self._runtime().models
        if name and name not in models:
            await _abort(context, Code.NOT_FOUND, "there is no such model")
        return (name,) if name else tuple(models)

    async def ListCallers(self, request: pb.ListCallersRequest, context: Any) -> pb.ListCallersResponse:  # noqa: N802
        models = await self._models(request.model, context)
        try:
            return await admin_callers.listed(self._runtime().store, models, request)
        except OSError:
            await _abort(context, Code.UNAVAILABLE, "the store is away")

    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainResponse:  # noqa: N802
        models, runtime = await self._models(request.model, context), self._runtime()
        if not request.decision_id and not request.caller:
            await _abort(context, Code.INVALID_ARGUMENT, "a decision's id or a caller is needed")
        try:
            explained = await admin_callers.explained(runtime.journal, runtime.store, models, request)
        except OSError:
            await _abort(context, Code.UNAVAILABLE, "the store is away")
        if explained is None:
            await _abort(context, Code.NOT_FOUND, "nothing is kept of it here")
        return explained

    async def Forgive(self, request: pb.ForgiveRequest, context: Any) -> pb.ForgiveResponse:  # noqa: N802
        if not request.model:
            await _abort(context, Code.INVALID_ARGUMENT, "a model is needed")
        await self._models(request.model, context)
        runtime = self._runtime()
        try:
            forgiven = await runtime.store.forget(request.model, request.caller)
        except OSError:
            await _abort(context, Code.UNAVAILABLE, "the store is away")
        runtime.lately.forgive(request.model, request.caller)
        runtime.journal.forgive(request.model, request.caller)  # another worker may have forgiven him in the store
        if forgiven:
            runtime.audit.record(audit.Forgiven(time.time(), request.caller[: events.MAX_NAME], request.model))
        return pb.ForgiveResponse(forgiven=forgiven)


def _record(runtime: Runtime, conclusion: Conclusion, request: pb.InspectRequest) -> None:
    """A query that counts is recorded like one that came through the proxy."""
    event = audit.event_of(
        conclusion,
        time_unix=time.time(),
        model=request.model,
        version="",
        payload_sha256=hashlib.sha256(request.input.raw).hexdigest(),
    )
    record.record(runtime, request.model, event)


class _Token(aio.ServerInterceptor):
    """Lets calls in that carry the token; unknown methods, health and reflection are no exception."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._refuse = _refusing(Code.UNAUTHENTICATED, "the admin token is needed")
        self._wait = _refusing(Code.RESOURCE_EXHAUSTED, "too many wrong tokens were tried: wait")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        given = [value for key, value in handler_call_details.invocation_metadata if key == "authorization"]
        one = given[0] if len(given) == 1 and isinstance(given[0], str) else None
        knock = self._door.knock(one, GRPC)
        if knock is Knock.OPEN:
            return await continuation(handler_call_details)
        return self._wait if knock is Knock.WAIT else self._refuse


def _refusing(code: Code, text: str) -> "_Handler":
    """Answers before any message is read."""

    async def refuse(_: Any, context: Any) -> None:
        await _abort(context, code, text)

    return grpc.stream_stream_rpc_method_handler(refuse)


class AdminGrpc:
    """The listener, once started. `address`: where it is bound."""

    def __init__(self, server: aio.Server, address: str, end_watches: Callable[[], None]) -> None:
        self._server, self._end_watches = server, end_watches
        self.address = address

    async def close(self, grace_s: float = 1.0) -> None:
        """End watches, then what is left after the grace."""
        self._end_watches()
        await self._server.stop(grace_s)


async def start(runtime: Callable[[], Runtime], address: str, door: Door) -> AdminGrpc:
    """Listen. Raises ConfigError where the address cannot be taken."""
    return await listen(_Service(runtime), runtime().settings.limits, address, door, _ending(runtime))


async def start_private(
    runtime: Callable[[], Runtime], address: str, further: tuple[grpc.GenericRpcHandler, ...]
) -> AdminGrpc:
    """For the parent of a worker alone: the same API without a token. address: a socket that no other user reaches."""
    return await listen(_Service(runtime), runtime().settings.limits, address, None, _ending(runtime), further)


def _ending(runtime: Callable[[], Runtime]) -> Callable[[], None]:
    """Ends every watch; a reload may have swapped the runtime by then."""

    def end() -> None:
        runtime().watchers.close()

    return end


async def listen(
    service: Any,
    limits: Limits,
    address: str,
    door: Door | None,
    end_watches: Callable[[], None],
    further: tuple[grpc.GenericRpcHandler, ...] = (),
) -> AdminGrpc:
    """The API as a service answers it. Raises ConfigError where the address cannot be taken."""
    server = aio.server(
        interceptors=() if door is None else (_Token(door),),
        maximum_concurrent_rpcs=MAX_CALLS,
        options=(
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", limits.max_request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", limits.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", limits.max_metadata_bytes),
        ),
    )
    guard_pb2_grpc.add_GuardServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    server.add_generic_rpc_handlers(further)
    serving = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(serving, server)
    for name in ("", SERVICE):
        await serving.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        raise ConfigError("admin.grpc", f"cannot listen on {address}") from None
    await server.start()
    bound = address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
    return AdminGrpc(server, bound, end_watches)
