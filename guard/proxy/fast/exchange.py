"""One call of a caller: a task that the gate answers, its messages, and how it ends.

A message is read only when the gate asks for it. Until then the stream's window holds what is unread to WINDOW_BYTES;
then it is opened as far as the one message needs.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from guard.proxy import methods, server, status
from guard.proxy.fast import codec, heads
from guard.proxy.fast.connection import CANCEL, NO_ERROR, Headers
from guard.proxy.fast.framing import PREFIX_BYTES, Inbox, Malformed, TooLarge, framed, inflated, pack
from guard.proxy.fast.heads import Head
from guard.proxy.seam import Call, Reply
from guard.proxy.status import Code

if TYPE_CHECKING:
    from guard.proxy.fast.callers import Caller

WINDOW_BYTES = 128 * 1024
EARLY_S = 0.02
"""How long an early end waits for the first message: grpc.aio loses a status that comes before it has written."""
LINGER_S = 0.5
"""How long a caller that was answered early may go on sending, as far as its window lets it."""
PACE_BYTES = 1024 * 1024
"""What must leave of an answer within UNREAD_S, at least, for its caller to keep the place that it holds."""
_log = logging.getLogger(__name__)


class Gone(Exception):
    """The caller does not read."""


class Lingering:
    """A stream that has been answered, and whose caller has not ended it. Implements `deadlines.Timed`."""

    __slots__ = ("_caller", "_number")

    def __init__(self, caller: "Caller", number: int) -> None:
        self._caller, self._number = caller, number

    def expire(self) -> None:
        """It has had time enough; nothing happens where it has ended."""
        if not self._caller.closing:
            self._caller.session.reset(self._number, NO_ERROR)
            self._caller.touch()


class Served:
    """Implements `server.Exchange`, `deadlines.Timed`."""

    __slots__ = (
        *(
            "_begun",
            "_call",
            "_compress",
            "_encoding",
            "_heard",
            "_leaving",
            "_over",
            "_slot",
            "_started",
            "_waiter",
            "_window",
        ),
        *("number", "caller", "inbox", "task"),
    )

    def __init__(self, caller: "Caller", number: int, head: Head) -> None:
        self.caller, self.number = caller, number
        self.inbox = Inbox(caller.listener.limits.max_request_bytes)
        self._call = Call(head.path, head.metadata, head.timeout_s, caller.peer)
        self._encoding = head.encoding
        self._compress = heads.answers_in(caller.listener.compression, head.accepts)
        self._begun = self._over = self._heard = False
        self._waiter: asyncio.Future[None] | None = None
        self._leaving: asyncio.Future[None] | None = None
        self._window = WINDOW_BYTES
        self._slot = -1
        if head.timeout_s is not None:
            self._slot = caller.listener.deadlines.add(head.timeout_s, self)
        self._started = False
        self.task = caller.loop.create_task(self._run())

    # --- what happens to it

    def on_data(self, data: bytes, end: bool) -> None:
        """A part of a message; whoever waits for it is woken when there is enough."""
        if self.inbox.add(data, end) and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def on_headers(self, _: Headers | None, end: bool) -> None:
        """Trailers: gRPC's callers have none."""
        self.on_data(b"", end)

    def on_drained(self) -> None:
        """Everything has left."""
        if self._leaving is not None and not self._leaving.done():
            self._leaving.set_result(None)

    def on_closed(self, _: int) -> None:
        """The caller has reset it."""
        self.caller.count_reset()
        self.gone()

    def gone(self) -> None:
        """The caller has left."""
        self._over = True
        self._cancel()

    def expire(self) -> None:
        """The caller's deadline has passed."""
        self._slot = -1
        self.end(Reply(code=Code.DEADLINE_EXCEEDED, details="Deadline Exceeded"))

    def end(self, reply: Reply) -> None:
        """Answer in the gate's place."""
        self._finish(reply)
        self._cancel()

    def _cancel(self) -> None:
        self.task.cancel()
        if not self._started:  # a task that is cancelled before its first step never takes one
            self._close()

    # --- the task

    async def _run(self) -> None:
        self._started = True
        path = self._call.path
        try:
            await (self._unary() if path in methods.TABLE and path not in methods.STREAMING else self._stream())
        except asyncio.CancelledError:
            if not self.caller.closing and self.caller.session.notify(self.number):  # what has not left is not sent
                self._reset()
        except Gone:
            self._reset()
        except Exception:  # noqa: BLE001 - its text must not reach a caller
            _log.exception("a call of %r failed", path)
            self._finish(status.internal())
        finally:
            self._close()

    def _close(self) -> None:
        if self._slot >= 0:
            self.caller.listener.deadlines.drop(self._slot, self)
        if not self._over:
            self._reset()
        elif not self.inbox.ended and not self.caller.closing:
            self.caller.listener.deadlines.add(LINGER_S, Lingering(self.caller, self.number))
        self.caller.forget(self.number)

    def _reset(self) -> None:
        self._over = True
        if not self.caller.closing:
            self.caller.session.reset(self.number, CANCEL)
            self.caller.touch()

    async def _unary(self) -> None:
        await self.caller.listener.gate.unary(self._call, self)

    async def _stream(self) -> None:
        stream = self.caller.listener.gate.stream(self._call, self._bodies())
        try:
            initial = await stream.initial()
            if initial:
                self._begin(Reply(initial=initial))
            async with contextlib.aclosing(stream.messages()) as answers:
                async for message in answers:
                    await self._write(message)
            ended = await stream.status()
            await self._listen()
            self._finish(ended)
            await self._drained()
        finally:
            stream.cancel()

    # --- reading

    async def receive(self, within_s: float) -> bytes | None:
        """The request. Raises TimeoutError."""
        if self.inbox.ended:  # it came with its head
            return await self._message(consumes=False)
        async with asyncio.timeout(within_s):
            return await self._message(consumes=False)

    async def _bodies(self) -> AsyncIterator[bytes]:
        while (message := await self._message(consumes=True)) is not None:
            yield message

    async def _message(self, *, consumes: bool) -> bytes | None:
        inbox = self.inbox
        try:
            while (message := inbox.take()) is None:
                if inbox.ended:
                    return None
                self._widen(2 * inbox.need if consumes else inbox.need)
                self._waiter = self.caller.loop.create_future()
                await self._waiter
            self._heard = True
            if consumes and not self._over:
                self.caller.session.consume(self.number, len(message) + PREFIX_BYTES)
                self.caller.touch()
            return await inflated(message, self._encoding, inbox.most) if inbox.compressed else message
        except TooLarge as error:
            text = f"Received message larger than max ({error.args[0]} vs. {inbox.most})"
            self.end(Reply(code=Code.RESOURCE_EXHAUSTED, details=text))
        except Malformed:
            self.end(Reply(code=Code.INTERNAL, details="the message cannot be read"))
        raise asyncio.CancelledError

    def _widen(self, wanted: int) -> None:
        """Open the window as far as the message needs. What is consumed is made good only by halves of the window."""
        if wanted > self._window and not self._over:
            self._window = wanted
            self.caller.session.enlarge(self.number, min(wanted, 2**31 - 1))
            self.caller.touch()

    async def _listen(self) -> None:
        """Give the first message of a call that ends early a moment: grpc.aio loses a status that comes before it."""
        if self._heard or self._over or self.inbox.size or self.inbox.ended:
            return
        self._waiter = self.caller.loop.create_future()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EARLY_S):
                await self._waiter

    # --- answering

    async def send(self, reply: Reply) -> None:
        """The answer, or how the call ends instead."""
        if reply.code != Code.OK:
            await self._listen()
            self._finish(reply)
            return
        prefix, body = await self._framed(reply.body)
        if self._over:
            return
        self._over = self._begun = True
        opening = heads.OPENINGS[self._compress]
        if reply.initial:
            opening = (*opening, *codec.encoded(reply.initial))
        caller = self.caller
        held = caller.session.respond(self.number, opening, heads.closing(reply), prefix, body)
        caller.touch()
        if held > 0 or caller.paused_at is not None:
            await self._drained()

    def then(self, leave: Callable[[], None]) -> None:
        """`send` has waited until it was read."""
        leave()

    async def _framed(self, body: bytes) -> tuple[bytes, bytes]:
        if self._compress is None:
            return pack(0, len(body)), body
        return await framed(body, self._compress)

    def _begin(self, reply: Reply) -> None:
        if self._begun or self._over:
            return
        self._begun = True
        opening = (*heads.OPENINGS[self._compress], *codec.encoded(reply.initial))
        self.caller.session.respond(self.number, opening, None)
        self.caller.touch()

    async def _write(self, message: bytes) -> None:
        self._begin(Reply())
        prefix, body = await self._framed(message)
        if self._over:
            return
        caller = self.caller
        held = caller.session.write(self.number, prefix, body)
        caller.touch()
        if held > 0 or caller.paused_at is not None:
            await self._drained()

    def _finish(self, reply: Reply) -> None:
        """How the call ends, where that is not with the answer of a unary one."""
        if self._over:
            return
        if reply.initial:
            self._begin(reply)
        self._over = True
        session = self.caller.session
        if self._begun:
            session.finish(self.number, heads.closing(reply))
        else:
            session.respond(self.number, heads.only_trailers(reply), False)
        self.caller.touch()

    async def _drained(self) -> None:
        """Wait until everything has left. Raises Gone where too little does."""
        caller = self.caller
        left = 0 if caller.closing else caller.session.notify(self.number)
        while left:
            self._leaving = caller.loop.create_future()
            try:
                async with asyncio.timeout(server.UNREAD_S):
                    await self._leaving
            except TimeoutError:
                before, left = left, 0 if caller.closing else caller.session.notify(self.number)
                if before - left < PACE_BYTES and left:
                    raise Gone from None
            else:
                return
