"""The further calls of one request (views, standby, probe): all at once, beside the original, each of them optional."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from guard.proxy.case import Extra, Plan
from guard.proxy.seam import Reply
from guard.proxy.status import Code


@dataclass(frozen=True, slots=True)
class Further:
    """Calls under way."""

    views: tuple[asyncio.Task[Reply], ...]
    standby: asyncio.Task[Reply] | None
    probe: asyncio.Task[Reply] | None

    @property
    def _tasks(self) -> tuple[asyncio.Task[Reply], ...]:
        return (*self.views, *(task for task in (self.standby, self.probe) if task is not None))

    async def collect(self, timeout_s: float) -> tuple[Reply | None, Extra]:
        """The standby's reply, and all bodies; an answer that is not there in time is missing."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        standby, probe = _result(self.standby), _result(self.probe)
        views = tuple(_body(_result(view)) for view in self.views)
        return standby, Extra(views, _body(standby), _body(probe))

    def cancel(self) -> None:
        """End what is still under way."""
        for task in self._tasks:
            task.cancel()


def ask_further(made: Plan, call: Callable[[bytes, str], Awaitable[Reply]]) -> Further:
    """Begin every further call of a plan; `call` takes a body and a purpose."""

    async def one(body: bytes, purpose: str) -> Reply:
        return await call(body, purpose)

    return Further(
        views=tuple(asyncio.create_task(one(view, "view")) for view in made.views),
        standby=None if made.standby is None else asyncio.create_task(one(made.standby, "standby")),
        probe=None if made.probe is None else asyncio.create_task(one(made.probe, "view")),
    )


def _result(task: asyncio.Task[Reply] | None) -> Reply | None:
    if task is None or not task.done() or task.cancelled() or task.exception() is not None:
        return None
    return task.result()


def _body(reply: Reply | None) -> bytes | None:
    return None if reply is None or reply.code != Code.OK else reply.body
