"""A few thousand mutated conversations; `python -m tests.planes.fuzz` has them without end."""

import time
from typing import Any

import pytest

from tests.planes import frames, fuzz, odd
from tests.planes.at import TALK, ask, until
from tests.planes.served import MIB, Far
from tests.proxy.world import request


def enough(seconds: float, count: int) -> Any:
    end = time.monotonic() + seconds
    return lambda number: number >= count or time.monotonic() > end


async def test_callers_at_random(far: Far) -> None:
    before = far.rss
    done = await fuzz.at_listener(far, seed=7, first=0, until=enough(5, 2000))
    assert done > 100
    assert far.rss - before < 64 * MIB
    await until(lambda: far.count("guard_calls_in_flight") == 0)


async def test_servers_at_random(guarding: Any, plane: str) -> None:
    """Each call ends with some status, and when the server keeps the rules again it is understood again."""
    async with odd.odd() as server, guarding(server.address, methods={"allow": [TALK]}) as guarded:
        done = await fuzz.at_upstream(guarded.app.address, server, 7, 0, enough(3, 1000))
        assert done > 10
        end = time.monotonic() + 6
        while (await ask(guarded.channel, request(), timeout=2)).bodies != [b"ok"]:
            assert time.monotonic() < end
        await until(lambda: guarded.app.runtime.calls == 0)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_sequence_can_be_repeated(seed: int) -> None:
    one, again = (fuzz.Talk(f"{seed}:5") for _ in range(2))
    assert one.bytes(one.caller(), frames.PREFACE) == again.bytes(again.caller(), frames.PREFACE)
