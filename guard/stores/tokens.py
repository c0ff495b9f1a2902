"""Tokens that are good once: which of them have come, until they are good for nothing anyway.

Bounds: `room` tokens; past it those that came longest ago go, and could come once more. To make room for one of his own
again a caller needs `room` others within its life.
"""

from collections import OrderedDict
from collections.abc import Callable

Key = tuple[str, str, bytes]  # scope, caller, token
_EXPIRED_A_CALL = 10


class Tokens:
    """That have come."""

    def __init__(self, room: int, on_evict: Callable[[str], None]) -> None:
        self._room, self._on_evict = room, on_evict
        self._until: OrderedDict[Key, float] = OrderedDict()  # longest ago first

    def __len__(self) -> int:
        return len(self._until)

    def once(self, key: Key, until: float, now: float) -> bool:
        """Whether it comes for the first time."""
        for _ in range(_EXPIRED_A_CALL):
            oldest = next(iter(self._until), None)
            if oldest is None or self._until[oldest] > now:
                break
            del self._until[oldest]
        if key in self._until:
            return False
        self._until[key] = until
        while len(self._until) > self._room:
            self._until.popitem(last=False)
            self._on_evict("tokens")
        return True
