"""Token buckets: how much of what they may spend callers have used; those unused for longest make room for others.

Source: GCRA as a continuous-state leaky bucket (ITU-T I.371, annex A): what is used leaks away at the rate. It equals
        the form that keeps a theoretical arrival time, but costs add up without being rounded to the grain of the
        clock, and what is used keeps its meaning where an operator changes the rate.
Clocks: `now` is the asker's. It leaks by the clock furthest ahead, so that replicas whose clocks differ by at most
        `SKEW_S` grant no more than one clock would; where a clock is set back by less, nothing leaks until it has
        caught up. One that is further behind counts as set back for good: it leaks by that from then on. Setting it
        forward grants at most a burst; of replicas whose clocks differ by more, each grants the rate.
Bounds: one caller of one scope is one entry, which goes unnoticed once its buckets are full. One that is evicted is
        full when it is seen again: whoever has so many identities has their budgets anyway.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from guard.types import Bucket

SKEW_S = 10.0
_LEAST = 1e-6  # of the burst: less is as good as nothing left
_NEAR_S = 1e-6  # a wait that no clock shows
_EXPIRED_A_CALL = 10

Level = tuple[float, float]  # how much is used, as of when


@dataclass(slots=True)
class _Purse:
    full_at: float = 0.0
    levels: dict[str, Level] = field(default_factory=dict)


class Buckets:
    """Of so many callers."""

    def __init__(self, room: int, on_evict: Callable[[str], None]) -> None:
        self._room, self._on_evict = room, on_evict
        self._purses: OrderedDict[tuple[str, str], _Purse] = OrderedDict()  # longest unused first

    def __len__(self) -> int:
        return len(self._purses)

    def take(self, key: tuple[str, str], buckets: tuple[Bucket, ...], now: float, *, force: bool) -> tuple[float, ...]:
        """Seconds to wait for each, 0 everywhere and all is taken. key: scope and caller."""
        self._expire(now)
        purse = self._purses.get(key) or _Purse()
        levels = [_leaked(purse.levels.get(bucket.name, (0.0, now)), bucket, now) for bucket in buckets]
        waits = tuple(_wait_s(level, bucket, now) for level, bucket in zip(levels, buckets, strict=True))
        taken = force or not any(waits)
        for (used, at), bucket in zip(levels, buckets, strict=True):
            after = min(used + bucket.cost, 2.0 * bucket.burst) if taken else used
            if after > 0.0:
                purse.levels[bucket.name] = (after, at)
                purse.full_at = max(purse.full_at, at + after / bucket.rate_per_s)
        if purse.levels:
            self._keep(key, purse)
        return waits

    def _keep(self, key: tuple[str, str], purse: _Purse) -> None:
        self._purses[key] = purse
        self._purses.move_to_end(key)
        while len(self._purses) > self._room:
            self._purses.popitem(last=False)
            self._on_evict("buckets")

    def _expire(self, now: float) -> None:
        """Forget whose buckets are full, some at a time."""
        for _ in range(_EXPIRED_A_CALL):
            key = next(iter(self._purses), None)
            if key is None or self._purses[key].full_at >= now - SKEW_S:
                return
            del self._purses[key]


def _leaked(level: Level, bucket: Bucket, now: float) -> Level:
    used, at = level
    if at - now > SKEW_S:
        at = now
    used = min(used, 2.0 * bucket.burst) - max(0.0, now - at) * bucket.rate_per_s
    return max(0.0, used), max(at, now)


def _wait_s(level: Level, bucket: Bucket, now: float) -> float:
    if bucket.cost > bucket.burst:
        return math.inf
    used, at = level
    wait_s = (used + (bucket.cost or _LEAST * bucket.burst) - bucket.burst) / bucket.rate_per_s
    return 0.0 if wait_s <= _NEAR_S else wait_s + (at - now)
