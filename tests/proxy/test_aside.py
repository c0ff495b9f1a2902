"""Work that may hang: one thread, a bounded wait, and everybody else's threads left alone."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from guard.proxy.aside import Aside, Busy


def threads(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_work_is_done_one_after_the_other() -> None:
    aside, at_work, most = Aside("test-turns", 10.0), 0, 0

    def work() -> int:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        at_work -= 1
        return most

    assert await asyncio.gather(*(aside.run(work) for _ in range(20))) == [1] * 20


async def test_what_fails_is_told() -> None:
    aside = Aside("test-fails", 10.0)

    def work() -> None:
        raise KeyError("x")

    for _ in range(2):
        with pytest.raises(KeyError):
            await aside.run(work)


async def test_what_hangs_takes_one_thread_until_it_ends() -> None:
    go, aside = threading.Event(), Aside("test-hangs", 0.1)
    for _ in range(5):
        with pytest.raises(Busy):
            await aside.run(go.wait)
    assert threads("test-hangs") == 1
    assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 10) == 7
    go.set()
    await until(lambda: threads("test-hangs") == 0)
    await asyncio.sleep(0)
    assert await aside.run(lambda: 8) == 8


async def test_who_leaves_leaves_the_place_taken() -> None:
    go, aside = threading.Event(), Aside("test-leaves", 10.0)
    asking = asyncio.create_task(aside.run(go.wait))
    await until(lambda: threads("test-leaves") == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    later = asyncio.create_task(aside.run(lambda: 9))
    await asyncio.sleep(0.05)
    assert threads("test-leaves") == 1
    go.set()
    assert await later == 9


def test_a_thread_that_outlives_the_loop_disturbs_nobody() -> None:
    go, aside = threading.Event(), None

    async def main() -> None:
        nonlocal aside
        aside = Aside("test-outlives", 0.05)
        with pytest.raises(Busy):
            await aside.run(go.wait)

    asyncio.run(main())
    (thread,) = [one for one in threading.enumerate() if one.name == "test-outlives"]
    assert thread.daemon
    go.set()
    thread.join(10)
    assert not thread.is_alive()


async def test_a_thread_that_cannot_be_started_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    aside = Aside("tests", 5.0)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with pytest.raises(Busy):
            await aside.run(lambda: 7)
    assert await aside.run(lambda: 7) == 7


async def test_what_work_raises_is_not_busy() -> None:
    def late() -> None:
        raise TimeoutError("the place's own")

    def leave() -> None:
        raise SystemExit(3)

    aside = Aside("tests", 5.0)
    with pytest.raises(TimeoutError, match="own"):
        await aside.run(late)
    with pytest.raises(SystemExit):
        await aside.run(leave)
    assert await aside.run(lambda: 7) == 7
