"""The gate: every call, by the method table, to where it belongs. The listener calls nothing else.

Order: the table (what is denied costs nothing), metadata, the caller's identity, a place among the calls; then the
pipeline, the upstream, or Guard's own health. Only then the request is read, and the place is kept until the answer
was. Probes (health, ServerLive, ServerReady) need no identity and have places of their own.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from guard.proxy import methods, status
from guard.proxy.admission import Overloaded
from guard.proxy.challenges import purse_of
from guard.proxy.headers import to_upstream
from guard.proxy.health import Health
from guard.proxy.local_stream import LocalStream, Outlet
from guard.proxy.methods import Treatment
from guard.proxy.models import ask
from guard.proxy.pipeline import UNLISTED, Pipeline, Ticket
from guard.proxy.runtime import Runtime
from guard.proxy.seam import Call, Reply
from guard.proxy.server import Exchange
from guard.proxy.streams import Conversation, first_end, relay, silence
from guard.types import InvalidQuery
from guard.wire.open_inference_pb2 import ModelReadyRequest, ServerReadyResponse

ANONYMOUS = "anonymous"


class Gate:
    """Implements `server.Gate`. `runtime` is swapped by a reload; a call keeps the one that it began with."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._health = Health(lambda: self.runtime)

    async def unary(self, call: Call, exchange: Exchange) -> None:
        """One unary call."""

        async def answer(reply: Reply) -> Reply:
            await self.runtime.shared.answering.wait()
            await exchange.send(reply)
            return reply

        async def handle(runtime: Runtime) -> Reply:
            treatment = methods.treatment(call.path, runtime.settings.methods.allow)
            if treatment is Treatment.DENY:
                return await answer(self._denied(runtime, call))

            async def read(ticket: Ticket) -> Reply:
                body = await exchange.receive(max(0.0, ticket.left_s))
                if body is None:
                    return status.incomplete()
                return await self._unary(runtime, call, treatment, body, ticket)

            return await self._admitted(runtime, call, read, answer, exchange.then)

        await self._counted(call, handle)

    def stream(self, call: Call, bodies: AsyncIterator[bytes]) -> LocalStream:
        """One bidirectional stream."""
        return LocalStream(
            lambda outlet: self._counted(call, lambda runtime: self._stream(runtime, call, bodies, outlet))
        )

    async def _counted(self, call: Call, handle: Callable[[Runtime], Awaitable[Reply]]) -> Reply:
        runtime = self.runtime
        metrics, labels = runtime.metrics, methods.labels(call.path)
        metrics.started.labels(*labels).inc()
        started, code = time.perf_counter(), "CANCELLED"
        runtime.calls += 1
        try:
            reply = await handle(runtime)
            code = status.name_of(reply.code)
        except Exception:
            code = "INTERNAL"
            raise
        finally:
            runtime.calls -= 1
            metrics.handled.labels(*labels, code).inc()
            metrics.handling_seconds.labels(*labels).observe(time.perf_counter() - started)
        return reply

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
        return await ask(route, runtime.metrics, label, "pass", call.path, body, ticket.metadata, ticket.left_s)

    def _denied(self, runtime: Runtime, call: Call) -> Reply:
        runtime.metrics.denied_methods.labels(methods.labels(call.path)[2]).inc()
        return status.method_denied()

    # --- what every call goes through

    async def _admitted(
        self,
        runtime: Runtime,
        call: Call,
        handle: Callable[[Ticket], Awaitable[Reply]],
        answer: Callable[[Reply], Awaitable[Reply]],
        then: Callable[[Callable[[], None]], None],
    ) -> Reply:
        """Handle and answer the call in a place of its own, or answer why there is none. then: gives it back."""
        longest = runtime.longest_s if call.timeout_s is None else min(call.timeout_s, runtime.longest_s)
        deadline = asyncio.get_running_loop().time() + longest
        caller = self._caller(runtime, call)
        if isinstance(caller, Reply):
            return await answer(caller)
        try:
            metadata = to_upstream(call.metadata)
        except InvalidQuery as error:
            return await answer(self._rejected(runtime, "metadata", status.invalid(str(error))))
        admission = runtime.shared.probes if call.path in methods.URGENT else runtime.shared.admission
        try:
            await admission.enter(longest)
        except Overloaded:
            return await answer(self._rejected(runtime, "overloaded", status.overloaded()))
        except TimeoutError:
            return await answer(self._rejected(runtime, "queued_too_long", status.late()))
        try:
            try:
                cohorts = () if call.path in methods.URGENT else runtime.cohorts.of(call)
                purse = purse_of(call.metadata, streams=call.path in methods.STREAMING)
                reply = await handle(Ticket(caller, secrets.token_hex(16), metadata, deadline, cohorts, purse))
            except TimeoutError:
                reply = status.late()
            return await answer(reply)
        finally:
            then(admission.leave)

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

    async def _stream(self, runtime: Runtime, call: Call, bodies: AsyncIterator[bytes], outlet: Outlet) -> Reply:
        arrived = time.monotonic()
        treatment = methods.treatment(call.path, runtime.settings.methods.allow)
        if treatment is Treatment.HEALTH:
            first = await asyncio.wait_for(anext(bodies, None), runtime.longest_s)
            return status.incomplete() if first is None else await self._health.watch(first, outlet)
        if treatment is Treatment.DENY:
            return self._denied(runtime, call)

        async def handle(ticket: Ticket) -> Reply:
            timeout_s = None if call.timeout_s is None else call.timeout_s - (time.monotonic() - arrived)
            if treatment is Treatment.INSPECT_STREAM:
                return await Conversation(Pipeline(runtime), ticket, timeout_s, outlet).run(bodies)
            return await self._relay(runtime, call, bodies, ticket, timeout_s, outlet)

        async def answer(reply: Reply) -> Reply:
            await runtime.shared.answering.wait()
            return reply

        return await self._admitted(runtime, call, handle, answer, lambda leave: leave())

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
