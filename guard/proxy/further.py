"""The further calls of one request (views, standby, probe): all at once, beside the original, each of them optional.

A call that carries several views and fails is made again as one call a view, so that the rows of one cannot cost the
others their answers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from guard.proxy.case import Extra, Plan
from guard.proxy.extra import Ask
from guard.proxy.seam import Reply
from guard.proxy.status import Code

T = TypeVar("T")
Views = tuple[tuple[Ask, bytes], ...]
Call = Callable[[bytes, str, int], Awaitable[Reply]]
"""Body, purpose, rows -> reply."""
ENDED = frozenset({Code.DEADLINE_EXCEEDED, Code.CANCELLED})
"""Nobody waits any more: asking again makes no sense."""


@dataclass(frozen=True, slots=True)
class Further:
    """Calls under way."""

    views: tuple[asyncio.Task[Views], ...]
    standby: asyncio.Task[Reply] | None
    probe: asyncio.Task[Reply] | None

    @property
    def _tasks(self) -> tuple[asyncio.Task[Any], ...]:
        return (*self.views, *(task for task in (self.standby, self.probe) if task is not None))

    async def collect(self, timeout_s: float) -> tuple[Reply | None, Extra]:
        """The standby's reply, and all bodies; an answer that is not there in time is missing."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        standby, probe = _result(self.standby), _result(self.probe)
        views = tuple(answered for task in self.views for answered in _result(task) or ())
        return standby, Extra(views, _body(standby), _body(probe))

    def cancel(self) -> None:
        """End what is still under way."""
        for task in self._tasks:
            task.cancel()


def ask_further(made: Plan, call: Call, run: Callable[..., Awaitable[Any]]) -> Further:
    """Begin every further call of a plan. `run` does array work in a thread."""

    async def one(body: bytes, purpose: str) -> Reply:
        return await call(body, purpose, made.rows)

    async def views(ask: Ask) -> Views:
        reply = await call(ask.body, "view", ask.extra)
        if reply.code == Code.OK:
            return ((ask, reply.body),)
        if made.asking is None or len(ask.views) == 1 or reply.code in ENDED:
            return ()
        answers = await asyncio.gather(*map(views, await run(made.asking.alone, ask)))
        return tuple(answered for few in answers for answered in few)

    return Further(
        views=tuple(asyncio.create_task(views(ask)) for ask in made.views),
        standby=None if made.standby is None else asyncio.create_task(one(made.standby, "standby")),
        probe=None if made.probe is None else asyncio.create_task(one(made.probe, "view")),
    )


def _result(task: asyncio.Task[T] | None) -> T | None:
    if task is None or not task.done() or task.cancelled() or task.exception() is not None:
        return None
    return task.result()


def _body(reply: Reply | None) -> bytes | None:
    return None if reply is None or reply.code != Code.OK else reply.body
