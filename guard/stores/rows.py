"""The rows that a store in this process remembers: what is known of each, in arrays by number modulo their bound.

Numbers go upwards and are never given twice. A row is found by its digest (60 bits of it, keyed by its scope: two of a
million rows are taken for one with probability 4e-7). Past the bound the rows first seen earliest go, and whoever was
not seen for `ttl_s`.

Cost: at positions of 48 numbers 240 bytes a row in arrays, touched as they are used, and about 150 in the dictionary.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from guard.types import Floats

Numbers = NDArray[np.int64]

_EXPIRED_A_CALL = 1000  # forgetting a day's rows at once would hold up everybody


@lru_cache(maxsize=1024)
def scope_key(scope: str) -> bytes:
    """Keeps the rows of models apart."""
    return hashlib.blake2b(scope.encode(), digest_size=8, person=b"guard scope").digest()


@lru_cache(maxsize=4096)
def owner_tag(scope: str, caller: str) -> bytes:
    """8 bytes that stand for a caller."""
    return hashlib.blake2b(caller.encode(), digest_size=8, key=scope_key(scope), person=b"guard owner").digest()


def digest_key(scope: str, digest: bytes) -> int:
    """A row's digest in 64 bits, other ones in every scope."""
    short = hashlib.blake2b(digest, digest_size=8, key=scope_key(scope), person=b"guard row").digest()
    return int.from_bytes(short, "little")


class Rows:
    """Room for so many rows."""

    def __init__(self, room: int, ttl_s: float, on_evict: Callable[[str], None], first: int = 0) -> None:
        self._room, self._ttl_s, self._on_evict = room, ttl_s, on_evict
        self._numbers: dict[int, int] = {}  # by digest key
        self._number = np.zeros(room, dtype=np.int64)  # what lives in a place; 0: nothing
        self._keys = np.zeros(room, dtype=np.uint64)
        self._seen = np.zeros(room)
        self._scope = np.zeros(room, dtype=np.uint16)
        self._component = np.zeros(room, dtype=np.int64)
        self._label = np.zeros(room, dtype=np.int32)
        self._owner = np.zeros(room, dtype="V8")
        self._positions: dict[int, Floats] = {}  # by length
        self._scopes: dict[str, int] = {}
        self._counts: list[int] = []
        self._joined: list[int] = []
        self.next = first + room + 1
        self._oldest = self.next

    def __len__(self) -> int:
        return len(self._numbers)

    def count(self, scope: str) -> int:
        """How many rows of this scope there are."""
        place = self._scopes.get(scope)
        return 0 if place is None else self._counts[place]

    def joined(self, scope: str) -> int:
        """How many of them have joined another's cluster."""
        place = self._scopes.get(scope)
        return 0 if place is None else self._joined[place]

    def find(self, key: int, now: float) -> int | None:
        """The number of the row with this digest, where it lives."""
        number = self._numbers.get(key)
        return number if number is not None and self._seen[number % self._room] >= now - self._ttl_s else None

    def touch(self, number: int, now: float) -> None:
        """Its age starts anew."""
        self._seen[number % self._room] = now

    def keep(self, scope: str, key: int, now: float) -> int:
        """Make room for one more row: its number. `describe` says the rest."""
        stale = self._numbers.get(key)
        if stale is not None:
            self._forget(stale)
        number = self.next
        at = number % self._room
        if self._number[at]:
            self._forget(int(self._number[at]))
        place = self._scopes.setdefault(scope, len(self._counts))
        if place == len(self._counts):
            self._counts.append(0)
            self._joined.append(0)
        self._counts[place] += 1
        self._numbers[key] = number
        self._component[at] = number
        self._number[at], self._keys[at], self._seen[at], self._scope[at] = number, key, now, place
        self.next += 1
        return number

    def describe(self, numbers: Numbers, owner: bytes, positions: Floats) -> None:
        """(M,) numbers just given, (M, D) positions: each its own cluster, not answered yet."""
        at = numbers % self._room
        self._component[at], self._label[at], self._owner[at] = numbers, -1, np.void(owner)
        self._arena(positions.shape[1])[at] = positions

    def expire(self, now: float) -> None:
        """Forget who is too old, the first first, some at a time."""
        for _ in range(_EXPIRED_A_CALL):
            if self._oldest >= self.next:
                return
            self._oldest = max(self._oldest, self.next - self._room)
            at = self._oldest % self._room
            if self._number[at] == self._oldest:
                if self._seen[at] >= now - self._ttl_s:
                    return
                self._forget(self._oldest)
            self._oldest += 1

    def living(self, scope: str, numbers: Numbers, now: float) -> NDArray[np.bool_]:
        """(M,) -> (M,): which are rows of this scope, and not forgotten."""
        at = numbers % self._room
        place = self._scopes.get(scope, -1)
        fresh = self._seen[at] >= now - self._ttl_s
        return np.asarray((self._number[at] == numbers) & fresh & (self._scope[at] == place), dtype=np.bool_)

    def full_numbers(self, short: NDArray[np.uint32]) -> Numbers:
        """Numbers modulo 2^32 -> numbers, -1 where none of the living has it."""
        age = (np.uint32(self.next & 0xFFFFFFFF) - short).astype(np.int64)
        return np.where(age <= self._room, self.next - age, -1)

    def tell(self, numbers: Numbers, width: int) -> Iterator[tuple[int, Floats, int, int, bytes]]:
        """Of living rows whose positions are `width` long: number, position, component, label, owner."""
        at = numbers % self._room
        owners = self._owner[at].tobytes()
        return zip(
            numbers.tolist(),
            self._arena(width)[at],
            self._component[at].tolist(),
            self._label[at].tolist(),
            (owners[i : i + 8] for i in range(0, len(owners), 8)),
            strict=True,
        )

    def owner(self, number: int) -> bytes | None:
        """Who sent it; None where it is forgotten."""
        at = number % self._room
        return self._owner[at].tobytes() if self._number[at] == number else None

    def join(self, number: int, component: int) -> None:
        """The row belongs to this cluster from now on."""
        at = number % self._room
        if self._number[at] == number:
            self._joined[self._scope[at]] += int(component != number) - int(self._component[at] != number)
            self._component[at] = component

    def label(self, number: int, label: int) -> None:
        """What the model answered."""
        at = number % self._room
        if self._number[at] == number:
            self._label[at] = label

    def _forget(self, number: int) -> None:
        at = number % self._room
        self._number[at] = 0
        self._counts[self._scope[at]] -= 1
        self._joined[self._scope[at]] -= int(self._component[at] != number)
        del self._numbers[int(self._keys[at])]
        self._on_evict("entries")

    def _arena(self, width: int) -> Floats:
        if width not in self._positions:
            self._positions[width] = np.zeros((self._room, width), dtype=np.float32)
        return self._positions[width]
