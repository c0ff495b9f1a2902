"""Threads that work for an event loop: what they return, how many there are, and what becomes of work nobody wants."""

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError

import pytest

from guard.proxy.crew import Crew


@pytest.fixture
async def crew() -> AsyncIterator[Crew]:
    made = Crew("test-crew", 2)
    yield made
    made.close()
    await until(lambda: not names("test-crew"))


def names(prefix: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


class Held:
    """Work that begins, and does not end before it may."""

    def __init__(self) -> None:
        self.may, self.begun = threading.Event(), 0

    def __call__(self) -> str:
        self.begun += 1
        assert self.may.wait(10)
        return "done"


async def test_work_returns_what_it_returns_from_another_thread(crew: Crew) -> None:
    assert await crew.run(divmod, 7, 2) == (3, 1)
    assert await crew.run(sorted, [1, 3, 2], reverse=True) == [3, 2, 1]
    assert await crew.run(threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(3), CancelledError()])
async def test_what_it_raises_is_raised(crew: Crew, error: BaseException) -> None:
    def work() -> None:
        raise error

    future = crew.run(work)
    with pytest.raises(type(error)) as told:
        await future
    assert told.value is error
    assert await crew.run(int, "3") == 3  # the thread is still there


async def test_a_stop_of_iteration_becomes_an_error_that_a_future_takes(crew: Crew) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await crew.run(next, iter(()))


async def test_threads_are_started_as_they_are_needed_and_no_more_than_allowed(crew: Crew) -> None:
    assert not names("test-crew")
    for _ in range(5):
        await crew.run(int)
    assert len(names("test-crew")) == 1
    held = Held()
    waiting = [crew.run(held) for _ in range(5)]
    await until(lambda: held.begun == 2)
    await asyncio.sleep(0.05)
    assert (held.begun, sorted(names("test-crew"))) == (2, ["test-crew_0", "test-crew_1"])
    held.may.set()
    assert await asyncio.gather(*waiting) == ["done"] * 5


async def test_work_that_nobody_wants_any_more_is_not_begun(crew: Crew) -> None:
    held, other = Held(), Held()
    busy = [crew.run(held) for _ in range(2)]
    await until(lambda: held.begun == 2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await crew.run(other)
    held.may.set()
    assert await asyncio.gather(*busy) == ["done"] * 2
    assert await crew.run(int) == 0
    assert other.begun == 0


async def test_work_that_was_begun_ends_for_nobody(crew: Crew, caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    begun = crew.run(held)
    await until(lambda: held.begun == 1)
    begun.cancel()
    held.may.set()
    assert await crew.run(int) == 0
    assert not caplog.records


async def test_what_was_worked_on_is_not_kept(crew: Crew) -> None:
    class Body:
        pass

    def work(body: Body) -> Body:
        return body

    async def once() -> "weakref.ref[Body]":
        body = Body()
        assert await crew.run(work, body) is body
        return weakref.ref(body)

    gone = await once()
    gc.collect()
    await until(lambda: gone() is None)


async def test_closing_cancels_what_has_not_begun_and_lets_threads_go() -> None:
    crew, held = Crew("test-closed", 2), Held()
    busy, waiting = [crew.run(held) for _ in range(2)], [crew.run(held) for _ in range(3)]
    await until(lambda: held.begun == 2)
    crew.close()
    assert all(one.cancelled() for one in waiting)
    with pytest.raises(RuntimeError, match="let go"):
        crew.run(int)
    held.may.set()
    assert await asyncio.gather(*busy) == ["done"] * 2
    await until(lambda: not names("test-closed"))
    assert held.begun == 2


def test_work_that_outlives_its_event_loop_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()

    async def begun() -> Crew:
        crew = Crew("test-outlives", 1)
        future = crew.run(held)
        await until(lambda: held.begun == 1)
        future.cancel()
        return crew

    with caplog.at_level(logging.DEBUG, "asyncio"):
        crew = asyncio.run(begun())
        crew.close()
        held.may.set()
        ends = time.monotonic() + 10
        while names("test-outlives") and time.monotonic() < ends:
            time.sleep(0.01)
    assert not names("test-outlives")
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
