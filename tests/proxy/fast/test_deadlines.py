"""Deadlines pass, a little late and never early, and those that were dropped do not."""

import asyncio

from guard.proxy.fast.deadlines import LONGEST_S, Deadlines


class Timed:
    def __init__(self) -> None:
        self.at: float | None = None

    def expire(self) -> None:
        self.at = asyncio.get_running_loop().time()


async def test_they_pass_in_time_and_in_any_order() -> None:
    deadlines, loop = Deadlines(), asyncio.get_running_loop()
    started = loop.time()
    timed = {left_s: Timed() for left_s in (0.2, 0.05, 0.12, 0.0, 0.05001)}
    slots = {left_s: deadlines.add(left_s, what) for left_s, what in timed.items()}
    dropped = Timed()
    deadlines.drop(deadlines.add(0.05, dropped), dropped)
    deadlines.drop(slots[0.12], timed[0.12])
    await asyncio.sleep(0.5)
    assert dropped.at is timed[0.12].at is None
    for left_s in (0.0, 0.05, 0.05001, 0.2):
        assert timed[left_s].at is not None
        assert timed[left_s].at - started >= left_s
    deadlines.drop(slots[0.0], timed[0.0])
    deadlines.close()


async def test_what_expires_may_add_more() -> None:
    deadlines = Deadlines()
    again = Timed()

    class Adding(Timed):
        def expire(self) -> None:
            deadlines.add(0.01, again)

    deadlines.add(0.01, Adding())
    await asyncio.sleep(0.2)
    assert again.at is not None


async def test_slots_are_few_whatever_is_asked_for() -> None:
    deadlines = Deadlines()
    for n in range(200_000):
        deadlines.add(n * LONGEST_S / 200_000 + n * 1e-4, Timed())
    assert len(deadlines._slots) < 30_000
    deadlines.add(1e12, Timed())
    deadlines.close()


async def test_none_pass_after_the_end() -> None:
    deadlines, what = Deadlines(), Timed()
    deadlines.add(0.01, what)
    deadlines.close()
    await asyncio.sleep(0.1)
    assert what.at is None
