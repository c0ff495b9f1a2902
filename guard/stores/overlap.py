"""Which earlier row shares the most hashes with this one: a set-associative table in four numpy arrays.

A hash falls into one bucket of 8 ways and is kept there as a 32-bit tag beside the row's number; a full bucket forgets
its oldest. So memory is fixed from the start, a look-up costs the same whatever is in the table, and a hash that every
row has (a blank border, or one that somebody sends on purpose) takes 8 ways and not more. The price: of such a hash
only the 8 latest rows are found, and where rows carry more hashes than `expected`, old ones fade sooner.

Rows are numbered upwards modulo 2^32; whoever uses the table says which numbers are alive.
Cost: 8 bytes a way, 4/3 ways a hash, touched as they are used; 20 us to look up 50 hashes, as much to add.
"""

import numpy as np
from numpy.typing import NDArray

WAYS = 8
_FILL = 6  # hashes a bucket when the table is full: 95 % of them are found (one test measures it)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)

Words = NDArray[np.uint64]
Numbers = NDArray[np.uint32]
Places = tuple[NDArray[np.int64], Numbers]  # (M,) each: buckets, tags


def buckets_for(rows: int, expected: int) -> int:
    """How many buckets so many rows need, of `expected` hashes each."""
    return rows * expected // _FILL + 2


def split(hashes: Words, buckets: int) -> tuple[NDArray[np.int64], Numbers]:
    """Each hash's bucket and tag. Mixed first: the low bits of a foreign hash need not be good ones."""
    mixed = (hashes ^ (hashes >> _HALF)) * _MIX
    mixed ^= mixed >> _HALF
    mixed *= _MIX
    return ((mixed >> _HALF) * np.uint64(buckets) >> _HALF).astype(np.int64), mixed.astype(np.uint32)


class OverlapTable:
    """Room for the hashes of so many rows."""

    def __init__(self, rows: int, expected: int = 32) -> None:
        """`expected`: hashes a row."""
        buckets = self._buckets = buckets_for(rows, expected)
        self._tags = np.zeros((buckets, WAYS), dtype=np.uint32)
        self._rows = np.zeros((buckets, WAYS), dtype=np.uint32)
        self._next = np.zeros(buckets, dtype=np.uint8)

    def places(self, hashes: Words) -> Places:
        """(M,) hashes -> where each is kept, or would be."""
        return split(hashes, self._buckets)

    def add(self, places: Places, rows: Numbers) -> None:
        """(M,) places of hashes, and the number of the row that each belongs to."""
        buckets, tags = places
        order = np.argsort(buckets, kind="stable")
        ordered = buckets[order]
        again = ordered[1:] == ordered[:-1]
        if again.any():
            place, first = np.arange(order.size), np.concatenate([[True], ~again])
            rank, last = place - np.maximum.accumulate(np.where(first, place, 0)), np.roll(first, -1)
            buckets, tags, rows = ordered, tags[order], rows[order]
            ways = (self._next[buckets] + rank) % WAYS
            self._next[buckets[last]] = (ways[last] + 1) % WAYS
        else:  # as most often where one row is added
            ways = self._next[buckets].astype(np.int64)
            self._next[buckets] = (ways + 1) % WAYS
        self._tags[buckets, ways] = tags  # where a way is named twice, the last one stays
        self._rows[buckets, ways] = rows

    def candidates(self, places: Places) -> tuple[NDArray[np.int64], Numbers]:
        """(M,) places of hashes -> pairs: the position of a hash, the number of a row that has it."""
        buckets, tags = places
        positions, ways = np.nonzero(self._tags[buckets] == tags[:, None])
        return positions, self._rows[buckets[positions], ways]


def pairs_within(hashes: Words, queries: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(M,) hashes and their queries, upwards -> pairs: the position of a hash, an earlier query that has it.

    Of the earlier queries the 8 latest, as the table has it.
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    lags = [(lag, np.flatnonzero(ordered[lag:] == ordered[:-lag])) for lag in range(1, min(WAYS, len(order) - 1) + 1)]
    later = [order[same + lag] for lag, same in lags]
    earlier = [queries[order[same]] for _, same in lags]
    nothing = np.zeros(0, dtype=np.int64)
    return np.concatenate([nothing, *later]), np.concatenate([nothing, *earlier])


def nearest(
    queries: NDArray[np.int64], rows: NDArray[np.int64], most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (query, row), one a shared hash -> (query, row, hashes shared): for each query the `most` that share most.

    Queries come upwards, the row that shares most first; of equals the latest.
    """
    if len(queries) and (queries == queries[0]).all():  # one query, as most often
        found, counts = np.unique(rows, return_counts=True)
        order = np.lexsort((found, counts))[: -most - 1 : -1]
        return queries[: len(order)], found[order], counts[order]
    order = np.lexsort((rows, queries))
    queries, rows = queries[order], rows[order]
    first = np.ones(len(rows), dtype=np.bool_)
    first[1:] = (queries[1:] != queries[:-1]) | (rows[1:] != rows[:-1])
    starts = np.flatnonzero(first)
    shared = np.diff(starts, append=len(rows))
    queries, rows = queries[starts], rows[starts]
    order = np.lexsort((-rows, -shared, queries))
    queries, rows, shared = queries[order], rows[order], shared[order]
    rank = np.arange(len(queries)) - np.searchsorted(queries, queries)
    good = rank < most
    return queries[good], rows[good], shared[good]
