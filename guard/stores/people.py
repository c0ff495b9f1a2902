"""Whose evidence a store in this process keeps: callers and cohorts, the longest unseen forgotten first.

Cost: about 0.6 kB each, and the evidence of a monitor 0.3 kB.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from guard.evidence import Evidence
from guard.types import Alert

_EXPIRED_A_CALL = 1000

Key = tuple[str, bool, str]  # scope, whether it is a cohort, name


@dataclass(slots=True)
class Person:
    """What is known of a caller or a cohort, but for its recent rows."""

    seen: float
    since: float
    rows: int = 0
    alert: Alert = field(default_factory=Alert)
    evidence: dict[str, Evidence] = field(default_factory=dict)
    judged: dict[str, int] = field(default_factory=dict)

    def add(self, monitor: str, p_values: tuple[float, ...]) -> None:
        """Credit p-values."""
        if p_values:
            self.evidence[monitor] = self.evidence.get(monitor, Evidence()).add(p_values)


class People:
    """Bounded in number and in time. `on_forget` is told whom it forgets for want of room, or for age."""

    def __init__(self, room: int, ttl_s: float, on_forget: Callable[[Key], None]) -> None:
        self._room, self._ttl_s, self._on_forget = room, ttl_s, on_forget
        self._people: OrderedDict[Key, Person] = OrderedDict()  # longest unseen first

    def __len__(self) -> int:
        return len(self._people)

    def look(self, key: Key) -> Person | None:
        """Who that is; None where nobody is known. Not the same as having seen him."""
        return self._people.get(key)

    def see(self, key: Key, now: float) -> Person | None:
        """The same, seen now."""
        person = self._people.get(key)
        if person is not None:
            person.seen = now
            self._people.move_to_end(key)
        return person

    def meet(self, key: Key, now: float) -> Person:
        """The same, made known where he is not."""
        person = self.see(key, now)
        if person is None:
            person = self._people[key] = Person(now, now)
            while len(self._people) > self._room:
                self._on_forget(self._people.popitem(last=False)[0])
        return person

    def forget(self, key: Key) -> bool:
        """Whether there was somebody to forget."""
        return self._people.pop(key, None) is not None

    def of(self, scope: str) -> Iterator[Key]:
        """The callers of a scope."""
        return (key for key in self._people if key[0] == scope and not key[1])

    def expire(self, now: float) -> None:
        """Forget who was not seen for long, some at a time."""
        for _ in range(_EXPIRED_A_CALL):
            oldest = next(iter(self._people.items()), None)
            if oldest is None or oldest[1].seen >= now - self._ttl_s:
                return
            del self._people[oldest[0]]
            self._on_forget(oldest[0])
