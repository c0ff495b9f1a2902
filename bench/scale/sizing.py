"""From unit costs to servers: what a rate of queries of so many callers needs.

A model's keys lie in one slot, since any row may be like any other, so that one server takes all of a model's history.
Where that is more than a server has, the traffic must be of several models, or callers must be dealt out to partitions
(a scope of their own each), which are blind to each other: an attack that is spread over accounts in k partitions shows
a k-th of itself in each.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from bench.scale.units import Units

RATES = (1_000, 100_000, 10_000_000)
CALLERS = 10_000_000
TTLS = (86_400, 3_600, 600)
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Assumed:
    """Of the traffic and of a shard.

    duplicates:  share of queries that are exact repeats; near: share that resembles stored rows; the rest does not.
    clustered:   clusters with evidence, a row kept. rows: of a query.
    memory:      bytes of a shard; filled: the share of it that data may take (the rest: copies on write, fragments).
    busy:        the share of its one CPU that a shard's scripts may take. recent: rows kept a caller at most.
    """

    callers: int = CALLERS
    duplicates: float = 0.2
    near: float = 0.05
    clustered: float = 0.05
    memory: int = 64 * GIB
    filled: float = 0.6
    busy: float = 0.5
    recent: int = 256


@dataclass(frozen=True, slots=True)
class Need:
    """What one rate at one time to live needs. bytes: in all; by_memory, by_cpu: shards; shards: the larger.

    a_model: queries a second that one shard, and so one model without partitions, takes; fresh rows kept: `rows`.
    """

    rate: int
    ttl_s: int
    rows: int
    bytes: float
    operations: float
    cpus: float
    by_memory: int
    by_cpu: int
    a_model: float

    @property
    def shards(self) -> int:
        """How many are needed."""
        return max(self.by_memory, self.by_cpu)

    def plain(self) -> dict[str, Any]:
        """As data."""
        return {**asdict(self), "shards": self.shards}


def query_us(units: Units, assumed: Assumed) -> float:
    """CPU us of the server for a query of one row: a repeat is looked up and no more, others are credited twice."""
    unlike = 1.0 - assumed.duplicates - assumed.near
    looked = (
        unlike * units.us["exchange, unlike rows"]
        + assumed.near * units.us["exchange, near-repeats"]
        + assumed.duplicates * units.us["exchange, exact repeats"]
    )
    credited = units.us["credit a decision"] + units.us["credit an answer"]
    return looked + (1.0 - assumed.duplicates) * credited


def need(rate: int, ttl_s: int, units: Units, assumed: Assumed) -> Need:
    """For so many queries a second, all rows kept for so long."""
    rows = int(rate * (1.0 - assumed.duplicates) * ttl_s)
    recent = min(rows, assumed.callers * assumed.recent)
    size = (
        assumed.callers * units.caller
        + rows * (units.row + assumed.clustered * units.cluster)
        + recent * units.recent
    )  # fmt: skip
    us = query_us(units, assumed)
    cpus = rate * us / 1e6
    by_cpu = max(1, math.ceil(cpus / assumed.busy))
    by_memory = max(1, math.ceil(size / (assumed.memory * assumed.filled)))
    operations = rate * (1.0 + 2.0 * (1.0 - assumed.duplicates))
    return Need(rate, ttl_s, rows, size, operations, cpus, by_memory, by_cpu, assumed.busy * 1e6 / us)
