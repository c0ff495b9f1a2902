"""What callers may have, and how fast: budgets for everyone; a throttle and delays for whom the policy slows down.

Budgets and throttles are token buckets in the store, so that all workers and replicas share them. Where the store is
away and keeps nothing locally, nobody is refused for it: the calls are counted. A refusal is the same whatever ran out,
and tells when to come back in whole steps, so that it says little of the rate.

A query that is refused before the model was asked would be back too soon, which tells it from one that was refused for
its answer. So it is held as long as one of the latest answers took.
"""

import asyncio
import logging
import math
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from guard import keyed, rationing
from guard.assembly import capped
from guard.metrics import Metrics
from guard.proxy import status
from guard.proxy.models import GuardedModel
from guard.proxy.seam import Reply
from guard.settings import Policy
from guard.types import Action, Bucket, Decision, Mode, Store

_STEP_S = 5
_CALLERS = 4  # that room for delays is kept for, at least
_PACES = 128
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Rations:
    """Of one version of the settings. most_delayed: answers held back at once."""

    store: Store
    metrics: Metrics
    secret: bytes
    most_delayed: int
    delayed: Counter[str] = field(default_factory=Counter)
    paced: Counter[str] = field(default_factory=Counter)
    paces: dict[tuple[str, int], deque[float]] = field(default_factory=dict)
    """By model and size (rows, to the next power of two), how many seconds the latest answers took."""

    async def budget(self, model: GuardedModel, caller: str, rows: int) -> Reply | None:
        """Take what a call costs; the refusal where there is not enough left."""
        budget = model.settings.budget
        if budget.unlimited:
            return None
        mode = capped(budget.mode, model.settings.mode)
        if mode is Mode.OFF:
            return None
        least = 0.0 if model.engine is None else model.engine.least_bits(rows)
        wait_s = await self._take(model.name, caller, rationing.of_budget(budget, rows, least), force=False)
        if wait_s <= 0.0:
            return None
        enforced = mode is Mode.ENFORCE and model.enforces_for(caller, time.time())
        self._count(model, "budget", enforced=enforced)
        return status.spent(_coarse(wait_s)) if enforced else None

    async def charge(self, model: GuardedModel, caller: str, rows: int, bits: float | None = None) -> None:
        """What an answer told beyond its labels, which are paid for: it may make debt. bits: None: the most."""
        budget = model.settings.budget
        off = capped(budget.mode, model.settings.mode) is Mode.OFF
        if budget.bits_per_day is None or model.engine is None or off:
            return
        rest = (model.engine.most_bits(rows) if bits is None else bits) - model.engine.least_bits(rows)
        if rest > 0.0:
            await self._take(model.name, caller, (rationing.of_bits(budget.bits_per_day, rest),), force=True)

    async def throttle(self, model: GuardedModel, caller: str, rows: int) -> Reply | None:
        """Of a caller whom the policy throttles: the refusal, where he has had his part."""
        bucket = rationing.of_throttle(model.settings.policy, rows)
        wait_s = await self._take(model.name, caller, (bucket,), force=False)
        if wait_s <= 0.0:
            return None
        self._count(model, "throttle", enforced=True)
        return status.spent(_coarse(wait_s))

    async def hold(self, model: GuardedModel, decision: Decision, left_s: float) -> None:
        """Hold an answer back, where the policy says so. left_s: until its deadline."""
        if Action.DELAY not in decision.responses:
            return
        await self._sleep(model, decision, self.delay_s(decision, model.settings.policy, left_s), self.delayed, "delay")

    def delay_s(self, decision: Decision, policy: Policy, left_s: float) -> float:
        """Between half of it and all of it, by a keyed draw; at most half of what is left."""
        return max(0.0, min(rationing.delay_s(policy, self._drawn(decision, b"guard delay")), left_s / 2.0))

    def answered(self, model: GuardedModel, decision: Decision, rows: int, taken_s: float) -> None:
        """So long an answer to so many rows took, which nobody held back."""
        if Action.DELAY not in decision.responses:
            self.paces.setdefault((model.name, _size(rows)), deque(maxlen=_PACES)).append(taken_s)

    async def pace(
        self, model: GuardedModel, decision: Decision, rows: int, taken_s: float, left_s: float
    ) -> None:  # fmt: skip
        """Hold a refusal for as long as an answer would have taken; taken_s: until now."""
        wait_s = min(self.pace_s(model.name, decision, rows) - taken_s, left_s / 2.0)
        if wait_s > 0.0:
            await self._sleep(model, decision, wait_s, self.paced, "pace")

    def pace_s(self, model: str, decision: Decision, rows: int) -> float:
        """What one of the latest answers of this size took, by a keyed draw; 0 where there was none."""
        known = self.paces.get((model, _size(rows)))
        return known[int(len(known) * self._drawn(decision, b"guard pace"))] if known else 0.0

    def _drawn(self, decision: Decision, person: bytes) -> float:
        """In [0, 1)."""
        said = f"{decision.query.caller}\n{decision.query.decision_id}".encode()
        return keyed.draws(said, self.secret[:64], person)[0]

    async def _sleep(
        self, model: GuardedModel, decision: Decision, wait_s: float, held: Counter[str], what: str
    ) -> None:
        """Where there is room. held: how many are already, by caller."""
        caller, own = decision.query.caller, max(1, self.most_delayed // _CALLERS)
        if held.total() >= self.most_delayed or held[caller] >= own:
            self._count(model, what, enforced=False)
            return
        held[caller] += 1
        try:
            await asyncio.sleep(wait_s)
        finally:
            held[caller] -= 1
            held += Counter()  # callers without any go

    async def _take(self, scope: str, caller: str, buckets: tuple[Bucket, ...], *, force: bool) -> float:
        try:
            return max(await self.store.take(scope, caller, buckets, time.time(), force=force), default=0.0)
        except (OSError, RuntimeError) as error:
            _log.warning("the store failed: %s", type(error).__name__)
            self.metrics.unrationed.labels(scope).inc()
            return 0.0

    def _count(self, model: GuardedModel, what: str, *, enforced: bool) -> None:
        self.metrics.rationed.labels(model.name, what, "refused" if enforced else "let through").inc()


def _coarse(wait_s: float) -> int | None:
    """In whole steps; None for never."""
    return None if math.isinf(wait_s) else _STEP_S * max(1, math.ceil(wait_s / _STEP_S))


def _size(rows: int) -> int:
    return max(0, rows - 1).bit_length()
