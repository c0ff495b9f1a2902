"""Clusters of similar rows that have evidence, in this process; the longest unheard of go first.

Cost: about 0.5 kB a cluster that something was credited to; one that nothing was credited to costs nothing.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from guard.evidence import Evidence
from guard.types import Component

OWNERS = 64  # are told apart, and not more
_TAG = 8
_EXPIRED_A_CALL = 1000


@dataclass(slots=True)
class _Cluster:
    seen: float
    evidence: Evidence
    rows: int
    owners: bytes  # 8 each


class Clusters:
    """Components by number."""

    def __init__(self, room: int, ttl_s: float, on_evict: Callable[[str], None]) -> None:
        self._room, self._ttl_s, self._on_evict = room, ttl_s, on_evict
        self._clusters: OrderedDict[int, _Cluster] = OrderedDict()  # longest unheard of first

    def __len__(self) -> int:
        return len(self._clusters)

    def tell(self, number: int) -> Component:
        """What is known of it."""
        cluster = self._clusters.get(number)
        if cluster is None:
            return Component()
        return Component(cluster.evidence, cluster.rows, max(1, len(cluster.owners) // _TAG))

    def add(self, number: int, p_values: tuple[float, ...], owners: Iterable[bytes], now: float) -> None:
        """A row joins with each p-value; `owners`: the tags of whoever has rows in it, as far as is known here."""
        cluster = self._clusters.get(number)
        if cluster is None:
            cluster = self._clusters[number] = _Cluster(now, Evidence(), 1, b"")
        self._clusters.move_to_end(number)
        cluster.seen, cluster.rows = now, cluster.rows + len(p_values)
        cluster.evidence = cluster.evidence.add(p_values)
        known = [cluster.owners[i : i + _TAG] for i in range(0, len(cluster.owners), _TAG)]
        for tag in owners:
            if tag not in known and len(known) < OWNERS:
                known.append(tag)
        cluster.owners = b"".join(known)
        while len(self._clusters) > self._room:
            self._clusters.popitem(last=False)
            self._on_evict("components")

    def expire(self, now: float) -> None:
        """Forget what is too old, some at a time."""
        for _ in range(_EXPIRED_A_CALL):
            number = next(iter(self._clusters), None)
            if number is None or self._clusters[number].seen >= now - self._ttl_s:
                return
            del self._clusters[number]
            self._on_evict("components")
