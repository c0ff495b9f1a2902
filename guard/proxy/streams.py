"""ModelStreamInfer, message by message: each is inspected like a unary request before it is forwarded.

A message that is refused or invalid is answered with an error message and the stream goes on (Triton), or ends the
stream with the status (MLServer). What is decided on a message is complete before it is forwarded: where view detectors
enforce, the model is asked for the message and its views through unary ModelInfer first (a row more than for a unary
request), so that it does not matter how many answers a stream gives, and in which order. Where outputs are protected,
each message travels under an id of Guard's, which servers echo; an answer without a known id is replaced by an error.

A stream has one proof of work, which pays for its first rows. Once these are used up the stream ends: what was
forwarded is answered, then its status carries a puzzle for `challenge.stream_rows` more. The message that was one too
many, and those behind it, are to be sent again, on a stream that brings the solution.

Limits. Messages of one stream go to one upstream. Decoupled models that do not answer unary ModelInfer have no views to
compare: the view detectors' `on_error` decides. All messages share the trailer `guard-decision-id: ID`; the n-th
message's own decision is `ID.n` in the audit log, counted from 1.
"""

import asyncio
import contextlib
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from dataclasses import dataclass, replace
from typing import Any, cast

from guard.proxy import case, methods, status, stream_ids
from guard.proxy.case import Extra, Plan
from guard.proxy.local_stream import Outlet
from guard.proxy.outgoing import open_stream
from guard.proxy.pipeline import UNLISTED, Opened, Pipeline, Ticket
from guard.proxy.record import as_decided
from guard.proxy.seam import Reply, UpstreamStream
from guard.proxy.status import Code
from guard.types import Action, Conclusion, Decision
from guard.watching import unanswered
from guard.wire import messages
from guard.wire.messages import InvalidAnswer

MAX_UNANSWERED = 1024
"""Messages whose answers are still recognised; a protected answer to an older one is replaced by an error."""

_LAST = frozenset({Code.FAILED_PRECONDITION})
"""What ends a stream once what was forwarded is answered: puzzles travel in a status, proofs with a new stream."""
_ENDING = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})
"""What ends a stream in either dialect: it concerns all of its messages."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A forwarded message to a model whose outputs are protected. decision: None where this one's are not."""

    opened: Opened
    decision: Decision | None
    id: str


async def relay(stream: UpstreamStream, outlet: Outlet) -> Reply:
    """Everything that an upstream's stream says, as it is."""
    outlet.begin(await stream.initial())
    async with contextlib.aclosing(cast("AsyncGenerator[bytes]", stream.messages())) as answers:
        async for body in answers:
            await outlet.send(body)
    return await stream.status()


async def silence(outlet: Outlet, longest_s: float) -> Reply:
    """Waits until nothing has moved for that long."""
    loop = asyncio.get_running_loop()
    while (left := outlet.touched + longest_s - loop.time()) > 0:  # noqa: ASYNC110 - the end moves with each message
        await asyncio.sleep(left)
    return status.upstream_late()


async def first_end(*work: Coroutine[Any, Any, Reply | None]) -> Reply:
    """Runs all at once until one says how the stream ends."""
    tasks = [asyncio.create_task(one) for one in work]
    waiting = set(tasks)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                reply = task.result() if task in done else None
                if reply is not None:
                    return reply
        return Reply()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Conversation:
    """One inspected stream."""

    def __init__(self, pipeline: Pipeline, ticket: Ticket, timeout_s: float | None, outlet: Outlet) -> None:
        """timeout_s: what the caller's deadline leaves to the whole stream."""
        self._pipeline, self._ticket, self._outlet = pipeline, ticket, outlet
        self._loop = asyncio.get_running_loop()
        self._end = None if timeout_s is None else self._loop.time() + timeout_s
        self._route, self._label = pipeline.runtime.default, UNLISTED
        self._begun = asyncio.Event()
        self._forward: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._count = 0
        self._last: Reply | None = None

    async def run(self, bodies: AsyncIterator[bytes]) -> Reply:
        """The whole stream."""
        try:
            reply = await first_end(self._answer(), self._listen(bodies), silence(self._outlet, self._route.timeout_s))
        finally:  # whoever waits for what is forwarded goes on to its end
            with contextlib.suppress(asyncio.QueueEmpty):
                self._forward.get_nowait()
            self._forward.put_nowait(None)
        return status.with_trailer(reply, ((status.DECISION_KEY, self._ticket.decision_id),))

    # --- towards the upstream

    async def _listen(self, bodies: AsyncIterator[bytes]) -> Reply | None:
        """Inspect and forward; a reply where the stream ends here."""
        async for body in bodies:
            self._outlet.touch()
            self._pipeline.runtime.metrics.stream_messages.inc()
            ticket = self._next_ticket()
            try:
                opened = await self._judge(ticket, body)
            finally:
                if ticket.span is not None:
                    ticket.span.end()
            if isinstance(opened, Opened):
                self._begun.set()
                await self._forward.put(self._with_id(opened))
                continue
            if opened.code in _ENDING:
                return opened
            if opened.code in _LAST:
                self._last = opened
                break
            answer = self._error(opened, messages.request_id(body))
            if isinstance(answer, Reply):
                return answer
            await self._outlet.send(answer)
        await self._forward.put(None)
        return None if self._begun.is_set() else self._last or Reply()

    def _next_ticket(self) -> Ticket:
        self._count += 1
        call, tracer = self._ticket.span, self._pipeline.runtime.tracer
        return replace(
            self._ticket,
            decision_id=f"{self._ticket.decision_id}.{self._count}",
            deadline=min(self._loop.time() + self._route.timeout_s, math.inf if self._end is None else self._end),
            span=None if call is None or tracer is None else tracer.message(call, self._count),
        )

    async def _judge(self, ticket: Ticket, body: bytes) -> Opened | Reply:
        opened = await self._pipeline.open(ticket, body, purpose="stream" if self._count == 1 else None)
        if isinstance(opened, Reply):
            return opened
        if not self._begun.is_set():
            self._route, self._label = opened.route, opened.label
        if opened.route is not self._route:
            return status.invalid("the messages of one stream must go to models of one server")
        if opened.plan is None:
            return opened
        if not opened.plan.decision.waits:
            self._pipeline.conclude_later(opened, None)
            concluded: Opened | Reply = opened
        else:
            concluded = await self._conclude(opened, opened.plan)
        if isinstance(concluded, Opened) and concluded.plan is not None and concluded.model is not None:
            # what answers on a stream tell is not read: they count as telling the most that they can
            await self._pipeline.rations.charge(concluded.model, ticket.caller, concluded.rows)
            await self._pipeline.hold(concluded, concluded.plan.decision)
        return concluded

    async def _conclude(self, opened: Opened, made: Plan) -> Opened | Reply:
        """Hold the model's answers against each other, and the input, before the message is forwarded."""
        model = opened.model
        if model is None or model.engine is None or not (made.decision.views or model.engine.holds_answers):
            self._pipeline.record(opened, made, as_decided(made.decision))
            self._pipeline.spawn_credit(opened, unanswered(made.decision.seen))
            return opened
        try:
            conclusion, made = await self._pipeline.conclude(opened, made, None, opened.ticket.left_s)
            standby = await opened.budget.run(case.standby_of, made) if conclusion.use_standby else None
        except (ValueError, TimeoutError) as error:
            return self._pipeline.stuck(opened, error)
        conclusion, refusal = await self._pipeline.settle(opened, model, conclusion)
        self._pipeline.record(opened, made, conclusion)
        self._pipeline.spawn_credit(opened, conclusion.update)
        if refusal is not None:
            return refusal
        settled = replace(conclusion.decision, views=(), view_counts={}, standby=None)
        return replace(opened, plan=Plan(settled, standby or made.forward))

    async def _forwarded(self) -> AsyncIterator[bytes]:
        while (body := await self._forward.get()) is not None:
            yield body

    def _with_id(self, opened: Opened) -> bytes:
        """The message, under an id of Guard's where its answers may have to be recognised."""
        made, model = opened.plan, opened.model
        decision = made.decision if made is not None and made.decision.waits else None
        protects = model is not None and model.protects_outputs
        forward = opened.forward
        if model is not None and model.profile is not None and not (protects and decision):  # nobody will read it
            forward = case.narrowed(forward, opened.inference, model.profile)
        if not protects:
            return forward
        self._entries[opened.ticket.decision_id] = Entry(opened, decision, opened.inference.id)
        if len(self._entries) > MAX_UNANSWERED:
            self._entries.popitem(last=False)
        return forward + stream_ids.id_field(opened.ticket.decision_id)

    # --- towards the caller

    async def _answer(self) -> Reply | None:
        """Relay the upstream's answers, protected where that is asked for."""
        await self._begun.wait()
        left_s = None if self._end is None else max(0.0, self._end - self._loop.time())
        with open_stream(
            self._route,
            self._pipeline.runtime.metrics,
            self._label,
            "stream",
            methods.STREAM_INFER,
            self._forwarded(),
            self._ticket.metadata,
            left_s,
            self._ticket.span,
        ) as stream:
            return await self._relayed(stream)

    async def _relayed(self, stream: UpstreamStream) -> Reply | None:
        """The same of one stream."""
        self._outlet.begin(await stream.initial())
        async with contextlib.aclosing(cast("AsyncGenerator[bytes]", stream.messages())) as answers:
            async for body in answers:
                protected = await self._protect(body) if self._entries else body
                if isinstance(protected, Reply):
                    return protected
                await self._outlet.send(protected)
        ended = await stream.status()
        return ended if self._last is None or ended.code != Code.OK else self._last

    async def _protect(self, message: bytes) -> bytes | Reply:
        """One answer; a reply where it must not leave and there is no message to say so."""
        try:
            answer = stream_ids.read_answer(message, self._route.dialect)
        except InvalidAnswer:
            return self._error(status.upstream_unknown_form(), "")
        entry = self._entries.get(answer.id)
        if entry is None:
            model = self._pipeline.runtime.models.get(answer.model)
            hidden = answer.body is not None and (model is None or model.protects_outputs)
            return self._error(status.upstream_unknown_form(), "") if hidden else message
        if answer.body is None or entry.decision is None:
            return stream_ids.rename_answer(message, entry.id, self._route.dialect)
        protected = await self._protected(entry, entry.decision, answer.body)
        if isinstance(protected, Reply):
            return self._error(protected, entry.id)
        return messages.wrap_stream(protected + stream_ids.id_field(entry.id), self._route.dialect)

    async def _protected(self, entry: Entry, decision: Decision, body: bytes) -> bytes | Reply:
        model = entry.opened.model
        engine, profile = (None, None) if model is None else (model.engine, model.profile)
        if engine is None or profile is None:  # the upstream was swapped under the stream
            return status.upstream_away()
        made = Plan(decision, b"")

        def protect() -> tuple[Conclusion, bytes]:
            conclusion = case.conclude(engine, profile, made, body, Extra())
            changed = case.protect(body, conclusion.y, profile)
            return conclusion, case.cut(changed, entry.opened.inference, profile)

        try:
            conclusion, protected = await self._pipeline.new_budget(entry.opened.ticket).run(protect)
        except case.UnknownForm:
            return status.upstream_unknown_form()
        except TimeoutError as error:
            stuck = self._pipeline.stuck(entry.opened, error)
            if isinstance(stuck, Reply):
                return stuck
            with contextlib.suppress(case.UnknownForm):
                return case.cut(body, entry.opened.inference, profile)
            return status.upstream_unknown_form()
        if len(conclusion.findings) > len(decision.findings):  # an output stage failed on this answer
            self._pipeline.record(entry.opened, made, conclusion)
        return status.refused() if conclusion.action is Action.DENY else protected

    def _error(self, reply: Reply, request_id: str) -> bytes | Reply:
        """The reply as a message, where the dialect has one."""
        return messages.stream_error(reply.details, self._route.dialect, request_id) or reply
