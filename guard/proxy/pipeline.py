"""The way of one inference request: read, inspect, forward, conclude, answer. `streams` uses the same steps.

What the policy denies takes as long as one of the latest answers to unary calls, whether the model was asked or not:
the time says nothing of stage or score. Who is throttled, challenged or out of his budget is told at once.

Failures. A stage's own failure is the engine's to judge (`on_error`). Where the inspection as a whole fails or runs out
of time, `on_inspection_timeout` decides, for models that enforce; others are forwarded uninspected, and counted.
A shadow model's answer never waits for its conclusion: views are asked for after the answer has left.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from guard.audit import event_of, sampled
from guard.engine import Engine
from guard.metrics import Metrics
from guard.profile import Profile
from guard.proxy import case, methods, record, spans, status
from guard.proxy.budget import Budget
from guard.proxy.case import Extra, How, Looked, Plan
from guard.proxy.challenges import Purse
from guard.proxy.extra import Ask
from guard.proxy.flags import flagged
from guard.proxy.further import ENDED, Further, ask_further
from guard.proxy.models import GuardedModel, Route, ask
from guard.proxy.record import as_decided, is_recorded
from guard.proxy.runtime import Runtime
from guard.proxy.seam import Metadata, Reply
from guard.proxy.status import Code
from guard.techniques import ALERT
from guard.tracing import Live
from guard.types import (
    Action,
    Conclusion,
    Decision,
    Finding,
    History,
    InvalidQuery,
    Mode,
    OnError,
    Query,
    Update,
    without,
)
from guard.watching import unanswered
from guard.wire import messages
from guard.wire.messages import Inference, InvalidAnswer

INLINE_BYTES = 16 * 1024
"""Smaller messages are read on the event loop: a thread would cost more than the work. So are light ones, which may be
larger (`messages.parse_light`)."""
LIGHT_ROWS = 4
"""So many rows, in a message as small, are inspected there, too, where every stage is light (`Engine.light`)."""
UNLISTED = "unknown"
_CALLERS_OWN = frozenset({"original", "ride"})
"""Calls to the upstream that a caller would have waited for without Guard, too."""
_NO_ROWS = np.zeros(0)
_ALLOWED = frozenset({Action.ALLOW})
_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ticket:
    """One request's surroundings. deadline: on the event loop's clock. metadata: what travels on.

    cohorts: the groups that the caller belongs to.
    purse:   the proof of work that came with it.
    span:    of the call, where it is traced; of a message, of a stream's.
    """

    caller: str
    decision_id: str
    metadata: Metadata
    deadline: float
    cohorts: tuple[str, ...] = ()
    purse: Purse = field(default_factory=Purse)
    span: Live | None = None

    @property
    def left_s(self) -> float:
        """How long until the deadline."""
        return self.deadline - asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class Opened:
    """A request that may be forwarded. plan: None where it is forwarded uninspected.

    paid: what was worked for each row, in hashes.
    """

    ticket: Ticket
    inference: Inference
    route: Route
    model: GuardedModel | None
    budget: Budget
    plan: Plan | None = None
    began: float = 0.0
    """When it was read, on the event loop's clock."""
    paid: float = 0.0

    @property
    def taken_s(self) -> float:
        """Since it was read."""
        return asyncio.get_running_loop().time() - self.began

    @property
    def label(self) -> str:
        """The model's name for metrics."""
        return UNLISTED if self.model is None else self.model.name

    @property
    def rows(self) -> int:
        """What the call costs of its caller's budget."""
        tensors, profile = self.inference.tensors, None if self.model is None else self.model.profile
        inspected = None if profile is None else tensors.get(profile.input_name)
        counted = tensors.values() if inspected is None else (inspected,)
        return max((len(tensor) for tensor in counted if tensor.ndim), default=1) or 1

    @property
    def forward(self) -> bytes:
        """What goes to the upstream."""
        return self.inference.received if self.plan is None else self.plan.forward


class _Phase:
    """How long a phase took, waiting for a thread included, however it ended."""

    __slots__ = ("_began", "_of")

    def __init__(self, metrics: Metrics, model: str, phase: str) -> None:
        self._of = metrics.phase_seconds.labels(model, phase)

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._of.observe(time.perf_counter() - self._began)


class Pipeline:
    """The steps, with one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._limits = runtime.settings.limits
        self._metrics = runtime.metrics
        self.rations = runtime.rations
        self.challenges = runtime.challenges

    async def infer(self, ticket: Ticket, body: bytes) -> Reply:
        """One unary request."""
        began = time.perf_counter()
        light = self._light(body)
        short = None if light is None else await self._short_way(ticket, light, began)
        if short is not None:
            return _named(short, ticket)
        opened = await self.open(ticket, body, light)
        if isinstance(opened, Reply):
            return _named(opened, ticket)
        reply = await self._forwarded(opened)
        added_s = time.perf_counter() - began - opened.budget.elsewhere_s
        self._metrics.added_seconds.labels(opened.label).observe(max(0.0, added_s))
        return reply

    async def _forwarded(self, opened: Opened) -> Reply:
        """The answer to a request that may be forwarded."""
        ticket = opened.ticket
        if opened.plan is None:
            return await self.call(opened, opened.forward, "original")
        if opened.plan.decision.waits:
            held = await self._carry(opened, self._answer_held(opened, opened.plan))
            return _named(await self._as_asked(opened, held), ticket)
        reply = await self._carry(opened, self.call(opened, opened.forward, "original"))
        self.conclude_later(opened, reply)
        if opened.model is not None and reply.code == Code.OK:
            self.rations.answered(opened.model, opened.plan.decision, opened.rows, opened.taken_s)
        await self.hold(opened, opened.plan.decision)
        reply = self._with_puzzle(opened, opened.plan.decision, reply)
        return _named(await self._as_asked(opened, reply), ticket)

    def _light(self, body: bytes) -> Inference | None:
        """The request, where reading it takes no time and there is nothing wrong with it."""
        try:
            return messages.parse_light(body, max_rows=self._limits.max_rows, max_elements=self._limits.max_elements)
        except InvalidQuery:
            return None

    async def _short_way(self, ticket: Ticket, inference: Inference, began: float) -> Reply | None:
        """What the steps below come to for a valid request of which nobody wants to know more; None: take them."""
        model = self.runtime.models.get(inference.model)
        is_sample = sampled(ticket.decision_id, self.runtime.settings.audit.sample_allowed)
        if model is None or is_sample or self.runtime.watchers.watched:
            return None
        rows = model.passes(inference, ticket.caller, time.time())
        if rows is None:
            return None
        self._metrics.rows.labels(model.name).inc(rows)
        spent_s = time.perf_counter() - began
        self._metrics.inspection_seconds.labels(model.name).observe(spent_s)
        self._metrics.added_seconds.labels(model.name).observe(spent_s)
        self._metrics.decisions.labels(model.name, Action.ALLOW, Action.ALLOW).inc()
        if ticket.span is not None:
            ticket.span.attributes |= spans.of_pass(model.name, ticket.decision_id)
        metadata, left_s, body = ticket.metadata, ticket.left_s, inference.body
        return await ask(
            model.route, self._metrics, model.name, "original", methods.INFER, body, metadata, left_s, ticket.span
        )

    async def _as_asked(self, opened: Opened, reply: Reply) -> Reply:
        """The reply with no more classes than its caller asked for."""
        profile = None if opened.model is None else opened.model.profile
        if opened.inference.classes is None or profile is None or reply.code != Code.OK:
            return reply
        cut = self.runtime.readers.run(case.cut, reply.body, opened.inference, profile)
        try:
            return replace(reply, body=await cut)
        except case.UnknownForm:
            held = opened.plan is not None and opened.plan.decision.waits
            return status.upstream_unknown_form() if held else reply

    async def hold(self, opened: Opened, decision: Decision) -> None:
        """Hold an answer back, where the policy says so."""
        if opened.model is not None:
            began = time.perf_counter()
            await self.rations.hold(opened.model, decision, opened.ticket.left_s)
            opened.budget.elsewhere_s += time.perf_counter() - began

    # --- before the upstream

    async def open(
        self, ticket: Ticket, body: bytes, light: Inference | None = None, *, purpose: str | None = "original"
    ) -> Opened | Reply:
        """Read, check and decide; a reply where the request ends here.

        light:   the request, where it is read.
        purpose: of the call to the upstream that fails where that is away; None: of none.
        """
        label = UNLISTED
        try:
            inference = await self._read(ticket, body, light)
            label = inference.model if inference.model in self.runtime.models else UNLISTED
            return await self._open(ticket, inference, purpose)
        except InvalidQuery as error:
            self._metrics.invalid.labels(label).inc()
            return status.invalid(str(error))
        except TimeoutError:
            return status.late()

    async def _read(self, ticket: Ticket, body: bytes, light: Inference | None) -> Inference:
        """Raises InvalidQuery."""
        rows, elements = self._limits.max_rows, self._limits.max_elements

        def read() -> Inference:
            return self._widened(messages.parse_request(body, max_rows=rows, max_elements=elements))

        if light is not None:
            inference = self._widened(light)
        elif len(body) <= INLINE_BYTES:
            inference = read()
        else:
            work = self.runtime.readers.run(read)
            async with asyncio.timeout(max(0.0, ticket.left_s)):
                inference = await work
        self._check_hidden(inference, inspected=inference.classes is not None)
        return inference

    def _widened(self, inference: Inference) -> Inference:
        """With all classes asked for, where its caller asks for some."""
        model = self.runtime.models.get(inference.model)
        return inference if model is None or not model.makes_classes else case.widened(inference, model.profile)

    def _check_hidden(self, inference: Inference, *, inspected: bool) -> None:
        """Raises InvalidQuery for what nobody may ask for, classes only where they are not inspected."""
        hidden = messages.hidden_parameters(inference)
        if not hidden:
            return
        hidden -= set(self.runtime.settings.methods.allow_parameters)
        hidden -= {"classification"} if inspected else set()
        if hidden:
            raise InvalidQuery(f"the request asks for what is not allowed here: {', '.join(sorted(hidden))}")

    async def _open(self, ticket: Ticket, inference: Inference, purpose: str | None) -> Opened | Reply:
        route = self.runtime.route(inference.model)
        if route is None:
            self._metrics.rejected.labels("unlisted_model").inc()
            return status.model_unknown()
        model = self.runtime.models.get(inference.model)
        began = asyncio.get_running_loop().time()
        opened = Opened(ticket, inference, route, model, self.new_budget(ticket), began=began)
        if model is None:
            return self._uninspected(opened, "unlisted_model")
        if not model.is_current:
            async with asyncio.timeout(max(0.0, ticket.left_s)):  # wait_for may lose a cancellation until Python 3.12
                away = await model.ensure_current()
            if away is not None and model.profile is not None:  # it must be known to be the model that was fitted
                if purpose is not None:
                    self._metrics.upstream_calls.labels(model.name, purpose, status.name_of(away.code)).inc()
                return away
        fits = not model.mismatch and model.fits(inference.version)
        if fits:
            model.check(inference)
        spent = await self.rations.budget(model, ticket.caller, opened.rows)
        if spent is not None:
            return spent
        opened = await self._paid(opened, model)
        if fits:
            return await self._inspect(opened, model)
        return await self._charged(self._unproved(self._not_fitted(opened, model), 1.0))

    async def _paid(self, opened: Opened, model: GuardedModel) -> Opened:
        """With what the proof is worth that came with it; it is spent now."""
        if not self.challenges.may(model, opened.ticket.caller):
            return opened
        paid = await self.challenges.pay(model, opened.ticket.caller, opened.ticket.purse, opened.rows)
        return replace(opened, paid=paid)

    def _unproved(self, end: Opened | Reply, progress: float) -> Opened | Reply:
        """What is forwarded uninspected; the refusal where everybody is to bring proof of work."""
        if isinstance(end, Reply) or end.model is None or not self.challenges.may(end.model, end.ticket.caller):
            return end
        if Action.CHALLENGE not in end.model.settings.of_everybody:
            return end
        refusal = self._demand(end, end.model, progress)
        return end if refusal is None else refusal

    def _demand(self, opened: Opened, model: GuardedModel, progress: float) -> Reply | None:
        ticket = opened.ticket
        return self.challenges.demand(model, ticket.caller, ticket.purse, opened.rows, opened.paid, progress)

    def _with_puzzle(self, opened: Opened, decision: Decision, reply: Reply) -> Reply:
        """The answer to a query that was paid for, with a puzzle for the next one."""
        if opened.model is None or reply.code != Code.OK:
            return reply
        return status.with_trailer(reply, self.challenges.ahead(opened.model, decision, opened.rows))

    def _not_fitted(self, opened: Opened, model: GuardedModel) -> Opened | Reply:
        if model.settings.on_profile_mismatch is OnError.DENY:
            self._metrics.rejected.labels("profile_mismatch").inc()
            return status.model_unavailable()
        self._check_hidden(opened.inference, inspected=False)
        return self._uninspected(opened, "profile_mismatch")

    def _uninspected(self, opened: Opened, reason: str) -> Opened:
        self._metrics.uninspected.labels(opened.label, reason).inc()
        if opened.ticket.span is not None:
            opened.ticket.span.attributes |= {"guard.model": opened.label, "guard.uninspected": reason}
        return opened

    async def _inspect(self, opened: Opened, model: GuardedModel) -> Opened | Reply:
        """Sketch, look up, decide."""
        if model.engine is None or model.profile is None:
            self._check_hidden(opened.inference, inspected=False)
            return self._uninspected(opened, "no_profile")
        if model.profile.input_name not in opened.inference.tensors:
            self._check_hidden(opened.inference, inspected=False)
            end = self._uninspected(opened, "shared_memory")  # allowed in the settings, or it would not be here
            return self._unproved(end, 1.0)
        try:
            made = await self._decide(opened, model)
        except (InvalidQuery, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever failed, the settings say what follows
            return await self._charged(self._unproved(self.stuck(opened, error), 0.0))
        conclusion, refusal = as_decided(made.decision), None
        if made.decision.responses != _ALLOWED:
            conclusion, refusal = await self.settle(opened, model, conclusion)
        if refusal is not None:
            if conclusion.action is Action.CHALLENGE:
                self.spawn_credit(opened, unanswered(made.decision.seen))  # of a dearer query than was paid for
                made = replace(made, sha256=case.sha256_of(opened.inference.received))
            self.record(opened, made, conclusion)
            if conclusion.action is Action.DENY:
                await self.rations.pace(model, made.decision, opened.rows, opened.taken_s, opened.ticket.left_s)
            return refusal
        if conclusion.decision is not made.decision:
            made = replace(made, decision=conclusion.decision)
        opened = replace(opened, plan=made)
        self._metrics.rows.labels(opened.label).inc(made.rows)
        return opened

    async def _charged(self, end: Opened | Reply) -> Opened | Reply:
        """What is forwarded uninspected counts as telling the most that it can."""
        if isinstance(end, Opened) and end.model is not None:
            await self.rations.charge(end.model, end.ticket.caller, end.rows)
        return end

    async def _decide(self, opened: Opened, model: GuardedModel) -> Plan:
        engine, profile, ticket = model.engine, model.profile, opened.ticket
        assert engine is not None  # noqa: S101 - seen by the caller
        assert profile is not None  # noqa: S101
        query = Query(_NO_ROWS, ticket.caller, model.name, ticket.decision_id, now=time.time())
        audit, how = self.runtime.settings.audit, self._how(model)

        def look() -> Looked:
            return case.look(opened.inference, profile, model.settings, self._limits, engine, query)

        def decide(looked: Looked, history: History | None) -> Plan:
            decision = engine.decide(looked.query, history, looked.sketches)
            return case.plan(opened.inference, profile, looked, decision, how, digest=is_recorded(audit, decision))

        if not engine.remembers and not model.challenges:  # nothing to look up in between
            with _Phase(self._metrics, opened.label, "decide"):
                if _is_light(opened, engine, profile, len(opened.inference.body)):
                    made = opened.budget.here(lambda: decide(look(), None))
                else:
                    made = await opened.budget.run(lambda: decide(look(), None))
            return await self._flag(opened, made, made.decision.findings)
        with _Phase(self._metrics, opened.label, "sketch"):
            looked = await opened.budget.run(look)
        if self.challenges.foresees(model, ticket.caller, opened.paid):
            history = await self._exchange(opened, model, looked, remember=False)
            foreseen = await opened.budget.run(engine.foresee, looked.query, history, looked.sketches)
            short = self.challenges.is_short(model, opened.paid, foreseen.progress)
            if foreseen.action is Action.CHALLENGE and short:
                return Plan(foreseen, b"")
        history = await self._exchange(opened, model, looked, remember=True)
        with _Phase(self._metrics, opened.label, "decide"):
            made = await opened.budget.run(decide, looked, history)
        await self._credit(opened, made.decision.update)
        return await self._flag(opened, made, made.decision.findings)

    async def _exchange(
        self, opened: Opened, model: GuardedModel, looked: Looked, *, remember: bool
    ) -> History | None:  # fmt: skip
        """What the store knows; None where it is not asked, or is away."""
        if not looked.sketches:
            return None
        ticket, now = opened.ticket, looked.query.now
        try:
            exchanged = self.runtime.store.exchange(
                model.name, ticket.caller, ticket.cohorts, looked.sketches, now, remember=remember
            )
            span = nullcontext() if ticket.span is None else ticket.span.stage("store", "exchange")
            with span, _Phase(self._metrics, opened.label, "store"):
                return await opened.budget.wait(exchanged)
        except (OSError, RuntimeError) as error:  # the monitors' findings carry it
            _log.warning("the store failed: %s", type(error).__name__)
            return None

    async def _flag(self, opened: Opened, made: Plan, findings: tuple[Finding, ...]) -> Plan:
        """The plan with the rows that were flagged. Hashing is not inspecting: it spends nothing of the budget."""
        model, rule, keep = opened.model, self.runtime.settings.quarantine, self.runtime.quarantine.keeps
        if model is None or model.profile is None or not any(f.fired or f.stage == ALERT for f in findings):
            return made
        try:
            return await self.runtime.readers.run(
                flagged, opened.inference, model.profile, made, findings, rule, keep=keep
            )
        except Exception as error:  # noqa: BLE001 - what is marked for later decides nothing now
            _log.error("model %s: flagged rows are lost", opened.label, exc_info=error)
            self._metrics.quarantined.labels("digest", "failed").inc()
            return made

    async def _credit(self, opened: Opened, update: Update) -> None:
        """Tell the store; nobody waits for one that is elsewhere."""
        if self.runtime.store.local:
            await self._tell(opened, update)
        else:
            self.spawn_credit(opened, update)

    def spawn_credit(self, opened: Opened, update: Update) -> None:
        """Tell the store, in the background."""
        if not update.empty and not self.runtime.shared.background.spawn(self._tell(opened, update)):
            self._metrics.uninspected.labels(opened.label, "background_full").inc()

    async def _tell(self, opened: Opened, update: Update) -> None:
        """What the store cannot take is lost, and said."""
        if update.empty or opened.model is None:
            return
        ticket = opened.ticket
        try:
            await self.runtime.store.credit(opened.model.name, ticket.caller, ticket.cohorts, update, time.time())
        except (OSError, RuntimeError) as error:
            _log.warning("the store failed: %s", type(error).__name__)

    def _how(self, model: GuardedModel) -> How:
        reads = model.engine is not None and model.engine.holds_answers
        return How(may_ride=model.may_ride, reads=reads, max_bytes=self._limits.max_request_bytes)

    def new_budget(self, ticket: Ticket) -> Budget:
        """What inspecting one query may take."""
        return Budget(self._limits.inspection_timeout_s, self.runtime.pool, ticket.span)

    def stuck(self, opened: Opened, error: Exception) -> Opened | Reply:
        """The inspection failed as a whole, or took too long."""
        reason = "timeout" if isinstance(error, TimeoutError) else "error"
        if reason == "error":
            _log.error("model %s: the inspection failed", opened.label, exc_info=error)
        enforces = opened.model is not None and opened.model.enforces_for(opened.ticket.caller, time.time())
        if not enforces or self._limits.on_inspection_timeout is OnError.ALLOW:
            self._metrics.inspection_seconds.labels(opened.label).observe(opened.budget.spent_s)
            return self._uninspected(opened, f"inspection_{reason}")
        self._metrics.rejected.labels(f"inspection_{reason}").inc()
        query = Query(np.zeros(0), opened.ticket.caller, opened.label, opened.ticket.decision_id)
        finding = Finding("inspection", "detector", Mode.ENFORCE, error=reason)
        decision = Decision(query, Action.DENY, Action.DENY, enforced=True, findings=(finding,))
        made = Plan(decision, b"", sha256=case.sha256_of(opened.inference.received))
        self.record(opened, made, as_decided(decision))
        return status.refused()

    # --- the upstream

    async def call(self, opened: Opened, body: bytes, purpose: str, *, timeout_s: float | None = None) -> Reply:
        """One ModelInfer call to the request's upstream."""
        began = time.perf_counter()
        reply = await ask(
            opened.route,
            self._metrics,
            opened.label,
            purpose,
            methods.INFER,
            body,
            opened.ticket.metadata,
            opened.ticket.left_s if timeout_s is None else timeout_s,
            opened.ticket.span,
        )
        if purpose in _CALLERS_OWN:
            opened.budget.elsewhere_s += time.perf_counter() - began
        return reply

    async def _carry(self, opened: Opened, work: Awaitable[T]) -> T:
        """The work of an answer; a caller that leaves before it is done leaves its event behind."""
        try:
            return await work
        except asyncio.CancelledError:
            if opened.plan is not None:
                self.record(opened, opened.plan, as_decided(opened.plan.decision))
            raise

    async def _answer_held(self, opened: Opened, made: Plan) -> Reply:
        """The answer leaves after the conclusion."""
        ridden = (
            None if made.ride is None else await self._ride(opened, made.ride, opened.ticket.left_s, made.ride.extra)
        )
        if ridden is not None:
            return await self._finish(opened, made, *ridden)
        rode, made = made.ride is not None, await self._beside(opened, made)
        further = self._ask_further(opened, made, opened.ticket.left_s)
        try:
            original = await self.call(opened, opened.forward, "original")
            if original.code != Code.OK:
                return await self._finish(opened, made, original, (None, Extra()))
            if rode and opened.model is not None:
                opened.model.rode_in_vain()
            answers = await further.collect(self._limits.inspection_timeout_s)
            return await self._finish(opened, made, original, answers)
        finally:
            further.cancel()

    async def _ride(
        self, opened: Opened, ride: Ask, timeout_s: float, rows: int
    ) -> tuple[Reply, tuple[Reply | None, Extra]] | None:
        """Ask about all rows in one call: the caller's reply, and the rest; None where they must go separately.

        rows: how many are beyond those that are asked about in any case.
        """
        self._metrics.extra_rows.labels(opened.label, "ride").inc(rows)
        reply = await self.call(opened, ride.body, "ride", timeout_s=timeout_s)
        if reply.code in ENDED:
            return reply, (None, Extra())
        if reply.code != Code.OK:
            return None
        try:
            if len(reply.body) <= INLINE_BYTES:
                own, standby = case.split(reply.body, ride)
            else:
                own, standby = await opened.budget.run(case.split, reply.body, ride)
        except (InvalidAnswer, TimeoutError):
            return None
        extra = Extra(((ride, reply.body),), standby)
        return replace(reply, body=own), (None if standby is None else replace(reply, body=standby), extra)

    async def _beside(self, opened: Opened, made: Plan) -> Plan:
        """The plan with calls of their own for Guard's rows; without any where they cannot be written."""
        if made.ride is None or opened.model is None:
            return made
        try:
            return await opened.budget.run(case.beside, made, reads=self._how(opened.model).reads)
        except (ValueError, TimeoutError):
            return replace(made, ride=None)

    def _ask_further(self, opened: Opened, made: Plan, timeout_s: float) -> Further:
        """Begin to ask for views, standby and probe, all at once."""

        async def call(body: bytes, purpose: str, rows: int) -> Reply:
            self._metrics.extra_rows.labels(opened.label, "beside").inc(rows)
            return await self.call(opened, body, purpose, timeout_s=timeout_s)

        return ask_further(made, call, self.new_budget(opened.ticket).run)

    async def _finish(self, opened: Opened, made: Plan, original: Reply, answers: tuple[Reply | None, Extra]) -> Reply:
        """Conclude and protect."""
        model, (standby, extra) = opened.model, answers
        if original.code != Code.OK:
            self.record(opened, made, as_decided(made.decision))
            return original
        engine, profile = (None, None) if model is None else (model.engine, model.profile)
        if model is None or engine is None or profile is None:  # the upstream was swapped under the call
            return status.upstream_away()

        def finish() -> tuple[Conclusion, bytes]:
            conclusion = case.conclude(engine, profile, made, original.body, extra)
            chosen = standby if conclusion.use_standby and standby is not None else original
            return conclusion, case.protect(chosen.body, conclusion.y, profile)

        try:
            with _Phase(self._metrics, opened.label, "conclude"):
                if _is_light(opened, engine, profile, len(original.body)):
                    conclusion, body = opened.budget.here(finish)
                else:
                    conclusion, body = await opened.budget.run(finish)
        except case.UnknownForm:
            self.record(opened, made, as_decided(made.decision))
            return status.upstream_unknown_form()
        except Exception as error:  # noqa: BLE001 - whatever failed, the settings say what follows
            return await self._unfinished(opened, made, original, error)
        conclusion, refusal = await self.settle(opened, model, conclusion)
        made = await self._flag(opened, made, conclusion.findings)
        self.record(opened, made, conclusion)
        await self._credit(opened, conclusion.update)
        if refusal is not None:
            return refusal
        await self.rations.charge(model, opened.ticket.caller, opened.rows, conclusion.bits)
        self.rations.answered(model, conclusion.decision, opened.rows, opened.taken_s)
        await self.hold(opened, conclusion.decision)
        chosen = standby if conclusion.use_standby and standby is not None else original
        answer = Reply(body, initial=chosen.initial, trailing=chosen.trailing)
        return self._with_puzzle(opened, conclusion.decision, answer)

    async def _unfinished(self, opened: Opened, made: Plan, original: Reply, error: Exception) -> Reply:
        """The conclusion failed as a whole, or took too long."""
        stuck = await self._charged(self.stuck(opened, error))
        if isinstance(stuck, Reply):
            return stuck
        await self.hold(opened, made.decision)
        return self._with_puzzle(opened, made.decision, original)

    async def settle(
        self, opened: Opened, model: GuardedModel, conclusion: Conclusion
    ) -> tuple[Conclusion, Reply | None]:
        """What a concluded decision comes to, and the refusal where it is one."""
        if conclusion.action is Action.DENY:
            return conclusion, status.refused()
        if Action.CHALLENGE in conclusion.decision.responses:
            refusal = self._demand(opened, model, conclusion.decision.progress)
            if refusal is not None:
                return conclusion, refusal
            conclusion = _settled(conclusion, Action.CHALLENGE)
        if Action.THROTTLE not in conclusion.decision.responses:
            return conclusion, None
        spent = await self.rations.throttle(model, opened.ticket.caller, opened.rows)
        if spent is not None:
            return conclusion, spent
        return _settled(conclusion, Action.THROTTLE), None

    # --- after the answer

    def conclude_later(self, opened: Opened, original: Reply | None) -> None:
        """Conclude what need not wait; `original` None: the answer is not at hand, so it is asked for again."""
        made, model = opened.plan, opened.model
        if made is None or model is None:
            return
        failed = original is not None and original.code != Code.OK
        unseen = original is None and not made.decision.views and not self._how(model).reads
        if failed or unseen or model.engine is None or not model.engine.reads_answers:
            self.record(opened, made, as_decided(made.decision))
            if unseen:
                self.spawn_credit(opened, unanswered(made.decision.seen))
            return
        later, span = opened, opened.ticket.span
        if span is not None:  # it ends with the call
            span.attributes |= spans.of_decision(opened.label, made.decision)
            later = replace(opened, ticket=replace(opened.ticket, span=span.child("conclude")))
        if self.runtime.shared.background.spawn(self._conclude_later(later, made, original)):
            self.runtime.calls += 1  # it is not retired before
        else:
            self._metrics.uninspected.labels(opened.label, "background_full").inc()
            self.record(opened, made, as_decided(made.decision))

    async def _conclude_later(self, opened: Opened, made: Plan, original: Reply | None) -> None:
        conclusion = as_decided(made.decision)
        try:
            conclusion, made = await self.conclude(opened, made, original, opened.route.timeout_s)
            await self._credit(opened, conclusion.update)
            if opened.model is not None and original is not None:
                await self.rations.charge(opened.model, opened.ticket.caller, opened.rows, conclusion.bits)
        except TimeoutError:
            if original is not None:
                await self._charged(opened)
            self._metrics.uninspected.labels(opened.label, "inspection_timeout").inc()
        finally:
            self.runtime.calls -= 1
            self.record(opened, made, conclusion)
            if opened.ticket.span is not None:
                opened.ticket.span.end()

    async def conclude(
        self, opened: Opened, made: Plan, original: Reply | None, timeout_s: float
    ) -> tuple[Conclusion, Plan]:
        """The conclusion alone, with the further calls that it needs. Raises TimeoutError."""
        model, ends = opened.model, asyncio.get_running_loop().time() + timeout_s
        if model is None:
            return as_decided(made.decision), made
        ridden = None if made.ride is None else await self._ride(opened, made.ride, timeout_s, made.ride.total)
        if ridden is not None:
            extra = ridden[1][1]
        else:
            made = await self._beside(opened, made)
            if original is None and made.probe is None and (made.views or self._how(model).reads):
                made = replace(made, probe=made.forward)
            left_s = ends - asyncio.get_running_loop().time()
            further = self._ask_further(opened, made, left_s)
            try:
                _, extra = await further.collect(max(0.0, left_s))
            finally:
                further.cancel()
        if model.engine is None or model.profile is None:
            return as_decided(made.decision), made
        body, budget = None if original is None else original.body, self.new_budget(opened.ticket)
        try:
            with _Phase(self._metrics, opened.label, "conclude"):
                conclusion = await budget.run(case.conclude, model.engine, model.profile, made, body, extra)
        finally:
            opened.budget.spent_s += budget.spent_s
        return conclusion, await self._flag(opened, made, conclusion.findings)

    def record(self, opened: Opened, made: Plan, conclusion: Conclusion) -> None:
        """Count it, write it down, tell who watches."""
        self._metrics.inspection_seconds.labels(opened.label).observe(opened.budget.spent_s)
        if opened.model is not None and conclusion.findings:
            opened.model.watch_drift(conclusion.findings)
        span = opened.ticket.span
        event = event_of(
            conclusion,
            time_unix=time.time(),
            model=opened.inference.model,
            version=opened.inference.version,
            payload_sha256=made.sha256,
            flagged=made.flags.rows,
            span=("", "") if span is None else (span.trace_id.hex(), span.span_id.hex()),
        )
        if span is not None:
            span.attributes |= spans.of_event(opened.label, event)
        record.record(self.runtime, opened.label, event)
        self.runtime.quarantine.record(event, made.flags)
        if made.flags.kept and opened.model is not None and opened.model.profile is not None:
            self.runtime.lately.picture(event.decision_id, made.flags, opened.model.profile.space)


def _is_light(opened: Opened, engine: Engine, profile: Profile, size: int) -> bool:
    """Whether inspecting it takes less than handing it to a thread does. size: of the message at hand."""
    rows = opened.inference.rows
    few = rows is not None and rows <= LIGHT_ROWS
    return engine.light and few and size <= INLINE_BYTES and profile.space.layout != "encoded"


def _settled(conclusion: Conclusion, response: Action) -> Conclusion:
    """The conclusion once it is settled that one of its responses need not be."""
    decision = without(conclusion.decision, response)
    return replace(conclusion, decision=decision, action=decision.action)


def _named(reply: Reply, ticket: Ticket) -> Reply:
    """The reply with the decision's id in its trailer."""
    return status.with_trailer(reply, ((status.DECISION_KEY, ticket.decision_id),))
