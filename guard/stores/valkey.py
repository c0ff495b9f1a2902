"""History in Valkey or Redis 7, which several workers and replicas share. One script, one round trip a query.

Implements `guard.types.Store`, with the same meaning and the same index as `guard.stores.memory`, packed into pages of
a few kilobytes (`common.lua` says how). Evidence is added inside the server, so no p-value of two workers is lost.
All keys of a model begin with guard:2:{MODEL}, MODEL its keyed name: a script's keys must lie in one slot of a cluster,
and a row is matched against rows of any caller, so a cluster spreads models, never one model. Every key expires; rows
past `max_entries` and callers past `max_callers` go as in memory. A cluster of rows that has evidence is bounded by
the time to live alone, a caller's token buckets by the time until they are full, after which they are not needed, and
a token that is good once by its own time.
Kept are keyed digests, hashes, projections, embeddings, answers, what is used of budgets and the callers' identities as
the proxy knows them; never an input.

A caller's recent rows travel once: this process keeps those of the callers it saw last and asks for newer ones only.
Where the server is away, or slower than `timeout_s`, StoreAway (an OSError) is raised, never later than that.
Cost: one round trip; at most 2 kB a row in the server once it is full (the index's pages come first).
"""

import math
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import numpy as np

from guard.stores import packing
from guard.stores.client import Client, Server
from guard.stores.overlap import buckets_for
from guard.stores.rows import digest_key, owner_tag, scope_key
from guard.types import Bucket, Component, History, Match, Past, Recent, Sketches, Update

_VERSION = 2
_HASHES = 32  # a row, as expected
_ROWS_A_CALL = 64  # more would hold up other callers of the server
_SLACK_S = 10.0  # that replicas' clocks may differ
_RECENTS = 1024  # callers whose recent rows are kept here
_COMMON = resources.files("guard.stores").joinpath("common.lua").read_bytes()
_EXCHANGE = _COMMON + resources.files("guard.stores").joinpath("exchange.lua").read_bytes()
_CREDIT = _COMMON + resources.files("guard.stores").joinpath("credit.lua").read_bytes()
_TAKE = _COMMON + resources.files("guard.stores").joinpath("take.lua").read_bytes()
_FORGET = (
    _COMMON
    + b"""
local there = call('EXISTS', P .. ':p:0:' .. ARGV[4])
forget_person('0:' .. ARGV[4])
return there"""
)
_Known = tuple[bytes, int, Recent]  # of a caller: which life of his, how many rows of it, the latest
_UNKNOWN: _Known = (b"", 0, Past().recent)
_KINDS = ("entries", "callers", "components")


class ValkeyStore:
    """Where monitors remember, together."""

    local = False

    def __init__(
        self,
        server: Server | None = None,
        *,
        max_entries: int = 100_000,
        max_callers: int = 100_000,
        ttl_s: float = 86_400.0,
        timeout_s: float = 0.1,
        on_evict: Callable[[str], None] = lambda _: None,
    ) -> None:
        if not 1 <= max_entries <= 2**30:
            raise ValueError("max_entries must lie in 1 to 2^30")
        self._client = Client(server or Server(), timeout_s)
        self._max_entries, self._max_callers, self._ttl_s = max_entries, max_callers, ttl_s
        self._buckets = buckets_for(max_entries, _HASHES)
        self._on_evict = on_evict
        self._recents: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._widths: dict[str, int] = {}

    async def exchange(
        self, scope: str, caller: str, cohorts: tuple[str, ...], sketches: Sketches, now: float, *,
        remember: bool = True,
    ) -> History:  # fmt: skip
        """Look up, then keep: one round trip for each 64 rows. Raises StoreAway."""
        if sketches:
            self._widths[scope] = len(sketches[0].position)
        matches: list[Match] = []
        components: dict[int, Component] = {}
        reply: Any = None
        for at in range(0, max(1, len(sketches)), _ROWS_A_CALL):
            part = sketches[at : at + _ROWS_A_CALL]
            known = self._recents.get((scope, caller), _UNKNOWN)  # others may learn of newer rows meanwhile
            reply = await self._ask(scope, caller, cohorts, part, now, known, remember=remember)
            matches += [packing.match_of(sketch, said) for sketch, said in zip(part, reply[0], strict=True)]
            pairs = zip(reply[1][::2], reply[1][1::2], strict=True)
            components |= {int(number): packing.component_of(packed) for number, packed in pairs}
            self._count(reply[5])
            own, *groups = [packing.fields_of(fields) for fields in reply[2]]
            recent = self._recent(scope, caller, own, reply[3], known)
        named = dict(zip(cohorts, map(packing.past_of, groups), strict=True))
        return History(tuple(matches), components, packing.past_of(own, recent), named, int(reply[4]), int(reply[6]))

    async def credit(
        self, scope: str, caller: str, cohorts: tuple[str, ...], update: Update, now: float
    ) -> None:  # fmt: skip
        """Write down what a decision, or an answer, adds, all at once or not at all. Raises StoreAway."""
        if update.empty:
            return
        head = (*self._head(now), self._max_callers, self._size(scope, update), owner_tag(scope, caller), caller)
        self._count(await self._client.run(_CREDIT, _prefix(scope), *head, *packing.pack_update(update, cohorts)))

    async def callers(self, scope: str) -> list[tuple[str, Past]]:
        """Everybody who is known under the scope; a round trip each."""
        members: list[bytes] = await self._client.command("ZRANGE", _prefix(scope) + b":s", 0, -1)
        names = [member[2:].decode() for member in members if member.startswith(b"0:")]
        found = [(name, await self.past(scope, name)) for name in names]
        return [(name, past) for name, past in found if past is not None]

    async def past(self, scope: str, caller: str) -> Past | None:
        """What is known of him; None where nothing is."""
        prefix, name = _prefix(scope), caller.encode()
        fields = packing.fields_of(_flat(await self._client.command("HGETALL", prefix + b":p:0:" + name)))
        if not fields:
            return None
        if b"width" not in fields:
            return packing.past_of(fields)
        width, embedded = int(fields[b"width"]), int(fields[b"embedded"])
        size = packing.record(width, embedded).itemsize * packing.RECENT
        packed = await self._client.command("GETRANGE", prefix + b":q:" + name, -size, -1)
        return packing.past_of(fields, packing.unpack_recent(packed, width, embedded))

    async def forget(self, scope: str, caller: str) -> bool:
        """His evidence, his alert and his recent rows go; whether there was anything. Rows and clusters stay."""
        return bool(await self._client.run(_FORGET, _prefix(scope), *self._head(0.0), caller))

    async def take(
        self, scope: str, caller: str, buckets: tuple[Bucket, ...], now: float, *, force: bool = False
    ) -> tuple[float, ...]:  # fmt: skip
        """Take what the query costs; else for each bucket the seconds until it could be had. Raises StoreAway."""
        words = [word for one in buckets for word in (one.name, *_exact(one.rate_per_s, one.burst, one.cost))]
        packed = await self._client.run(_TAKE, _prefix(scope), *self._head(now), int(force), caller, *words)
        return struct.unpack(f"<{len(buckets)}d", packed)

    async def once(self, scope: str, caller: str, token: bytes, until: float, now: float) -> bool:
        """Whether the token comes for the first time. Raises StoreAway."""
        key, left_s = _prefix(scope) + b":t:" + caller.encode() + b":" + token, max(0.0, until - now) + _SLACK_S
        said = await self._client.command("SET", key, b"1", "NX", "PX", math.ceil(1000.0 * left_s))
        return said is not None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    # --- within

    async def _ask(
        self, scope: str, caller: str, cohorts: tuple[str, ...], sketches: Sketches, now: float, known: _Known, *,
        remember: bool,
    ) -> Any:  # fmt: skip
        born, rows, _ = known
        arguments: packing.Words = [
            *self._head(now), int(remember), self._size(scope), owner_tag(scope, caller), born, rows, caller,
            len(cohorts), *cohorts,
        ]  # fmt: skip
        for sketch in sketches:
            digest = digest_key(scope, sketch.digest).to_bytes(8, "little")
            position = np.ascontiguousarray(sketch.position, dtype="<f4").tobytes()
            arguments += [digest, packing.places(sketch.hashes, self._buckets), position]
        return await self._client.run(_EXCHANGE, _prefix(scope), *arguments)

    def _head(self, now: float) -> tuple[str | int, ...]:
        return *_exact(now, self._ttl_s), self._max_entries

    def _size(self, scope: str, update: Update | None = None) -> int:
        """Bytes a row of this model takes: what a look at it or at its answers has shown."""
        if scope not in self._widths and update is not None and update.answered:
            self._widths[scope] = len(update.answered[0].position)
        return packing.HEAD + 4 * self._widths.get(scope, 0)

    def _recent(self, scope: str, caller: str, fields: dict[bytes, bytes], packed: bytes, then: _Known) -> Recent:
        """The caller's recent rows: those known here, then the newer ones."""
        if b"width" not in fields:
            self._recents.pop((scope, caller), None)
            return Past().recent
        born, rows = fields[b"born"], int(fields[b"rows"])
        recent = packing.unpack_recent(packed, int(fields[b"width"]), int(fields[b"embedded"]))
        known_born, known_rows, known = then
        if known_born == born and len(recent) == min(rows - known_rows, packing.RECENT):
            recent = _joined(known, recent)
        self._recents[scope, caller] = (born, rows, recent)
        self._recents.move_to_end((scope, caller))
        if len(self._recents) > _RECENTS:
            self._recents.popitem(last=False)
        return recent

    def _count(self, gone: Sequence[int]) -> None:
        for kind, number in zip(_KINDS, gone, strict=True):
            for _ in range(number):
                self._on_evict(kind)


def _joined(known: Recent, fresh: Recent) -> Recent:
    if not len(fresh):
        return known
    pairs = (known.positions, fresh.positions), (known.embeddings, fresh.embeddings)
    if any(old.shape[1:] != new.shape[1:] for old, new in pairs):
        return fresh
    return Recent(
        np.concatenate([known.positions, fresh.positions]),
        np.concatenate([known.embeddings, fresh.embeddings]),
        np.concatenate([known.labels, fresh.labels]),
        np.concatenate([known.confidences, fresh.confidences]),
        np.concatenate([known.heard, fresh.heard]),
    ).last(packing.RECENT)


def _prefix(scope: str) -> bytes:
    return f"guard:{_VERSION}:{{{scope_key(scope).hex()}}}".encode()


def _exact(*values: float) -> tuple[str, ...]:
    """All digits of each."""
    return tuple(repr(float(value)) for value in values)


def _flat(reply: Any) -> list[bytes]:
    """HGETALL as redis-py tells it: a dictionary, or a flat list."""
    return [part for pair in reply.items() for part in pair] if isinstance(reply, dict) else list(reply)
