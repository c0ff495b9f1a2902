"""What a worker tells its parent beside Guard's own API: how it is, and its part of what explains decisions.

JSON over gRPC, on a socket in a directory of the user's own. Events travel as the audit log's lines (`guard.events`,
`guard.recorded`), some at a time, so that no message grows with the journal.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import grpc
from grpc import aio

from guard import config
from guard.events import Event, render
from guard.proxy.runtime import Runtime
from guard.recorded import parse

SERVICE = "/guard.private.Worker/"
_BATCH = 64
_WAIT_S = 5.0

Place = tuple[str, int]
"""A model and the store's number of a row; or a decision's id, and a row's place there."""


@dataclass(frozen=True, slots=True)
class State:
    """ready: it takes calls, and all that is behind it. serving: some of it. digest: of the settings in force there."""

    ready: bool
    serving: bool
    digest: str


class _Handlers(grpc.GenericRpcHandler):
    """The worker's side."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    def service(self, handler_call_details: Any) -> Any:
        answers: dict[str, Callable[[Any], Iterator[Any]]] = {
            "State": self._state, "Events": self._events, "Origins": self._origins, "Lately": self._lately,
        }  # fmt: skip
        answer = answers.get(handler_call_details.method.removeprefix(SERVICE))
        return None if answer is None else grpc.unary_stream_rpc_method_handler(_answering(answer))

    def _state(self, _: Any) -> Iterator[Any]:
        runtime = self._runtime()
        yield asdict(State(runtime.ready, runtime.serving, config.digest(runtime.settings)))

    def _events(self, asked: dict[str, str]) -> Iterator[Any]:
        """Of a decision, if one is named, else of a caller."""
        journal = self._runtime().journal
        if asked["decision_id"]:
            found = journal.find(asked["decision_id"])
            yield [] if found is None else [render(found)]
            return
        own = tuple(event for event in journal.events if event.caller == asked["caller"])
        for at in range(0, len(own), _BATCH):
            yield [render(event) for event in own[at : at + _BATCH]]

    def _origins(self, places: list[list[Any]]) -> Iterator[Any]:
        journal = self._runtime().journal
        yield [journal.origin(str(model), int(number)) for model, number in places]

    def _lately(self, asked: dict[str, int]) -> Iterator[Any]:
        yield self._runtime().lately.document(int(asked["decisions"]), int(asked["callers"]))


def _answering(answer: Callable[[Any], Iterator[Any]]) -> Callable[[bytes, Any], AsyncIterator[bytes]]:
    async def handle(request: bytes, _: Any) -> AsyncIterator[bytes]:
        for one in answer(json.loads(request)):
            yield json.dumps(one).encode()

    return handle


def handlers(runtime: Callable[[], Runtime]) -> grpc.GenericRpcHandler:
    """For the worker's private listener."""
    return _Handlers(runtime)


class Worker:
    """The parent's side: one worker. What fails raises grpc.aio's AioRpcError."""

    def __init__(self, channel: aio.Channel) -> None:
        self._channel = channel

    def _ask(self, method: str, request: Any) -> AsyncIterator[bytes]:
        ask: Any = self._channel.unary_stream(SERVICE + method)  # of bytes, without serialisers
        call: AsyncIterator[bytes] = ask(json.dumps(request).encode(), timeout=_WAIT_S)
        return call

    async def state(self) -> State:
        """How it is."""
        (told,) = [json.loads(one) async for one in self._ask("State", None)]
        return State(**told)

    async def events(self, *, decision_id: str = "", caller: str = "") -> list[Event]:
        """Of a decision, or of a caller, oldest first."""
        found: list[Event] = []
        async for some in self._ask("Events", {"decision_id": decision_id, "caller": caller}):
            found += _events(json.loads(some))
        return found

    async def origins(self, places: Sequence[Place]) -> list[Place | None]:
        """The decision that each row came in there, and its place in it."""
        (told,) = [json.loads(one) async for one in self._ask("Origins", list(places))]
        return [None if one is None else (one[0], one[1]) for one in told]

    async def lately(self, decisions: int, callers: int) -> dict[str, Any]:
        """What it noticed lately."""
        asked = {"decisions": decisions, "callers": callers}
        (told,) = [json.loads(one) async for one in self._ask("Lately", asked)]
        return dict(told)


def _events(lines: Iterable[str]) -> Iterator[Event]:
    return (event for event in map(parse, lines) if isinstance(event, Event))
