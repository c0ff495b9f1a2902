"""The gate: every call, by the method table, to where it belongs. The listener calls nothing else.

Order: the table (what is denied costs nothing), metadata, the caller's identity, a place among the calls; then the
pipeline, the upstream, or Guard's own health. Only then the request is read, and the place is kept until the answer
was. Probes (health, ServerLive, ServerReady) need no identity and have places of their own.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any, Self

from guard.metrics import Metrics
from guard.proxy import methods, status
from guard.proxy.admission import Admission, Overloaded
from guard.proxy.challenges import purse_of
from guard.proxy.headers import to_upstream
from guard.proxy.health import Health
from guard.proxy.local_stream import LocalStream, Outlet
from guard.proxy.methods import Treatment
from guard.proxy.models import ask
from guard.proxy.outgoing import open_stream
from guard.proxy.pipeline import UNLISTED, Pipeline, Ticket
from guard.proxy.runtime import Runtime
from guard.proxy.seam import Call, Reply
from guard.proxy.server import Exchange
from guard.proxy.streams import Conversation, first_end, relay, silence
from guard.tracing import Live
from guard.types import InvalidQuery
from guard.wire.open_inference_pb2 import ModelReadyRequest, ServerReadyResponse

ANONYMOUS = "anonymous"
_UNTRACED = methods.URGENT | {methods.HEALTH_WATCH}


class _Way:
    """What is counted of the calls of one method. Label by label is found once, not a call."""

    def __init__(self, metrics: Metrics, labels: tuple[str, ...]) -> None:
        self.started, self.seconds = metrics.started.labels(*labels), metrics.handling_seconds.labels(*labels)
        self._handled, self._labels = metrics.handled, labels

    def handled(self, name: str) -> Any:
        """The calls that ended so."""
        return self._handled.labels(*self._labels, name)


class _Counting:
    """One call, from its beginning to its end; it holds the runtime. reply: how it ended."""

    __slots__ = ("_began", "_runtime", "_span", "_way", "reply")

    def __init__(self, way: _Way, runtime: Runtime, span: Live | None) -> None:
        self._way, self._runtime, self._span = way, runtime, span
        self.reply = status.internal()

    def __enter__(self) -> Self:
        self._way.started.inc()
        self._began = time.perf_counter()
        self._runtime.calls += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._runtime.calls -= 1
        if kind is None:
            name = status.name_of(self.reply.code)
        else:
            name = "INTERNAL" if issubclass(kind, Exception) else "CANCELLED"
            if name == "INTERNAL":
                self._runtime.metrics.internal_errors.inc()
        self._way.handled(name).inc()
        self._way.seconds.observe(time.perf_counter() - self._began)
        if self._span is not None:
            self._span.end_rpc(name)


async def _answered(runtime: Runtime, exchange: Exchange, reply: Reply) -> Reply:
    """The reply, sent; not in the moment in which the listener stops."""
    if not runtime.shared.answering.is_set():
        await runtime.shared.answering.wait()
    await exchange.send(reply)
    return reply


class Gate:
    """Implements `server.Gate`. `runtime` is swapped by a reload; a call keeps the one that it began with."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._health = Health(lambda: self.runtime)
        self._ways: dict[tuple[str, ...], _Way] = {}

    async def unary(self, call: Call, exchange: Exchange) -> None:
        """One unary call."""
        span = self._span(call)
        with self._counting(call, span) as counting:
            counting.reply = await self._one(self.runtime, call, exchange, span)

    def _span(self, call: Call) -> Live | None:
        """Of a call that is traced. Probes are not."""
        tracer = self.runtime.tracer
        if tracer is None or call.path in _UNTRACED:
            return None
        return tracer.begin(methods.traced(call.path), call.metadata)

    def _counting(self, call: Call, span: Live | None) -> _Counting:
        labels = methods.labels(call.path)
        way = self._ways.get(labels)
        if way is None:
            way = self._ways[labels] = _Way(self.runtime.metrics, labels)
        return _Counting(way, self.runtime, span)

    async def _one(self, runtime: Runtime, call: Call, exchange: Exchange, span: Live | None) -> Reply:
        treatment = methods.treatment(call.path, runtime.settings.methods.allow)
        if treatment is Treatment.DENY:
            return await _answered(runtime, exchange, self._denied(runtime, call))
        entered = await self._enter(runtime, call, span)
        if isinstance(entered, Reply):
            return await _answered(runtime, exchange, entered)
        ticket, admission = entered
        try:
            try:
                body = await exchange.receive(max(0.0, ticket.left_s))
                if body is None:
                    reply = status.incomplete()
                else:
                    reply = await self._unary(runtime, call, treatment, body, ticket)
            except TimeoutError:
                reply = status.late()
            return await _answered(runtime, exchange, reply)
        finally:
            exchange.then(admission.leave)

    def stream(self, call: Call, bodies: AsyncIterator[bytes]) -> LocalStream:
        """One bidirectional stream."""
        return LocalStream(lambda outlet: self._counted_stream(call, bodies, outlet))

    async def _counted_stream(self, call: Call, bodies: AsyncIterator[bytes], outlet: Outlet) -> Reply:
        span = self._span(call)
        with self._counting(call, span) as counting:
            counting.reply = await self._stream(self.runtime, call, bodies, outlet, span)
        return counting.reply

    # --- unary

    async def _unary(self, runtime: Runtime, call: Call, treatment: Treatment, body: bytes, ticket: Ticket) -> Reply:
        if treatment is Treatment.HEALTH:
            return self._health.check(body)
        if treatment is Treatment.INSPECT:
            return await Pipeline(runtime).infer(ticket, body)
        if call.path == methods.SERVER_READY and (runtime.shared.draining or len(set(runtime.routes.values())) > 1):
            return Reply(ServerReadyResponse(ready=runtime.upstreams_ready).SerializeToString())
        label, route = UNLISTED, runtime.default
        if call.path in methods.NAMES_MODEL:
            name = _model_named(body)
            if name is None:
                return status.invalid("the message cannot be read")
            found = runtime.route(name) if name else runtime.default
            if found is None:
                return self._rejected(runtime, "unlisted_model", status.model_unknown())
            label, route = (name if name in runtime.models else UNLISTED), found
        metadata, left_s = ticket.metadata, ticket.left_s
        return await ask(route, runtime.metrics, label, "pass", call.path, body, metadata, left_s, ticket.span)

    def _denied(self, runtime: Runtime, call: Call) -> Reply:
        runtime.metrics.denied_methods.labels(methods.labels(call.path)[2]).inc()
        return status.method_denied()

    # --- what every call goes through

    async def _enter(self, runtime: Runtime, call: Call, span: Live | None) -> tuple[Ticket, Admission] | Reply:
        """A place of the call's own, to be left, or why there is none."""
        longest = runtime.longest_s if call.timeout_s is None else min(call.timeout_s, runtime.longest_s)
        deadline = asyncio.get_running_loop().time() + longest
        caller = self._caller(runtime, call)
        if isinstance(caller, Reply):
            return caller
        try:
            metadata = to_upstream(call.metadata)
        except InvalidQuery as error:
            return self._rejected(runtime, "metadata", status.invalid(str(error)))
        is_urgent = call.path in methods.URGENT
        admission = runtime.shared.probes if is_urgent else runtime.shared.admission
        try:
            await admission.enter(longest)
        except Overloaded:
            return self._rejected(runtime, "overloaded", status.overloaded())
        except TimeoutError:
            return self._rejected(runtime, "queued_too_long", status.late())
        try:
            cohorts = () if is_urgent else runtime.cohorts.of(call)
            purse = purse_of(call.metadata, streams=call.path in methods.STREAMING)
            return Ticket(caller, secrets.token_hex(16), metadata, deadline, cohorts, purse, span), admission
        except BaseException:
            admission.leave()
            raise

    def _caller(self, runtime: Runtime, call: Call) -> str | Reply:
        """Who calls; a reply where that must be known and is not."""
        if call.path in methods.URGENT:
            return ANONYMOUS
        known = runtime.identity.caller(call)
        if known is None and runtime.settings.identity.required:
            return self._rejected(runtime, "unauthenticated", status.unauthenticated())
        return ANONYMOUS if known is None else known.id

    def _rejected(self, runtime: Runtime, reason: str, reply: Reply) -> Reply:
        runtime.metrics.rejected.labels(reason).inc()
        return reply

    # --- streams

    async def _stream(
        self, runtime: Runtime, call: Call, bodies: AsyncIterator[bytes], outlet: Outlet, span: Live | None
    ) -> Reply:
        arrived = time.monotonic()
        treatment = methods.treatment(call.path, runtime.settings.methods.allow)
        if treatment is Treatment.HEALTH:
            async with asyncio.timeout(runtime.longest_s):
                first = await anext(bodies, None)
            return status.incomplete() if first is None else await self._health.watch(first, outlet)
        if treatment is Treatment.DENY:
            return self._denied(runtime, call)

        entered = await self._enter(runtime, call, span)
        if isinstance(entered, Reply):
            await runtime.shared.answering.wait()
            return entered
        ticket, admission = entered
        timeout_s = None if call.timeout_s is None else call.timeout_s - (time.monotonic() - arrived)
        try:
            try:
                if treatment is Treatment.INSPECT_STREAM:
                    reply = await Conversation(Pipeline(runtime), ticket, timeout_s, outlet).run(bodies)
                else:
                    reply = await self._relay(runtime, call, bodies, ticket, timeout_s, outlet)
            except TimeoutError:
                reply = status.late()
            await runtime.shared.answering.wait()
            return reply
        finally:
            admission.leave()

    async def _relay(
        self,
        runtime: Runtime,
        call: Call,
        bodies: AsyncIterator[bytes],
        ticket: Ticket,
        timeout_s: float | None,
        outlet: Outlet,
    ) -> Reply:
        async def touched() -> AsyncIterator[bytes]:
            async for body in bodies:
                outlet.touch()
                yield body

        route, metadata, span = runtime.default, ticket.metadata, ticket.span
        with open_stream(
            route, runtime.metrics, UNLISTED, "pass", call.path, touched(), metadata, timeout_s, span
        ) as stream:
            return await first_end(relay(stream, outlet), silence(outlet, route.timeout_s))


def _model_named(body: bytes) -> str | None:
    """Field 1 of a request that names a model; None where it cannot be read."""
    try:
        return str(ModelReadyRequest.FromString(body).name)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, or anything a hostile caller makes it raise
        return None
