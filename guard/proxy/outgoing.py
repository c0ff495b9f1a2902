"""A stream to an upstream, counted once and traced, however it ends. Unary calls: `models.ask`.

What counts is the status with which the upstream ended it. Where somebody else did (the caller left or his deadline
passed, Guard refused a message, nothing moved any more) it counts as cancelled, unless the upstream owes an answer, or
the end, for so long that it hangs: HUNG_S, or half of what the caller waits for at all, but never less than LEAST_S, or
callers in a hurry would make it look broken. Nobody but the model knows how many answers a message has: one that is
behind with the second answer to a message owes nothing here.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import cast

from guard.metrics import Metrics
from guard.proxy import methods, models, status
from guard.proxy.models import Route
from guard.proxy.seam import Metadata, Reply, UpstreamStream
from guard.proxy.status import Code
from guard.tracing import Live

LEAST_S = 0.5
_EARLY_S = 0.1
"""How long before a caller's deadline a server may tell of it: it knows a rounded one, on another clock."""


@contextlib.contextmanager
def open_stream(
    route: Route,
    metrics: Metrics,
    model: str,
    purpose: str,
    path: str,
    bodies: AsyncIterator[bytes],
    metadata: Metadata,
    timeout_s: float | None,
    span: Live | None = None,
) -> Iterator[UpstreamStream]:
    """One stream, as long as somebody holds it; below this span, where the caller's call is traced.

    timeout_s: what the caller's deadline leaves to it.
    """
    below = None if span is None else span.call(methods.traced(path), route.upstream.name, purpose)
    if below is not None:
        metadata = below.onto(metadata)
    followed = _Followed(route, path, bodies, metadata, timeout_s)
    try:
        yield followed
    finally:
        metrics.upstream_calls.labels(model, purpose, followed.code).inc()
        if below is not None:
            below.end_rpc(followed.code)


class _Followed:
    """Implements `seam.UpstreamStream`: another's, and what it owes."""

    def __init__(
        self, route: Route, path: str, bodies: AsyncIterator[bytes], metadata: Metadata, timeout_s: float | None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = None if timeout_s is None else self._loop.time() + timeout_s
        self._patience_s = route.timeout_s if timeout_s is None else min(route.timeout_s, timeout_s)
        self._unanswered, self._said_all = 0, False
        self._since: float | None = self._loop.time()  # it is waited for; None: its answer waits for the caller
        self._ended: Reply | None = None
        self._stream = route.upstream.stream(path, self._asked(bodies), metadata, timeout_s)

    async def _asked(self, bodies: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for body in bodies:
            self._owe()
            self._unanswered += 1
            yield body
        self._owe()
        self._said_all = True

    def _owe(self) -> None:
        if self._since is not None and not self._unanswered:
            self._since = self._loop.time()

    async def initial(self) -> Metadata:
        """The initial metadata, once there."""
        return await self._stream.initial()

    async def messages(self) -> AsyncGenerator[bytes]:
        """The answers, until the stream ends."""
        async with contextlib.aclosing(cast("AsyncGenerator[bytes]", self._stream.messages())) as answers:
            async for body in answers:
                self._unanswered = max(0, self._unanswered - 1)
                self._since = None
                yield body
                self._since = self._loop.time()

    async def status(self) -> Reply:
        """How it ended."""
        self._ended = await self._stream.status()
        return self._ended

    @property
    def code(self) -> str:
        """The name that it counts under."""
        ended = self._ended
        if ended is not None and not (ended.code == Code.DEADLINE_EXCEEDED and self._is_past):
            return status.name_of(ended.code)
        return (Code.DEADLINE_EXCEEDED if self._hangs else Code.CANCELLED).name

    @property
    def _is_past(self) -> bool:
        return self._end is not None and self._loop.time() >= self._end - _EARLY_S

    @property
    def _hangs(self) -> bool:
        if self._since is None or not (self._unanswered or self._said_all):
            return False
        return self._loop.time() - self._since >= min(models.HUNG_S, max(LEAST_S, self._patience_s / 2))
