"""Guard's own API where several workers answer calls: the parent asks all of them, and makes one answer of theirs.

The store is theirs together, so what is in it any of them can tell; decisions are each worker's own. While the store is
away each has a history of its own, and what they tell of callers is put together, too. A worker that does not answer
is passed over as long as another does.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import grpc
from grpc import aio

from guard import explaining
from guard.events import Event
from guard.explaining import Explanation
from guard.proxy import private
from guard.proxy.admin_callers import DECISIONS, LIMIT, explanation
from guard.proxy.private import Place
from guard.wire.guard.v1 import guard_pb2 as pb
from guard.wire.guard.v1 import guard_pb2_grpc

TIMEOUT_S = 10.0
INSPECT_TIMEOUT_S = 60.0
MAX_WAITING = 64
MAX_WATCHES = 64
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_CHANNEL = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
)

T = TypeVar("T")


class Link:
    """One worker, as its parent reaches it: the channel outlives the process and finds the one that takes its place."""

    def __init__(self, socket: str) -> None:
        self._channel = aio.insecure_channel(socket, options=_CHANNEL)
        self.api: Any = guard_pb2_grpc.GuardServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self.own = private.Worker(self._channel)

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()


@dataclass(frozen=True, slots=True)
class Joined:
    """Decisions of several journals, as one."""

    listed: Sequence[Event]
    origins: Mapping[Place, Place] = field(default_factory=dict)

    @property
    def events(self) -> Iterator[Event]:
        """Oldest first."""
        return iter(self.listed)

    def find(self, decision_id: str) -> Event | None:
        """One decision."""
        return next((event for event in self.listed if event.decision_id == decision_id), None)

    def origin(self, model: str, number: int) -> Place | None:
        """The decision that a row came in, and its place there."""
        return self.origins.get((model, number))


class Gathered:
    """The handlers. links: of all workers."""

    def __init__(self, links: Sequence[Link], started: float) -> None:
        self._links, self._started, self._next = links, started, 0
        self._watches: set[asyncio.Task[Any]] = set()

    def end_watches(self) -> None:
        """At the end of the parent."""
        for task in self._watches:
            task.cancel()

    # --- asking

    async def _all(self, context: Any, ask: Callable[[Link], Any]) -> list[Any]:
        """The answers of those that answer. Ends the call where nobody does, or one says why not."""
        told = await asyncio.gather(*(ask(link) for link in self._links), return_exceptions=True)
        good = [one for one in told if not isinstance(one, BaseException)]
        for one in told:
            if isinstance(one, BaseException) and not isinstance(one, aio.AioRpcError):
                raise one
        if not good:
            await _end(context, _worst([one for one in told if isinstance(one, aio.AioRpcError)]))
        return good

    async def Inspect(self, request: pb.InspectRequest, context: Any) -> pb.InspectResponse:  # noqa: N802 - as generated
        """By one of them, in turn; by the next where it is not there."""
        self._next += 1
        failed: list[aio.AioRpcError] = []
        for i in range(len(self._links)):
            link = self._links[(self._next + i) % len(self._links)]
            try:
                response: pb.InspectResponse = await link.api.Inspect(
                    request, timeout=context.time_remaining() or INSPECT_TIMEOUT_S
                )
            except aio.AioRpcError as error:
                failed.append(error)
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    break
            else:
                return response
        return await _end(context, failed[-1])

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:  # noqa: N802
        """Ready where all are; drift as the worker sees it that has most to say."""
        told = await self._all(context, lambda link: link.api.Status(request, timeout=TIMEOUT_S))
        response: pb.StatusResponse = joined_status(told)
        response.started.FromMicroseconds(round(self._started * 1e6))
        return response

    async def ListCallers(self, request: pb.ListCallersRequest, context: Any) -> pb.ListCallersResponse:  # noqa: N802
        """Each caller as the worker tells of him that is most alarmed."""
        told = await self._all(context, lambda link: link.api.ListCallers(request, timeout=TIMEOUT_S))
        return joined_callers(told, request.limit or LIMIT)

    async def Forgive(self, request: pb.ForgiveRequest, context: Any) -> pb.ForgiveResponse:  # noqa: N802
        """By all, one after the other: the first clears the store, each its own journal."""
        done: list[pb.ForgiveResponse] = []
        failed: list[aio.AioRpcError] = []
        for link in self._links:
            try:
                done.append(await link.api.Forgive(request, timeout=TIMEOUT_S))
            except aio.AioRpcError as error:
                failed.append(error)
        if failed and not any(one.forgiven for one in done):
            await _end(context, _worst(failed))
        return pb.ForgiveResponse(forgiven=any(one.forgiven for one in done))

    # --- explaining

    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainResponse:  # noqa: N802
        """Of all journals together: a caller's decisions, and the rows that they are linked to, are in any of them."""
        if not request.decision_id and not request.caller:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a decision's id or a caller is needed")
        if request.model:
            status = await self.Status(pb.StatusRequest(), context)
            if request.model not in {model.name for model in status.models}:
                await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such model")
        caller, picked = request.caller, list[Event]()
        if request.decision_id:
            picked = await self._events(context, decision_id=request.decision_id)
            if not picked:
                await context.abort(grpc.StatusCode.NOT_FOUND, "nothing is kept of it here")
            caller = picked[0].caller
        listed = await self._events(context, caller=caller)
        known = {event.decision_id for event in listed}
        listed += [event for event in picked if event.decision_id not in known]
        listed.sort(key=lambda event: event.time_unix)
        found = explaining.from_journal(
            Joined(listed, await self._origins(context, picked or listed[-(request.limit or DECISIONS) :])),
            decision_id=request.decision_id,
            caller=request.caller,
            model=request.model,
            limit=request.limit or DECISIONS,
        )
        subject = request.caller if found is None else found.caller
        state = await self._state(subject, request.model) if subject else []
        if found is None and not state:
            await context.abort(grpc.StatusCode.NOT_FOUND, "nothing is kept of it here")
        return explanation(found or Explanation(subject, (), ()), state)

    async def _events(self, context: Any, **subject: str) -> list[Event]:
        return [event for told in await self._all(context, lambda link: link.own.events(**subject)) for event in told]

    async def _origins(self, context: Any, events: Iterable[Event]) -> dict[Place, Place]:
        """Where the rows came in that these events' rows are linked to."""
        wanted = list({(e.model, trace.neighbour): None for e in events for trace in e.traces if trace.neighbour >= 0})
        if not wanted:
            return {}
        told = await self._all(context, lambda link: link.own.origins(wanted))
        return {place: one for found in told for place, one in zip(wanted, found, strict=True) if one is not None}

    async def _state(self, caller: str, model: str) -> list[pb.Caller]:
        """What the store knows of him."""
        asked = pb.ExplainRequest(caller=caller, model=model, limit=1)
        told = await asyncio.gather(
            *(link.api.Explain(asked, timeout=TIMEOUT_S) for link in self._links), return_exceptions=True
        )
        good = [one for one in told if isinstance(one, pb.ExplainResponse)]
        return list(_by_caller(one.callers for one in good).values())

    # --- watching

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchResponse]:  # noqa: N802
        """Decisions of all as they come; a worker that begins anew is watched, too."""
        if len(self._watches) >= MAX_WATCHES * len(self._links):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many readers")
        told: asyncio.Queue[tuple[int, pb.WatchResponse] | None] = asyncio.Queue(MAX_WAITING)
        lost, gone = [0] * len(self._links), [0] * len(self._links)
        heard = [asyncio.Event() for _ in self._links]
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(_watch(link, request, i, told, heard[i])) for i, link in enumerate(self._links)
        ]
        self._watches.update(tasks)
        for task in tasks:
            task.add_done_callback(lambda _: _offer_end(told))
            task.add_done_callback(self._watches.discard)
        waiting: list[asyncio.Task[Any]] = [asyncio.create_task(one.wait()) for one in heard]
        try:
            await asyncio.wait(waiting, timeout=TIMEOUT_S)
            await context.send_initial_metadata(())  # from here on nothing is missed
            while (one := await told.get()) is not None:
                number, event = one
                if event.lost < lost[number]:  # it began anew
                    gone[number] += lost[number]
                lost[number] = event.lost
                event.lost = sum(lost) + sum(gone)
                yield event
        finally:
            for task in (*tasks, *waiting):
                task.cancel()


async def _watch(link: Link, request: pb.WatchRequest, number: int, told: asyncio.Queue[Any], heard: asyncio.Event) -> (
    None
):  # fmt: skip
    """One worker's decisions, for as long as somebody reads. It is told of as heard where it is away, too."""
    while True:
        call = link.api.Watch(request)
        try:
            async with asyncio.timeout(TIMEOUT_S):  # wait_for may lose a cancellation that comes with the head
                await call.initial_metadata()
            heard.set()
            async for event in call:
                await told.put((number, event))
        except (aio.AioRpcError, TimeoutError):
            pass
        finally:
            call.cancel()
        heard.set()
        await asyncio.sleep(0.1)


def _offer_end(told: asyncio.Queue[Any]) -> None:
    """After the last event that has room; a queue that is full has a reader who comes to its end soon."""
    if told.full():
        told.get_nowait()
    told.put_nowait(None)


# --- one answer of several


def joined_status(told: Sequence[pb.StatusResponse]) -> pb.StatusResponse:
    """The first, less ready where another is."""
    whole = pb.StatusResponse()
    whole.CopyFrom(told[0])
    for other in told[1:]:
        models = {model.name: model for model in other.models}
        for model in whole.models:
            beside = models.get(model.name)
            if beside is None:
                continue
            if model.ready and not beside.ready:
                model.reason = beside.reason
            model.ready = model.ready and beside.ready
            stages = {(stage.kind, stage.name): stage for stage in beside.stages}
            for stage in model.stages:
                _take_drift(stage, stages.get((stage.kind, stage.name)))
    return whole


def _take_drift(stage: pb.StageStatus, beside: pb.StageStatus | None) -> None:
    """Each worker looks at its own inputs: an alarm counts more than none, then more inputs than few."""
    if beside is None or not beside.HasField("drift"):
        return
    own, other = stage.drift, beside.drift
    if not stage.HasField("drift") or (other.alarm, other.rows) > (own.alarm, own.rows):
        stage.drift.CopyFrom(other)


def _alarm(caller: pb.Caller) -> tuple[int, float]:
    return caller.level, max((one.log_value for one in caller.evidence), default=0.0)


def _by_caller(told: Iterable[Iterable[pb.Caller]]) -> dict[tuple[str, str], pb.Caller]:
    found: dict[tuple[str, str], pb.Caller] = {}
    for callers in told:
        for caller in callers:
            known = found.get((caller.model, caller.caller))
            if known is None or _alarm(caller) > _alarm(known):
                found[caller.model, caller.caller] = caller
    return found


def joined_callers(told: Sequence[pb.ListCallersResponse], limit: int) -> pb.ListCallersResponse:
    """The most alarming first. left_out is exact where all tell of one store."""
    found = sorted(_by_caller(one.callers for one in told).values(), key=_alarm, reverse=True)
    left_out = max((one.left_out for one in told), default=0) + max(0, len(found) - limit)
    return pb.ListCallersResponse(callers=found[:limit], left_out=left_out)


def _worst(failed: Sequence[aio.AioRpcError]) -> aio.AioRpcError:
    """What somebody said counts more than that somebody was not there."""
    return next((one for one in failed if one.code() not in _AWAY), failed[0])


async def _end(context: Any, error: aio.AioRpcError) -> NoReturn:
    details = (
        "no worker answers" if error.code() in _AWAY and "store" not in (error.details() or "") else error.details()
    )
    await context.abort(error.code(), details)
    raise AssertionError  # pragma: no cover - abort raises
