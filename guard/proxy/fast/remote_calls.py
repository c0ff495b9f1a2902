"""Calls to a server: a unary one is a future, a stream has a task that sends and a reader that takes its time."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from guard.proxy import status
from guard.proxy.fast import answers
from guard.proxy.fast.connection import CANCEL, REFUSED_STREAM, Headers
from guard.proxy.fast.framing import PREFIX_BYTES, Inbox, Malformed, TooLarge, inflated, pack
from guard.proxy.seam import Metadata, Reply

if TYPE_CHECKING:
    from guard.proxy.fast.link import Link

WINDOW_BYTES = 1024 * 1024
_log = logging.getLogger(__name__)
Framing = Callable[[bytes], Awaitable[tuple[bytes, bytes]]]


async def plain(message: bytes) -> tuple[bytes, bytes]:
    """A frame that is not compressed."""
    return pack(0, len(message)), message


class _Heads:
    """What both kinds of call hear before messages. initial: None while there are no headers."""

    __slots__ = ("encoding", "inbox", "initial", "link", "number", "window")

    def __init__(self, link: "Link", most: int) -> None:
        self.link = link
        self.number = 0
        self.inbox = Inbox(most)
        self.initial: Metadata | None = None
        self.encoding = "identity"
        self.window = WINDOW_BYTES

    def opened(self, headers: Headers) -> Reply | None:
        """The response's headers; how the call ends where these say so."""
        reply, initial, self.encoding = answers.opening(headers)
        if reply is None:
            self.initial = initial
        return reply

    def widen(self, wanted: int) -> None:
        """Open the window as far as a message needs."""
        if wanted > self.window:
            self.window = wanted
            self.link.session.enlarge(self.number, min(wanted, 2**31 - 1))

    def settle(self, reply: Reply) -> None:
        """How it ends; the first word counts."""
        raise NotImplementedError

    def lost(self) -> None:
        """The connection is gone."""
        self.settle(status.upstream_away())

    def expire(self) -> None:
        """The time is up."""
        self.settle(status.upstream_late())


class UnaryCall(_Heads):
    """One unary call. Implements `deadlines.Timed`, and what `link` tells calls.

    reply: how it ends. refused: the server says that it did nothing about it.
    """

    __slots__ = ("_message", "refused", "reply")

    def __init__(self, link: "Link", most: int) -> None:
        super().__init__(link, most)
        self.reply: asyncio.Future[Reply] = link.loop.create_future()
        self.refused = False
        self._message: bytes | None = None

    def on_headers(self, headers: Headers | None, end: bool) -> None:
        """A block of headers: the first, or how it ended."""
        if headers is None:
            self.settle(status.upstream_broken())
        elif self.initial is None and not end:
            if not answers.is_informational(headers):
                reply = self.opened(headers)
                if reply is not None:
                    self.settle(reply)
        elif not end:
            self.settle(status.upstream_broken())
        else:
            self._end(headers)

    def on_data(self, data: bytes, end: bool) -> None:
        """A part of the answer."""
        inbox = self.inbox
        ready = inbox.add(data, False)
        if ready and self._message is None:
            try:
                self._message = inbox.take()
            except (TooLarge, Malformed) as error:
                self.settle(_unreadable(error))
                return
            self.widen(inbox.need)
        if end:
            self.settle(status.upstream_broken())

    def _end(self, headers: Headers) -> None:
        trailers_only = self.initial is None
        reply = answers.not_grpc(headers) if trailers_only else None
        if reply is None:
            initial = () if self.initial is None else self.initial
            reply = answers.ended(headers, initial, self._message)
        if self.inbox.size and reply.code == 0:  # more than the one message
            reply = status.upstream_broken()
        self.settle(reply)

    def on_closed(self, code: int) -> None:
        """The server reset the stream."""
        self.refused = code == REFUSED_STREAM and self.initial is None
        self.settle(answers.was_reset(code))

    def on_drained(self) -> None:
        """Nobody waits for that."""

    def settle(self, reply: Reply) -> None:
        """How it ends; the first word counts."""
        if not self.reply.done():
            self.reply.set_result(reply)

    async def inflate(self, reply: Reply) -> Reply:
        """The answer as it was before compression."""
        if reply.code or not self.inbox.compressed:
            return reply
        try:
            body = await inflated(reply.body, self.encoding, self.inbox.most)
        except (TooLarge, Malformed) as error:
            return _unreadable(error)
        return Reply(body, initial=reply.initial, trailing=reply.trailing)


def _unreadable(error: TooLarge | Malformed) -> Reply:
    return status.upstream_too_large() if isinstance(error, TooLarge) else status.upstream_broken()


class StreamCall(_Heads):
    """One stream on a connection. Implements `deadlines.Timed`, and what `link` tells calls."""

    __slots__ = ("_drained", "_readable", "ended", "opened_at")

    def __init__(self, link: "Link", most: int) -> None:
        super().__init__(link, most)
        self.opened_at: asyncio.Future[Metadata] = link.loop.create_future()
        self.ended: asyncio.Future[Reply] = link.loop.create_future()
        self._readable = asyncio.Event()
        self._drained: asyncio.Future[None] | None = None

    def on_headers(self, headers: Headers | None, end: bool) -> None:
        """A block of headers: the first, or how it ended."""
        if headers is None:
            self.settle(status.upstream_broken())
        elif self.initial is None and not end:
            if not answers.is_informational(headers):
                reply = self.opened(headers)
                if reply is not None:
                    self.settle(reply)
                elif not self.opened_at.done():
                    self.opened_at.set_result(self.initial or ())
        else:
            reply = answers.not_grpc(headers) if self.initial is None else None
            self.settle(reply or answers.ended(headers, (), b""))

    def on_data(self, data: bytes, end: bool) -> None:
        """A part of an answer."""
        if self.inbox.add(data, False):
            self._readable.set()
        if end:
            self.settle(status.upstream_broken())

    def on_closed(self, code: int) -> None:
        """The server reset the stream."""
        self.settle(answers.was_reset(code))

    def on_drained(self) -> None:
        """Everything has left."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def settle(self, reply: Reply) -> None:
        """How it ends; the first word counts."""
        if not self.ended.done():
            self.ended.set_result(reply)
        if not self.opened_at.done():
            self.opened_at.set_result(())
        self.inbox.ended = True
        self._readable.set()
        self.on_drained()

    async def send(self, prefix: bytes, body: bytes) -> None:
        """One message; waits while the server does not take it."""
        link = self.link
        if self.ended.done() or link.closing:
            return
        held = link.session.write(self.number, prefix, body)
        link.touch()
        if (held > 0 or link.paused_at is not None) and link.session.notify(self.number):
            self._drained = link.loop.create_future()
            await self._drained

    async def message(self) -> bytes | None:
        """The next answer; None: there are no more."""
        inbox = self.inbox
        try:
            while (message := inbox.take()) is None:
                if inbox.ended:
                    return None
                if not self.link.closing:
                    self.widen(2 * inbox.need)
                    self.link.touch()
                self._readable.clear()
                await self._readable.wait()
            if not self.link.closing and not self.ended.done():
                self.link.session.consume(self.number, len(message) + PREFIX_BYTES)
                self.link.touch()
            return await inflated(message, self.encoding, inbox.most) if inbox.compressed else message
        except (TooLarge, Malformed) as error:
            if not self.ended.done() or self.ended.result().code == 0:
                self.ended = self.link.loop.create_future()
                self.settle(_unreadable(error))
            return None

    def cancel(self) -> None:
        """Nobody reads it any more. Nothing is reset where both sides have ended."""
        if not self.link.closing:
            self.link.session.reset(self.number, CANCEL)
            self.link.touch()
        self.settle(Reply(code=status.Code.CANCELLED))


class RemoteStream:
    """Implements `seam.UpstreamStream`: its task finds a connection, then sends what `bodies` give.

    begin: opens the stream, and says what is to be done when it has ended; a reply where there is no connection.
    """

    def __init__(
        self,
        begin: Callable[[], Awaitable[StreamCall | Reply]],
        end: Callable[[StreamCall], None],
        bodies: AsyncIterator[bytes],
        framing: Framing,
    ) -> None:
        self._call: asyncio.Future[StreamCall | Reply] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._send(begin, bodies, framing))
        self._end = end

    async def _send(
        self, begin: Callable[[], Awaitable[StreamCall | Reply]], bodies: AsyncIterator[bytes], framing: Framing
    ) -> None:
        try:
            call = await begin()
        except BaseException as error:
            self._call.set_result(Reply(code=status.Code.CANCELLED))
            if isinstance(error, asyncio.CancelledError):
                raise
            _log.exception("a stream could not be opened")
            return
        self._call.set_result(call)
        if isinstance(call, Reply):
            return
        try:
            async for body in bodies:
                await call.send(*await framing(body))
            if not (call.ended.done() or call.link.closing):
                call.link.session.finish(call.number, None)
                call.link.touch()
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - whatever the source does, the stream ends
            _log.exception("what a stream was to send failed")
            self._leave(call)

    def _leave(self, call: StreamCall) -> None:
        self._task.cancel()
        call.cancel()
        self._end(call)

    def _left(self) -> None:
        if not self._call.done():
            self._task.cancel()
            return
        call = self._call.result()
        if not isinstance(call, Reply):
            self._leave(call)

    async def _opened(self) -> StreamCall | Reply:
        return await asyncio.shield(self._call)

    async def initial(self) -> Metadata:
        """The initial metadata, once there; empty where the stream ended without."""
        try:
            call = await self._opened()
            return () if isinstance(call, Reply) else await asyncio.shield(call.opened_at)
        except asyncio.CancelledError:
            self._left()
            raise

    async def messages(self) -> AsyncGenerator[bytes]:
        """The answers, until the stream ends."""
        try:
            call = await self._opened()
            if isinstance(call, Reply):
                return
            while (message := await call.message()) is not None:
                yield message
        finally:
            self._left()

    async def status(self) -> Reply:
        """How it ended."""
        try:
            call = await self._opened()
            return call if isinstance(call, Reply) else await asyncio.shield(call.ended)
        finally:
            self._left()
