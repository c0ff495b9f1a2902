"""What is written to a stream of grpc.aio's: failures of the call, and failures of what is to be written."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio

from guard.proxy.writing import write_all

CALL_ENDED = [
    aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata()),
    aio.InternalError("ended"),
    asyncio.InvalidStateError(),
]


class Call:
    """Remembers what was done to it; fails where it is told to."""

    def __init__(self, failing: BaseException | None = None, at: str = "write") -> None:
        self.wrote: list[bytes] = []
        self.closed = self.cancelled = self.over = False
        self._failing, self._at = failing, at

    def _fail(self, at: str) -> None:
        if self._failing is not None and at == self._at:
            raise self._failing

    async def wait_for_connection(self) -> None:
        self._fail("connect")

    async def write(self, body: bytes) -> None:
        self._fail("write")
        self.wrote.append(body)

    async def done_writing(self) -> None:
        self._fail("close")
        self.closed = not self.done()

    def done(self) -> bool:
        return self.over or self.cancelled

    def cancel(self) -> bool:
        before, self.cancelled = self.done(), True
        return not before


async def words(*said: bytes | BaseException) -> AsyncIterator[bytes]:
    for one in said:
        if isinstance(one, BaseException):
            raise one
        yield one


async def test_everything_is_written_then_closed() -> None:
    call = Call()
    await write_all(call, words(b"1", b"2"))
    assert (call.wrote, call.closed, call.cancelled) == ([b"1", b"2"], True, False)


@pytest.mark.parametrize("error", CALL_ENDED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("at", ["connect", "write", "close"])
async def test_a_call_that_has_ended_keeps_its_status(error: Exception, at: str, caplog: Any) -> None:
    call = Call(error, at)
    await write_all(call, words(b"1"))
    assert not call.cancelled
    assert not caplog.records


@pytest.mark.parametrize(
    "error", [*CALL_ENDED, aio.UsageError("over"), ValueError("secret")], ids=lambda error: type(error).__name__
)
async def test_a_source_that_fails_cancels_the_call(error: Exception, caplog: Any) -> None:
    """Whatever it fails with: the server would wait for what never comes."""
    call = Call()
    await write_all(call, words(b"1", error))
    assert (call.wrote, call.closed, call.cancelled) == ([b"1"], False, True)
    is_told = not isinstance(error, aio.UsageError | aio.InternalError)  # those say that the caller's call is over
    assert [record.message for record in caplog.records] == ["a stream's messages cannot be read"] * is_told


async def test_a_source_that_fails_after_the_call_has_ended_is_nobodys_business(caplog: Any) -> None:
    call = Call()
    call.over = True
    await write_all(call, words(ValueError("secret")))
    assert not caplog.records


async def test_a_write_that_fails_otherwise_cancels_the_call(caplog: Any) -> None:
    call = Call(ValueError("secret"))
    await write_all(call, words(b"1"))
    assert call.cancelled
    assert [record.message for record in caplog.records] == ["a stream's messages cannot be sent"]


async def test_a_channel_that_was_closed_under_the_call_ends_it(caplog: Any) -> None:
    call = Call(aio.UsageError("Channel is closed."))
    await write_all(call, words(b"1"))
    assert call.cancelled
    assert not caplog.records


async def test_nothing_is_written_to_a_call_that_has_ended() -> None:
    call = Call()
    call.over = True
    await write_all(call, words(b"1"))
    assert not call.wrote


async def test_who_stops_writing_cancels_the_call() -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    call = Call()
    writing = asyncio.create_task(write_all(call, never()))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert call.cancelled
