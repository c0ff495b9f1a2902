"""The shared history fails: Valkey is killed, silent, full, or comes back empty. A real one each time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.faults.matrix import WITHIN_S, Watch, codes, model, row, told
from tests.proxy.world import FLAGGED, Guarded, request, world
from tests.servers import valkey
from tests.stores.relay import relayed

PART = "store"
TIMEOUT_S = 0.3


@contextlib.asynccontextmanager
async def guarded_by(at: Path, port: int, on_away: str, on_error: str = "allow") -> AsyncIterator[Guarded]:
    """A model with a detector, and a monitor whose history is at this port."""
    store = {"addresses": [f"127.0.0.1:{port}"], "timeout_s": TIMEOUT_S, "on_away": on_away}
    monitors = [{"stage": "test_repeats", "on_error": on_error}]
    made = model(at, {"stage": "test_mean"}, monitors=monitors)
    history: dict[str, Any] = {"store": "valkey", "valkey": store}
    async with world(models=[made], history=history) as (_, guarded):
        yield guarded


def away(guarded: Guarded) -> bool:
    return bool(guarded.count("guard_store_away"))


async def back(guarded: Guarded) -> None:
    """Ask until the store is in use again."""
    async with asyncio.timeout(30):
        while away(guarded):
            await codes(guarded, 1)
            await asyncio.sleep(0.1)


async def _killed(at: Path, on_away: str, on_error: str, end: str) -> str:
    port = valkey.free_port()
    async with guarded_by(at, port, on_away, on_error) as guarded:
        with valkey.start(at, port=port):
            await back(guarded)
            assert await codes(guarded, 2) == {"OK": 2}
        watch = Watch()
        ends = await codes(guarded, 5)  # it was killed
        took = watch.s / 5
        assert ends == {end: 5}
        assert away(guarded)
        assert took < TIMEOUT_S + WITHIN_S
        assert (await codes(guarded, 1, request(FLAGGED))) == {"PERMISSION_DENIED": 1}, "detectors go on"
        with valkey.start(at, port=port):
            await back(guarded)
            again = await codes(guarded, 2)
            assert again == {"OK": 2}
        return f"{told(ends)}, `guard_store_away` 1; detectors decide on; back in use when it returned, empty"


@row(
    PART,
    "is killed, and returns empty",
    "`on_away: local`",
    "history in the process meanwhile; in use again when it is back",
)
async def killed_local(at: Path) -> str:
    return await _killed(at, "local", "deny", "OK")


@row(
    PART,
    "is killed, and returns empty",
    "`on_away: on_error`, monitor `on_error: allow`",
    "monitors left out; the rest decides",
)
async def killed_allow(at: Path) -> str:
    return await _killed(at, "on_error", "allow", "OK")


@row(PART, "is killed, and returns empty", "`on_away: on_error`, monitor `on_error: deny`", "refused until it is back")
async def killed_deny(at: Path) -> str:
    return await _killed(at, "on_error", "deny", "PERMISSION_DENIED")


@row(
    PART,
    "takes connections and says nothing",
    "`timeout_s: 0.3`, `on_away: local`",
    "one call a second waits for it, no longer",
)
async def silent(at: Path) -> str:
    with valkey.start(at) as port:
        async with relayed(port) as relay, guarded_by(at, relay.port, "local") as guarded:
            assert await codes(guarded, 2) == {"OK": 2}
            relay.silent = True
            watch = Watch()
            ends = await codes(guarded, 20)
            took = watch.s
            assert ends == {"OK": 20}
            assert away(guarded)
            assert took < 20 * TIMEOUT_S / 2 + WITHIN_S, "the others do not wait"
            relay.silent = False
            await back(guarded)
            return f"{told(ends)}; `guard_store_away` 1; back in use when it spoke"


@row(PART, "is late by 0.1 s", "`timeout_s: 0.3`", "calls wait for it, and it stays in use")
async def late(at: Path) -> str:
    with valkey.start(at) as port:
        async with relayed(port) as relay, guarded_by(at, relay.port, "local") as guarded:
            relay.late_s = 0.1
            await back(guarded)
            ends = await codes(guarded, 3)
            assert ends == {"OK": 3}
            return f"{told(ends)}"


@row(
    PART,
    "has no memory left (maxmemory, noeviction)",
    "`on_away: on_error`, `on_error: deny`",
    "refused: what cannot be kept cannot be judged",
)
async def full(at: Path) -> str:
    with valkey.start(at, "--maxmemory", "1mb", "--maxmemory-policy", "noeviction") as port:
        async with guarded_by(at, port, "on_error", "deny") as guarded:
            ends = await codes(guarded, 3)
            assert ends == {"PERMISSION_DENIED": 3}
            assert guarded.count("guard_stage_errors_total", model="m", stage="test_repeats") or away(guarded)
            return f"{told(ends)}; counted"
