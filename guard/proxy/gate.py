"""The gate: every call, by the method table, to where it belongs. The listener calls nothing else.

Order: the table (what is denied costs nothing), metadata, the caller's identity, a place among the calls; then the
pipeline, the upstream, or Guard's own health. Probes (health, ServerLive, ServerReady) need no identity and no place.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from guard.proxy import methods, status
from guard.proxy.admission import Overloaded
from guard.proxy.headers import to_upstream
from guard.proxy.health import Health
from guard.proxy.local_stream import LocalStream, Outlet
from guard.proxy.methods import Treatment
from guard.proxy.models import ask
from guard.proxy.pipeline import UNLISTED, Pipeline, Ticket
from guard.proxy.runtime import Runtime
from guard.proxy.seam import Call, Reply
from guard.proxy.status import Code
from guard.proxy.streams import Conversation, first_end, relay, silence
from guard.types import InvalidQuery
from guard.wire.open_inference_pb2 import ModelReadyRequest, ServerReadyResponse

ANONYMOUS = "anonymous"


class Gate:
    """Implements `server.Gate`. `runtime` is swapped by a reload; a call keeps the one that it began with."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._health = Health(lambda: self.runtime)

    async def unary(self, call: Call, body: bytes) -> Reply:
        """One unary call."""
        return await self._counted(call, lambda runtime: self._unary(runtime, call, body))

    def stream(self, call: Call, bodies: AsyncIterator[bytes]) -> LocalStream:
        """One bidirectional stream."""
        return LocalStream(
            lambda outlet: self._counted(call, lambda runtime: self._stream(runtime, call, bodies, outlet))
        )

    async def _counted(self, call: Call, handle: Callable[[Runtime], Awaitable[Reply]]) -> Reply:
        runtime = self.runtime
        metrics, labels = runtime.metrics, methods.labels(call.path)
        metrics.started.labels(*labels).inc()
        started, code = time.perf_counter(), Code.CANCELLED.name
        runtime.calls += 1
        try:
            reply = await handle(runtime)
            await runtime.shared.answering.wait()
            code = status.name_of(reply.code)
        except Exception:
            code = Code.INTERNAL.name
            raise
        finally:
            runtime.calls -= 1
            metrics.handled.labels(*labels, code).inc()
            metrics.handling_seconds.labels(*labels).observe(time.perf_counter() - started)
        return reply

    # --- unary

    async def _unary(self, runtime: Runtime, call: Call, body: bytes) -> Reply:
        treatment = methods.treatment(call.path, runtime.settings.methods.allow)
        if treatment is Treatment.HEALTH:
            return self._health.check(body)
        if treatment is Treatment.DENY:
            return self._denied(runtime, call)
        if treatment is Treatment.INSPECT:
            return await self._admitted(runtime, call, lambda ticket: Pipeline(runtime).infer(ticket, body))
        return await self._admitted(runtime, call, lambda ticket: self._pass(runtime, call, body, ticket))

    async def _pass(self, runtime: Runtime, call: Call, body: bytes, ticket: Ticket) -> Reply:
        if call.path == methods.SERVER_READY and runtime.shared.draining:
            return Reply(ServerReadyResponse(ready=False).SerializeToString())
        label, route = UNLISTED, runtime.default
        if call.path in methods.NAMES_MODEL:
            name = _model_named(body)
            if name is None:
                return status.invalid("the message cannot be read")
            found = runtime.route(name) if name else runtime.default
            if found is None:
                return self._rejected(runtime, "unlisted_model", status.model_unknown())
            label, route = (name if name in runtime.models else UNLISTED), found
        return await ask(route, runtime.metrics, label, "pass", call.path, body, ticket.metadata, ticket.left_s)

    def _denied(self, runtime: Runtime, call: Call) -> Reply:
        runtime.metrics.denied_methods.labels(methods.labels(call.path)[2]).inc()
        return status.method_denied()

    # --- what every call goes through

    async def _admitted(self, runtime: Runtime, call: Call, handle: Callable[[Ticket], Awaitable[Reply]]) -> Reply:
        try:
            metadata = to_upstream(call.metadata)
        except InvalidQuery as error:
            return self._rejected(runtime, "metadata", status.invalid(str(error)))
        longest = runtime.longest_s if call.timeout_s is None else min(call.timeout_s, runtime.longest_s)
        ticket = Ticket(ANONYMOUS, secrets.token_hex(16), metadata, asyncio.get_running_loop().time() + longest)
        if call.path in methods.URGENT:
            return await handle(ticket)
        known = runtime.identity.caller(call)
        if known is None and runtime.settings.identity.required:
            return self._rejected(runtime, "unauthenticated", status.unauthenticated())
        try:
            await runtime.shared.admission.enter(longest)
        except Overloaded:
            return self._rejected(runtime, "overloaded", status.overloaded())
        except TimeoutError:
            return self._rejected(runtime, "queued_too_long", status.late())
        try:
            return await handle(ticket if known is None else replace(ticket, caller=known.id))
        finally:
            runtime.shared.admission.leave()

    def _rejected(self, runtime: Runtime, reason: str, reply: Reply) -> Reply:
        runtime.metrics.rejected.labels(reason).inc()
        return reply

    # --- streams

    async def _stream(self, runtime: Runtime, call: Call, bodies: AsyncIterator[bytes], outlet: Outlet) -> Reply:
        arrived = time.monotonic()
        treatment = methods.treatment(call.path, runtime.settings.methods.allow)
        if treatment is Treatment.HEALTH:
            first = await anext(bodies, None)
            return status.incomplete() if first is None else await self._health.watch(first, outlet)
        if treatment is Treatment.DENY:
            return self._denied(runtime, call)

        async def handle(ticket: Ticket) -> Reply:
            timeout_s = None if call.timeout_s is None else call.timeout_s - (time.monotonic() - arrived)
            if treatment is Treatment.INSPECT_STREAM:
                return await Conversation(Pipeline(runtime), ticket, timeout_s, outlet).run(bodies)
            return await self._relay(runtime, call, bodies, ticket, timeout_s, outlet)

        return await self._admitted(runtime, call, handle)

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

        route = runtime.default
        stream = route.upstream.stream(call.path, touched(), ticket.metadata, timeout_s)
        return await first_end(relay(stream, outlet), silence(outlet, route.timeout_s))


def _model_named(body: bytes) -> str | None:
    """Field 1 of a request that names a model; None where it cannot be read."""
    try:
        return str(ModelReadyRequest.FromString(body).name)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, or anything a hostile caller makes it raise
        return None
