"""Rows of concurrent calls in one run of a network: what fills a GPU.

Who comes first opens a batch and leads it: he waits until it is full or `max_wait_s` is over, and for his turn, since
only `turns` runs go on at once; until he has it, others join. He runs it in his own thread, and the others take their
rows. Who comes while nobody is here, and came alone the last time, too, does not wait: a single caller pays nothing.
There is no thread but the callers': nothing to start or to shut down, and no deadlock however few threads there are,
since whoever leads is running already.

Bounds:   rows of a batch (`max_rows`; a call that has as many goes by itself); rows that wait (MOST_BATCHES batches;
          past that, calls go by themselves); time (who has nothing after `patience_s` gets a TimeoutError: that is as
          long as an inspection may take, so nobody waits for him either).
Failures: a run that fails does not say whose row it was, so each of its calls is run once more by itself, in its own
          thread, and has its own error; so is a call of whose part something is NaN or infinite. A network whose rows
          are not independent of each other is not batched (`guard.networks` tries it).
Leaving:  a query whose time is over leaves a thread here, which waits no longer than the others do; its rows stay in
          the batch, and nobody waits for it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from guard.types import Array

MOST_BATCHES = 4
Why = Literal["failed", "not_finite", "crowded", "mixes_rows"]
"""Why a call that might have shared a run had one by itself."""

Run = Callable[[Array], list[Array]]
"""(N, ...) -> outputs, (N, ...) each."""


def _untold(_: str, __: object) -> None:
    """Nobody counts."""


@dataclass(frozen=True, slots=True)
class Gathering:
    """How rows are gathered, and who is told.

    max_wait_s: how long a batch is open at most, while it might run.
    max_rows:   of a batch.
    where:      on which devices.
    patience_s: how long a call may wait for everything.
    on_run:     name of the network, rows of a run.
    on_wait:    the same, seconds that a call waited until its run began.
    on_alone:   the same, why.
    """

    max_wait_s: float = 0.0002
    max_rows: int = 64
    where: Literal["gpu", "everywhere", "nowhere"] = "nowhere"
    patience_s: float = 1.0
    on_run: Callable[[str, float], None] = _untold
    on_wait: Callable[[str, float], None] = _untold
    on_alone: Callable[[str, Why], None] = _untold


class _Batch:
    """Rows that will be run together. Whoever changes it holds its gatherer's lock."""

    __slots__ = ("began", "done", "error", "found", "full", "late", "parts", "rows", "waits")

    def __init__(self, *, waits: bool) -> None:
        self.parts: list[Array] = []
        self.rows, self.waits, self.late = 0, waits, False
        self.full, self.done = threading.Event(), threading.Event()
        self.found: list[Array] | None = None
        self.error: Exception | None = None
        self.began = 0.0

    def join(self, x: Array) -> slice:
        """Which rows will be its."""
        self.parts.append(x)
        self.rows += len(x)
        return slice(self.rows - len(x), self.rows)

    @property
    def shared(self) -> bool:
        return len(self.parts) > 1


class Gatherer:
    """One network's runs. Thread-safe.

    max_rows: of a batch; less than `how` says where the network's file fixes it.
    turns:    runs at once.
    """

    def __init__(self, how: Gathering, name: str, *, max_rows: int, turns: int) -> None:
        self._how, self._name, self._most = how, name, max_rows
        self._lock, self._turns = threading.Lock(), threading.Semaphore(turns)
        self._open: dict[tuple[int, ...], _Batch] = {}
        self._waiting, self._together = 0, False

    def __call__(self, run: Run, x: Array) -> list[Array]:
        """Rows -> their outputs. run: the network's own, the same for all. Raises what it raises; TimeoutError."""
        if not 0 < len(x) < self._most:
            self._how.on_run(self._name, len(x))
            return run(x)
        came = time.perf_counter()
        with self._lock:
            batch, leads = self._place(x)
            own = None if batch is None else batch.join(x)
            if batch is not None and batch.rows >= self._most:
                self._close(batch, x.shape[1:])
        if batch is None or own is None:
            return self._alone(run, x, "crowded")
        if leads:
            self._lead(batch, run, x.shape[1:])
        elif not batch.done.wait(self._how.patience_s):
            raise TimeoutError("the network did not answer")
        self._how.on_wait(self._name, max(0.0, batch.began - came))
        return self._taken(batch, own, run, x)

    def _place(self, x: Array) -> tuple[_Batch | None, bool]:
        """Where rows go, and whether they are the first there; None: there is no room."""
        if self._waiting + len(x) > MOST_BATCHES * self._most:
            return None, False
        others, shape = self._waiting > 0 or self._together, x.shape[1:]
        self._waiting += len(x)
        batch = self._open.get(shape)
        if batch is not None and batch.rows + len(x) <= self._most:
            return batch, False
        if batch is not None:
            self._close(batch, shape)
        batch = self._open[shape] = _Batch(waits=others)
        return batch, True

    def _close(self, batch: _Batch, shape: tuple[int, ...]) -> None:
        """Nobody joins any more."""
        batch.full.set()
        if self._open.get(shape) is batch:
            del self._open[shape]

    def _lead(self, batch: _Batch, run: Run, shape: tuple[int, ...]) -> None:
        if batch.waits:
            batch.full.wait(self._how.max_wait_s)
        turn = self._turns.acquire(timeout=self._how.patience_s)
        with self._lock:
            self._close(batch, shape)
            self._together = batch.shared
        batch.began, batch.late = time.perf_counter(), not turn
        try:
            if turn:
                self._how.on_run(self._name, batch.rows)
                batch.found = run(np.concatenate(batch.parts) if batch.shared else batch.parts[0])
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class; each call has its own
            batch.error = error
        finally:
            if turn:
                self._turns.release()
            with self._lock:
                self._waiting -= batch.rows
            batch.done.set()

    def _taken(self, batch: _Batch, own: slice, run: Run, x: Array) -> list[Array]:
        if batch.late:
            raise TimeoutError("the network had no time")
        if batch.error is not None and not batch.shared:
            raise batch.error
        if batch.found is None:
            return self._alone(run, x, "failed")
        found = [y[own] for y in batch.found]
        if batch.shared and not all(np.isfinite(y).all() for y in found):
            return self._alone(run, x, "not_finite")
        return found

    def _alone(self, run: Run, x: Array, why: Why) -> list[Array]:
        self._how.on_alone(self._name, why)
        self._how.on_run(self._name, len(x))
        return run(x)
