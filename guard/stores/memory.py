"""History in this process: rows by digest and by hash, clusters, callers' evidence and budgets. All of it is bounded.

Implements `guard.types.Store`. A row is matched against earlier rows of any caller under the same scope, rows further
up in the same request among them (an attacker may batch). An exact repeat is a duplicate: it is not kept again, but its
age starts anew. Past `max_entries` the rows first seen earliest go, and the clusters and the recent rows unheard of for
longest; past `max_callers` the callers and cohorts unseen for longest, and likewise callers' token buckets, which are
full when they are seen again, and as many tokens that are good once; whatever is unseen for `ttl_s` is forgotten, but
for buckets, which last until they are full, and tokens, which say how long. `on_evict` is told what goes: `entries`,
`callers`, `components`, `buckets` or `tokens`.

Not persistent, and each process of several has its own. Not safe for threads: nothing is awaited inside, so that the
calls of one event loop never interleave.
Cost: 0.1 ms a request; at most 1 kB a row, its share of its caller's recent rows included.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from guard.stores.buckets import Buckets
from guard.stores.clusters import Clusters
from guard.stores.overlap import OverlapTable, nearest, pairs_within
from guard.stores.people import Key, People, Person
from guard.stores.rings import Rings
from guard.stores.rows import Numbers, Rows, digest_key, owner_tag, scope_key
from guard.stores.tokens import Tokens
from guard.types import Bucket, Component, History, Match, Neighbour, Past, Sketch, Sketches, Update

Pairs = tuple[NDArray[np.int64], Numbers]  # a row's place in the request, the number of an earlier row: one a hash

MAX_ENTRIES = 2**30
NEIGHBOURS = 8
_HASHES_A_LOOK = 1 << 13
_KEPT = (1 << 60) - 1  # of a digest: Python keeps a larger number in 16 bytes more


class MemoryStore:
    """Where monitors remember, in this process."""

    local = True

    def __init__(
        self,
        *,
        max_entries: int = 100_000,
        max_callers: int = 100_000,
        ttl_s: float = 86_400.0,
        on_evict: Callable[[str], None] = lambda _: None,
        first: int = 0,
    ) -> None:
        """first: rows' numbers are above it."""
        if not 1 <= max_entries <= MAX_ENTRIES:
            raise ValueError(f"max_entries must lie in 1 to {MAX_ENTRIES}")
        self._on_evict = on_evict
        self._table = OverlapTable(max_entries)
        self._rows = Rows(max_entries, ttl_s, on_evict, first)
        self._clusters = Clusters(max_entries, ttl_s, on_evict)
        self._rings = Rings(max_entries)
        self._people = People(max_callers, ttl_s, self._lost)
        self._purses = Buckets(max_callers, on_evict)
        self._tokens = Tokens(max_callers, on_evict)

    @property
    def entries(self) -> int:
        """Rows remembered."""
        return len(self._rows)

    @property
    def components(self) -> int:
        """Clusters with evidence."""
        return len(self._clusters)

    @property
    def people(self) -> int:
        """Callers and cohorts that something is known of."""
        return len(self._people)

    async def exchange(
        self, scope: str, caller: str, cohorts: tuple[str, ...], sketches: Sketches, now: float, *,
        remember: bool = True,
    ) -> History:  # fmt: skip
        """Look up, then keep (nothing of an outcast). Without `remember`, rows do not see each other, nor age anew."""
        for part in (self._people, self._rows, self._clusters):
            part.expire(now)
        known = self._past((scope, False, caller), self._people.see((scope, False, caller), now))
        groups = {name: self._past((scope, True, name), self._people.see((scope, True, name), now)) for name in cohorts}
        matches = self._match(scope, caller, sketches, now, remember=remember and not known.alert.outcast)
        components: dict[int, Component] = {}
        for match in matches:
            for neighbour in match.neighbours:
                if neighbour.component not in components:
                    components[neighbour.component] = self._clusters.tell(neighbour.component)
        return History(matches, components, known, groups, self._rows.count(scope), self._rows.joined(scope))

    async def credit(
        self, scope: str, caller: str, cohorts: tuple[str, ...], update: Update, now: float
    ) -> None:  # fmt: skip
        """Write down what a decision, or an answer, adds."""
        if update.empty:
            return
        self._credit_caller(scope, caller, cohorts, update, now)
        tag = owner_tag(scope, caller)
        for number, p_values in update.components.items():
            root = self._rows.owner(number)
            self._clusters.add(number, p_values, (tag,) if root is None else (root, tag), now)
        for number, component in update.joins.items():
            self._rows.join(number, component)
        for row in update.answered:
            self._rows.label(row.number, row.label)

    async def callers(self, scope: str) -> list[tuple[str, Past]]:
        """Everybody who is known under the scope, with what is known of him."""
        return [(key[2], self._past(key, self._people.look(key))) for key in self._people.of(scope)]

    async def past(self, scope: str, caller: str) -> Past | None:
        """What is known of him; None where nothing is."""
        person = self._people.look((scope, False, caller))
        return None if person is None else self._past((scope, False, caller), person)

    async def forget(self, scope: str, caller: str) -> bool:
        """His evidence, his alert and his recent rows go; whether there was anything. Rows and clusters stay."""
        self._rings.drop((scope, False, caller))
        return self._people.forget((scope, False, caller))

    async def take(
        self, scope: str, caller: str, buckets: tuple[Bucket, ...], now: float, *, force: bool = False
    ) -> tuple[float, ...]:  # fmt: skip
        """Take what the query costs; else for each bucket the seconds until it could be had."""
        return self._purses.take((scope, caller), buckets, now, force=force)

    async def once(self, scope: str, caller: str, token: bytes, until: float, now: float) -> bool:
        """Whether the token comes for the first time."""
        return self._tokens.once((scope, caller, token), until, now)

    async def close(self) -> None:
        """Nothing is held that would need it."""

    # --- callers

    def _lost(self, key: Key) -> None:
        self._rings.drop(key)
        self._on_evict("callers")

    def _past(self, key: Key, person: Person | None) -> Past:
        if person is None:
            return Past()
        evidence, judged = dict(person.evidence), dict(person.judged)
        return Past(evidence, person.alert, person.since, person.rows, judged, self._rings.recent(key))

    def _credit_caller(self, scope: str, caller: str, cohorts: tuple[str, ...], update: Update, now: float) -> None:
        key = (scope, False, caller)
        groups = [self._people.meet((scope, True, name), now) for name in cohorts]
        person = self._people.meet(key, now)  # last, so that he is no less new than his groups
        if update.restart:
            person.evidence, person.since = {}, now
        evidence = dict(update.evidence)
        for monitor, (rows, p_value) in update.judged.items():
            if rows > person.judged.get(monitor, 0):
                person.judged[monitor] = rows
                evidence[monitor] = (*evidence.get(monitor, ()), p_value)
        for one in (person, *groups):
            for monitor, p_values in evidence.items():
                one.add(monitor, p_values)
            one.rows += len(update.answered)
        person.alert = update.applied(person.alert)
        self._rings.append(key, update.answered)

    # --- rows

    def _match(
        self, scope: str, caller: str, rows: Sketches, now: float, *, remember: bool
    ) -> tuple[Match, ...]:  # fmt: skip
        """One match a row: look for what came before each, in the table and in the request, then keep the new ones."""
        if not rows:
            return ()
        numbers, fresh = self._number(scope, rows, now, remember=remember)
        if not any(fresh):  # retries alone: what is near to them was said the first time
            return tuple(_match_of(row, int(number), [], False) for row, number in zip(rows, numbers, strict=True))
        salt = np.uint64(int.from_bytes(scope_key(scope), "little"))
        hashes = np.concatenate([row.hashes for row in rows]) ^ salt
        of = np.repeat(np.arange(len(rows)), [row.hashes.size for row in rows])
        buckets, tags = self._table.places(hashes)
        queries, found = self._earlier(of, buckets, tags)
        new = [i for i, one in enumerate(fresh) if one and remember]
        if new:
            kept = np.asarray(fresh)[of]
            if len(new) > 1:
                later, earlier = pairs_within(hashes[kept], of[kept])
                queries = np.concatenate([queries, of[kept][later]])
                found = np.concatenate([found, numbers[earlier]])
            self._table.add((buckets[kept], tags[kept]), numbers[of[kept]].astype(np.uint64).astype(np.uint32))
            self._rows.describe(numbers[new], owner_tag(scope, caller), np.array([rows[i].position for i in new]))
        good = self._rows.living(scope, found, now) & np.asarray(fresh)[queries]
        neighbours = self._neighbours(queries[good], found[good], rows)
        return tuple(
            _match_of(row, int(number), near, new)
            for row, number, near, new in zip(rows, numbers, neighbours, fresh, strict=True)
        )

    def _number(
        self, scope: str, rows: Sequence[Sketch], now: float, *, remember: bool
    ) -> tuple[Numbers, list[bool]]:  # fmt: skip
        """Number the rows, those that are to be kept by one of their own, others -1; and whether each is new."""
        numbers, fresh = [], []
        for row in rows:
            key = digest_key(scope, row.digest) & _KEPT
            number = self._rows.find(key, now)
            fresh.append(number is None)
            if number is not None and remember:
                self._rows.touch(number, now)
            elif remember:
                number = self._rows.keep(scope, key, now)
            numbers.append(-1 if number is None else number)
        return np.asarray(numbers, dtype=np.int64), fresh

    def _earlier(self, of: Numbers, buckets: Numbers, tags: NDArray[np.uint32]) -> Pairs:
        """Which rows of the table share a hash, kept at these places, with the rows of the request it is `of`."""
        looks = [slice(at, at + _HASHES_A_LOOK) for at in range(0, max(1, len(of)), _HASHES_A_LOOK)]
        pairs = [self._table.candidates((buckets[look], tags[look])) for look in looks]
        queries = [of[look][positions] for look, (positions, _) in zip(looks, pairs, strict=True)]
        return np.concatenate(queries), self._rows.full_numbers(np.concatenate([found for _, found in pairs]))

    def _neighbours(
        self, queries: NDArray[np.int64], found: Numbers, rows: Sequence[Sketch]
    ) -> list[list[Neighbour]]:  # fmt: skip
        """By row of the request, those that share most."""
        near: list[list[Neighbour]] = [[] for _ in rows]
        queries, found, shared = nearest(queries, found, NEIGHBOURS)
        told = self._rows.tell(found, len(rows[0].position))
        for query, overlap, of in zip(queries.tolist(), shared.tolist(), told, strict=True):
            number, position, component, label, owner = of
            near[query].append(Neighbour(number, overlap, position, component, label, owner))
        return near


def _match_of(row: Sketch, number: int, near: list[Neighbour], new: bool) -> Match:
    if not new:
        return Match(row.hashes.size, duplicate=True, number=number)
    return Match(near[0].overlap if near else 0, number=number, neighbours=tuple(near))
