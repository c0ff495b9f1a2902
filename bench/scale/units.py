"""What one Valkey server spends on a caller, a row, a cluster and a query: bytes, and CPU time of the server's own.

A real server is filled through the store that Guard uses, kind after kind, so that what its memory grows by is that
kind's. Its CPU time is what the server says of itself (INFO cpu: all its threads, none of it the client's). INFO
commandstats stands beside it, which counts the time on the clock within scripts. Operations take turns.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.monitors.costs import EMBEDDED, SEED, strangers
from bench.monitors.guarded import DEFAULT
from guard.stores.client import Server
from guard.stores.valkey import ValkeyStore
from guard.types import Kept, Sketch, Sketches, Store, Update
from tests.servers import valkey

OPERATIONS = ("exchange, unlike rows", "exchange, near-repeats", "exchange, exact repeats", "credit a decision",
              "credit an answer")  # fmt: skip
_SCOPE, _COHORTS, _PATIENT_S, _NOW = "model", ("global",), 30.0, 1.0e9
_CHUNK, _ONE_IN = 50, 20
_CLUSTERS = ("similarity_graph",)


@dataclass(frozen=True, slots=True)
class Sample:
    """callers, rows: what the server is filled with. rounds, calls: of each operation. clients: at once, at the end."""

    callers: int = 20_000
    rows: int = 50_000
    rounds: int = 7
    calls: int = 400
    clients: int = 16


@dataclass(frozen=True, slots=True)
class Units:
    """Bytes of a caller, of a row in the index, of a recent row, of a cluster; CPU us of the server, by operation.

    us, quartiles: medians over rounds. script_us: by INFO commandstats, a clock's. at_once_us: a fresh query, all its
    three operations, from several clients at once; alone_us: the same from one.
    """

    caller: float
    row: float
    recent: float
    cluster: float
    us: dict[str, float]
    quartiles: dict[str, tuple[float, float]]
    script_us: dict[str, float]
    alone_us: float
    at_once_us: float

    def plain(self) -> dict[str, Any]:
        """As data."""
        return asdict(self)


def measured(sample: Sample) -> Units:
    """On a server of its own, which ends with it."""
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as directory, valkey.start(Path(directory)) as port:
        return asyncio.run(_measured(port, sample))


async def _measured(port: int, sample: Sample) -> Units:
    async with _store(port, sample) as store, _told(port) as server:
        rng = np.random.default_rng(SEED)
        sizes = [await server.bytes()]
        await callers(store, 0, sample.callers)
        sizes.append(await server.bytes())
        rows = await _rows(store, sample, rng)
        sizes.append(await server.bytes())
        await _answers(store, rows)
        sizes.append(await server.bytes())
        clusters = await _clusters(store, rows)
        sizes.append(await server.bytes())
        grown = np.diff(sizes) / (sample.callers, sample.rows, sample.rows, clusters)
        taken, clock = await _operations(store, server, sample, rng)
        alone, at_once = await _at_once(port, store, server, sample, rng)
    quartiles = {name: tuple(np.quantile(values, (0.25, 0.5, 0.75))) for name, values in taken.items()}
    return Units(
        caller=float(grown[0]), row=float(grown[1]), recent=float(grown[2]), cluster=float(grown[3]),
        us={name: float(mid) for name, (_, mid, _) in quartiles.items()},
        quartiles={name: (float(low), float(high)) for name, (low, _, high) in quartiles.items()},
        script_us={name: float(np.median(values)) for name, values in clock.items()},
        alone_us=alone, at_once_us=at_once,
    )  # fmt: skip


@asynccontextmanager
async def _store(port: int, sample: Sample) -> AsyncIterator[ValkeyStore]:
    made = ValkeyStore(
        Server((f"127.0.0.1:{port}",)), timeout_s=_PATIENT_S, max_entries=sample.rows, max_callers=10 * sample.callers
    )
    try:
        yield made
    finally:
        await made.close()


class _Told:
    """What the server says of itself."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def bytes(self) -> int:
        found = await self._client.info("memory")  # buffers of clients grow and shrink as they like
        return int(found["used_memory"]) - int(found.get("mem_clients_normal", 0))

    async def cpu_us(self) -> float:
        found = await self._client.info("cpu")
        return 1e6 * (float(found["used_cpu_user"]) + float(found["used_cpu_sys"]))

    async def script_us(self) -> float:
        found = await self._client.info("commandstats")
        return sum(float(found.get(f"cmdstat_{name}", {}).get("usec", 0)) for name in ("evalsha", "eval"))


@asynccontextmanager
async def _told(port: int) -> AsyncIterator[_Told]:
    import redis.asyncio as aio  # noqa: PLC0415 - an extra

    client = aio.Redis(port=port)
    try:
        yield _Told(client)
    finally:
        await client.aclose()


# --- filling


def evidence() -> dict[str, tuple[float, ...]]:
    """What the default monitors credit to a caller for one row."""
    return {name: (0.5,) for name in DEFAULT.named if name not in _CLUSTERS}


def name_of(number: int) -> str:
    """A caller's."""
    return f"spiffe://example.org/tenant/{number:09d}"


async def callers(store: Store, first: int, last: int) -> None:
    """Each from `first` to before `last` is credited the evidence of a row."""
    update = Update(evidence=evidence())
    for at in range(first, last, _CHUNK):
        told = (store.credit(_SCOPE, name_of(i), (), update, _NOW) for i in range(at, min(last, at + _CHUNK)))
        await asyncio.gather(*told)


async def _rows(store: ValkeyStore, sample: Sample, rng: np.random.Generator) -> list[tuple[str, int, Sketch]]:
    """Dealt out to the callers in turn."""
    found: list[tuple[str, int, Sketch]] = []
    for at in range(0, sample.rows, _CHUNK):
        rows, caller = strangers(rng, min(_CHUNK, sample.rows - at)), name_of(at // _CHUNK % sample.callers)
        history = await store.exchange(_SCOPE, caller, _COHORTS, rows, _NOW)
        numbers = [match.number for match in history.matches]
        found += [
            (name_of((at + i) % sample.callers), n, row) for i, (n, row) in enumerate(zip(numbers, rows, strict=True))
        ]
    return found


def _kept(number: int, sketch: Sketch) -> Kept:
    return Kept(number, sketch.position, np.ones(EMBEDDED, np.float32), 1, 0.5)


async def _answers(store: ValkeyStore, rows: Sequence[tuple[str, int, Sketch]]) -> None:
    for at in range(0, len(rows), _CHUNK):
        told = (
            store.credit(_SCOPE, caller, (), Update(answered=(_kept(number, sketch),)), _NOW)
            for caller, number, sketch in rows[at : at + _CHUNK]
        )
        await asyncio.gather(*told)


async def _clusters(store: ValkeyStore, rows: Sequence[tuple[str, int, Sketch]]) -> int:
    """One row in so many is the root of one."""
    roots = rows[::_ONE_IN]
    for caller, number, _ in roots:
        await store.credit(_SCOPE, caller, (), Update(components={number: (0.5,)}), _NOW)
    return len(roots)


# --- operations


async def _operations(
    store: ValkeyStore, server: _Told, sample: Sample, rng: np.random.Generator
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """CPU us, and us on the clock within scripts, by operation and round."""
    taken: dict[str, list[float]] = {name: [] for name in OPERATIONS}
    clock: dict[str, list[float]] = {name: [] for name in OPERATIONS}
    for number in range(sample.rounds):
        work = _work(store, sample, rng)
        names = OPERATIONS if number % 2 else (*OPERATIONS[1::-1], *OPERATIONS[2:])
        for name in names:
            began, began_clock = await server.cpu_us(), await server.script_us()
            for i in range(sample.calls):
                await work[name](i)
            taken[name].append((await server.cpu_us() - began) / sample.calls)
            clock[name].append((await server.script_us() - began_clock) / sample.calls)
    return taken, clock


def _work(
    store: ValkeyStore, sample: Sample, rng: np.random.Generator
) -> dict[str, Callable[[int], Awaitable[Any]]]:  # fmt: skip
    """One round's operations by name; what is credited are rows that its exchanges have met."""
    fresh, near = strangers(rng, sample.calls), _near(rng, sample.calls)
    who = [name_of(int(i)) for i in rng.integers(sample.callers, size=sample.calls)]
    numbers: dict[int, int] = {}

    async def exchange(rows: Sketches, i: int) -> None:
        history = await store.exchange(_SCOPE, who[i], _COHORTS, (rows[i],), _NOW)
        numbers[i] = history.matches[0].number

    async def decided(i: int) -> None:
        await store.credit(_SCOPE, who[i], _COHORTS, Update(evidence=evidence()), _NOW)

    async def answered(i: int) -> None:
        await store.credit(_SCOPE, who[i], _COHORTS, Update(answered=(_kept(numbers[i], fresh[i]),)), _NOW)

    return dict(zip(
        OPERATIONS,
        (lambda i: exchange(fresh, i), lambda i: exchange(near, i), lambda i: exchange(fresh, i), decided, answered),
        strict=True,
    ))  # fmt: skip


def _near(rng: np.random.Generator, n: int) -> Sketches:
    """Rows with all their hashes in common."""
    first = strangers(rng, 1)[0]
    return tuple(Sketch(rng.bytes(16), first.hashes, one.position) for one in strangers(rng, n))


async def _at_once(
    port: int, store: ValkeyStore, server: _Told, sample: Sample, rng: np.random.Generator
) -> tuple[float, float]:
    """CPU us of a whole fresh query, from one client and from several, in turn."""
    taken: tuple[list[float], list[float]] = ([], [])
    others = [ValkeyStore(Server((f"127.0.0.1:{port}",)), timeout_s=_PATIENT_S, max_entries=sample.rows,
                          max_callers=10 * sample.callers) for _ in range(sample.clients)]  # fmt: skip
    for _ in range(sample.rounds):
        for stores, told in (((store,), taken[0]), (tuple(others), taken[1])):
            shares = [_work(one, sample, rng) for one in stores]
            began = await server.cpu_us()
            each = max(1, sample.calls // len(stores))
            await asyncio.gather(*(_query(work, each) for work in shares))
            told.append((await server.cpu_us() - began) / (each * len(stores)))
    for one in others:
        await one.close()
    return float(np.median(taken[0])), float(np.median(taken[1]))


async def _query(work: dict[str, Callable[[int], Awaitable[Any]]], n: int) -> None:
    for i in range(n):
        for name in ("exchange, unlike rows", "credit a decision", "credit an answer"):
            await work[name](i)
