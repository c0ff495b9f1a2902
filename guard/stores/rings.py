"""The latest answered rows of each caller, in one pool for all of them: at most 256 a caller, and `room` in all.

Where the pool is empty the caller who was not heard of for longest loses his rows. An embedding, of length 1, is kept
in bytes, each number as a multiple of a 127th of its largest: its direction is right to about half a degree.

Cost: at positions of 48 and embeddings of 64 numbers 270 bytes a row, touched as they are used.
"""

from array import array
from collections import OrderedDict
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from guard.types import NO_PAST, Bools, Kept, Recent

A_CALLER = 256  # rows

_STEPS = 127.0


def told(row: Kept) -> int:
    """A row's label as it is kept: below -1 where it was not heard. One whose answer nobody knows never was."""
    return row.label if row.heard or row.label < 0 else -2 - row.label


def untold(kept: NDArray[np.int32]) -> tuple[NDArray[np.int64], Bools]:
    """(M,) -> the labels, and which of the rows were heard."""
    labels = kept.astype(np.int64)
    return np.where(labels < -1, -2 - labels, labels), labels >= 0


class _Pool:
    """The rows whose positions and embeddings are so long."""

    def __init__(self, room: int, width: int, embedded: int) -> None:
        self.positions = np.zeros((room, width), dtype=np.float32)
        self.embeddings = np.zeros((room, embedded), dtype=np.int8)
        self.scales = np.zeros(room, dtype=np.float32)
        self.labels = np.zeros(room, dtype=np.int32)
        self.confidences = np.zeros(room, dtype=np.float32)

    def write(self, at: int, row: Kept) -> None:
        scale = float(np.abs(row.embedding).max(initial=0.0)) / _STEPS
        self.positions[at], self.scales[at] = row.position, scale
        self.embeddings[at] = np.rint(row.embedding / scale) if scale else 0
        self.labels[at], self.confidences[at] = told(row), row.confidence

    def read(self, at: NDArray[np.int32]) -> Recent:
        embeddings = self.embeddings[at] * self.scales[at, None]
        labels, heard = untold(self.labels[at])
        return Recent(self.positions[at], embeddings, labels, self.confidences[at].astype(np.float64), heard)


class Rings:
    """Recent rows by key."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._pools: dict[tuple[int, int], _Pool] = {}
        self._own: OrderedDict[Hashable, tuple[tuple[int, int], array[int]]] = OrderedDict()  # longest unheard first
        self._free = array("i")
        self._used = 0  # places that were ever given

    @property
    def rows(self) -> int:
        """How many are kept."""
        return self._used - len(self._free)

    def recent(self, key: Hashable) -> Recent:
        """What is kept under the key."""
        if key not in self._own:
            return NO_PAST.recent
        shape, places = self._own[key]
        return self._pools[shape].read(np.frombuffer(places, dtype=np.int32))

    def append(self, key: Hashable, rows: Sequence[Kept]) -> None:
        """Latest last."""
        for row in rows[-A_CALLER:]:
            shape = (len(row.position), len(row.embedding))
            if key in self._own and self._own[key][0] != shape:
                self.drop(key)
            _, places = self._own.setdefault(key, (shape, array("i")))
            self._own.move_to_end(key)
            at = self._place(places)
            pool = self._pools.get(shape)
            if pool is None:
                pool = self._pools[shape] = _Pool(self._room, *shape)
            pool.write(at, row)
            places.append(at)

    def drop(self, key: Hashable) -> None:
        """Nothing is kept under the key any more."""
        if key in self._own:
            self._free.extend(self._own.pop(key)[1])

    def _place(self, own: "array[int]") -> int:
        """One to write to: a free one, or the oldest of his own, or one of the caller unheard of for longest."""
        if len(own) >= A_CALLER:
            return own.pop(0)
        if not self._free and self._used < self._room:
            self._used += 1
            return self._used - 1
        if not self._free:
            longest = next(iter(self._own))
            if self._own[longest][1] is own:  # nobody else has any
                return own.pop(0)
            self.drop(longest)
        return self._free.pop()
