"""History in this process: rows by digest and by hash, callers' evidence. Bounded in rows, callers and time.

Implements `guard.types.Store`. A row is matched against earlier rows of any caller under the same scope and monitor,
rows further up in the same request among them (an attacker may batch). An exact repeat is a duplicate: it is not kept
again, but its age starts anew. Past `max_entries` the rows first seen earliest go; past `max_callers` the callers
unseen longest go; whoever is unseen for `ttl_s` is forgotten. `on_evict` is told what goes: `entries` or `callers`.

Not persistent, and each process of several has its own. Not safe for threads: nothing is awaited inside, so that the
calls of one event loop never interleave.
Cost: 50 us a request and 10 us a further row; about 0.9 kB a row (90 MB for 100,000) and 0.6 kB a caller.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from guard.calibration import Evidence
from guard.stores.overlap import Numbers, OverlapTable, Words, largest_overlaps, pairs_within
from guard.types import Histories, History, Match, Sketch, Sketches

Pairs = tuple[NDArray[np.int64], Numbers]  # a row's place in the request, the number of an earlier row: one a hash

MAX_ENTRIES = 2**30
_EXPIRED_A_CALL = 1000  # forgetting a day's rows at once would hold up everybody
_ROWS_A_LOOK = 256


@dataclass(slots=True)
class _Caller:
    """When a caller was last seen, and the evidence by monitor."""

    seen: float
    evidence: dict[str, Evidence] = field(default_factory=dict)


class MemoryStore:
    """Where monitors remember, in this process."""

    def __init__(
        self,
        *,
        max_entries: int = 100_000,
        max_callers: int = 100_000,
        ttl_s: float = 86_400.0,
        on_evict: Callable[[str], None] = lambda _: None,
    ) -> None:
        if not 1 <= max_entries <= MAX_ENTRIES:
            raise ValueError(f"max_entries must lie in 1 to {MAX_ENTRIES}")
        self._max_entries, self._max_callers, self._ttl_s = max_entries, max_callers, ttl_s
        self._on_evict = on_evict
        self._table = OverlapTable(max_entries)
        self._numbers: OrderedDict[bytes, int] = OrderedDict()  # by keyed digest, upwards
        self._seen = np.full(max_entries, -np.inf)  # by number modulo max_entries
        self._next = max_entries + 1  # so that 0, an empty way, is no living row
        self._callers: OrderedDict[tuple[str, str], _Caller] = OrderedDict()  # longest unseen first

    @property
    def entries(self) -> int:
        """Rows remembered."""
        return len(self._numbers)

    @property
    def callers(self) -> int:
        """Callers with evidence."""
        return len(self._callers)

    async def exchange(
        self, scope: str, caller: str, sketches: Sketches, now: float, *, remember: bool = True
    ) -> Histories:
        """Look up, then keep. Without `remember`, rows of the request do not see each other and nothing ages anew."""
        self._expire(now)
        known = self._caller(scope, caller, now)
        histories = {}
        for monitor, rows in sketches.items():
            evidence = known.evidence.get(monitor, Evidence()) if known else Evidence()
            matches = self._match(_scope_key(scope, monitor), rows, now, remember=remember)
            histories[monitor] = History(matches, evidence.log_sum, evidence.count)
        return histories

    async def credit(self, scope: str, caller: str, evidence: Mapping[str, tuple[float, ...]], now: float) -> None:
        """Add log e-values to the caller's evidence, by monitor."""
        if not any(evidence.values()):
            return
        known = self._caller(scope, caller, now)
        if known is None:
            known = self._callers[scope, caller] = _Caller(now)
        for monitor, log_e_values in evidence.items():
            known.evidence[monitor] = known.evidence.get(monitor, Evidence()).add(log_e_values)
        while len(self._callers) > self._max_callers:
            self._callers.popitem(last=False)
            self._on_evict("callers")

    async def close(self) -> None:
        """Nothing is held that would need it."""

    # --- callers

    def _caller(self, scope: str, caller: str, now: float) -> _Caller | None:
        """The caller, seen now; None where there is none, or no longer."""
        known = self._callers.get((scope, caller))
        if known is None:
            return None
        known.seen = now
        self._callers.move_to_end((scope, caller))
        return known

    def _expire(self, now: float) -> None:
        """Forget who and what is too old, the oldest first, some at a time."""
        for _ in range(_EXPIRED_A_CALL):
            oldest = next(iter(self._callers.items()), None)
            if oldest is None or oldest[1].seen >= now - self._ttl_s:
                break
            del self._callers[oldest[0]]
            self._on_evict("callers")
        for _ in range(_EXPIRED_A_CALL):
            number = next(iter(self._numbers.values()), None)
            if number is None or self._alive(number, now):
                break
            self._forget_oldest()

    # --- rows

    def _alive(self, number: int, now: float) -> bool:
        return bool(self._seen[number % self._max_entries] >= now - self._ttl_s)

    def _forget_oldest(self) -> None:
        _, number = self._numbers.popitem(last=False)
        self._seen[number % self._max_entries] = -np.inf
        self._on_evict("entries")

    def _match(self, key: bytes, rows: tuple[Sketch, ...], now: float, *, remember: bool) -> tuple[Match, ...]:
        """One match a row: look for what came before each, in the table and in the request, then keep the new ones."""
        numbers, fresh = self._number(key, rows, now, remember=remember)
        salt = np.uint64(int.from_bytes(key, "little"))
        hashes = [row.hashes ^ salt for row in rows]
        pairs = [
            self._earlier(hashes[start : start + _ROWS_A_LOOK], start, now)
            for start in range(0, len(rows), _ROWS_A_LOOK)
        ]
        kept = [i for i, new in enumerate(fresh) if new and remember]
        if kept:
            owners = np.repeat(kept, [hashes[i].size for i in kept])
            joined = np.concatenate([hashes[i] for i in kept])
            if len(kept) > 1:
                later, earlier = pairs_within(joined, owners)
                pairs.append(self._living(owners[later], numbers[earlier], now))
            self._table.add(joined, numbers[owners])
        queries = np.concatenate([np.zeros(0, np.int64), *(some for some, _ in pairs)])
        found = np.concatenate([np.zeros(0, np.uint32), *(some for _, some in pairs)])
        best = largest_overlaps(queries, found, len(rows)).tolist()
        return tuple(
            Match(overlap) if new else Match(row.hashes.size, duplicate=True)
            for row, overlap, new in zip(rows, best, fresh, strict=True)
        )

    def _number(
        self, key: bytes, rows: tuple[Sketch, ...], now: float, *, remember: bool
    ) -> tuple[NDArray[np.uint32], list[bool]]:
        """Number the rows, new ones to keep by a number of their own; and whether each is new."""
        numbers, fresh = [], []
        for row in rows:
            digest = key + row.digest
            number = self._numbers.get(digest)
            if number is not None and not self._alive(number, now):
                number = None
            fresh.append(number is None)
            numbers.append(self._next)
            if remember and number is not None:
                self._seen[number % self._max_entries] = now
            elif remember:
                self._keep(digest, now)
        return np.asarray(numbers, dtype=np.uint64).astype(np.uint32), fresh

    def _keep(self, digest: bytes, now: float) -> None:
        self._numbers.pop(digest, None)
        while self._numbers and next(iter(self._numbers.values())) <= self._next - self._max_entries:
            self._forget_oldest()
        self._numbers[digest] = self._next
        self._seen[self._next % self._max_entries] = now
        self._next += 1

    def _earlier(self, hashes: list[Words], first: int, now: float) -> Pairs:
        """Which rows of the table share a hash with these rows of the request, the first of which is `first`."""
        queries = first + np.repeat(np.arange(len(hashes)), [row.size for row in hashes])
        positions, found = self._table.candidates(np.concatenate(hashes))
        return self._living(queries[positions], found, now)

    def _living(self, queries: NDArray[np.int64], found: Numbers, now: float) -> Pairs:
        """The pairs whose row is not forgotten."""
        newest = np.asarray([self._next], dtype=np.uint64).astype(np.uint32)
        age = newest - found  # modulo 2^32, as the numbers are
        number = self._next - age.astype(np.int64)
        good = (age <= self._max_entries) & (self._seen[number % self._max_entries] >= now - self._ttl_s)
        return queries[good], found[good]


@lru_cache(maxsize=1024)
def _scope_key(scope: str, monitor: str) -> bytes:
    """Keeps the rows of models and monitors apart in one table."""
    return hashlib.blake2b(f"{len(scope)}:{scope}{monitor}".encode(), digest_size=8).digest()
