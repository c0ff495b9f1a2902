"""Traces: what an oracle sent, and when, kept so that it can be sent again. JSON lines and an .npz; no pickle.

NAME.jsonl has a header, then a line a call: since when, as whom, which rows, and what was said then. NAME.npz has the
rows themselves, each once however often it was sent, in [0, 1] as the attack had them.
"""

import asyncio
import hashlib
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adversary.attack import Array, Refused
from adversary.data.cache import write_atomic
from adversary.oracle import AsyncOracle, Endpoint, Record, Reply, reply_labels

VERSION = 1
MAX_ROWS = 200_000
_HEADER = "adversary.trace"


class TraceError(ValueError):
    """A file that is no trace."""


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call. rows: numbers of the inputs; status, labels: what was said then, no labels where refused."""

    started_s: float
    identity: int
    rows: tuple[int, ...]
    digest: str
    status: str
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """x: (M, ...) float32 in [0, 1], the distinct inputs; calls in the order of their start; lost: calls left out."""

    x: Array
    calls: tuple[Call, ...]
    lost: int = 0

    @property
    def identities(self) -> int:
        """How many callers took part."""
        return 1 + max((call.identity for call in self.calls), default=0)

    @property
    def seconds(self) -> float:
        """From the first call's start to the last's."""
        return self.calls[-1].started_s - self.calls[0].started_s if self.calls else 0.0


@dataclass(slots=True)
class Recorder:
    """A listener of an oracle: `oracle.listeners.append(recorder)`. Calls past `max_rows` distinct inputs are lost."""

    max_rows: int = MAX_ROWS
    lost: int = 0
    _rows: dict[bytes, int] = field(default_factory=dict)
    _x: list[Array] = field(default_factory=list)
    _calls: list[Call] = field(default_factory=list)

    def __call__(self, x: Array, reply: Reply, record: Record) -> None:
        """One call."""
        if len(self._x) + len(x) > self.max_rows:
            self.lost += 1
            return
        rows = tuple(self._number(row) for row in np.asarray(x, np.float32))
        said = () if isinstance(reply, Refused) else tuple(map(int, reply_labels(reply, len(x))))
        self._calls.append(Call(record.started_s, record.identity, rows, record.digest, record.status, said))

    def _number(self, row: Array) -> int:
        key = hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest()
        if key not in self._rows:
            self._rows[key] = len(self._x)
            self._x.append(np.array(row))
        return self._rows[key]

    def trace(self) -> Trace:
        """What was recorded so far."""
        calls = tuple(sorted(self._calls, key=lambda call: call.started_s))
        return Trace(np.stack(self._x) if self._x else np.zeros((0, 0), np.float32), calls, self.lost)


def save(trace: Trace, path: Path) -> None:
    """NAME.jsonl, and NAME.npz beside it."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=trace.x)
    inputs = buffer.getvalue()
    header = {_HEADER: VERSION, "inputs_sha256": hashlib.sha256(inputs).hexdigest(), "lost": trace.lost}
    lines = [header, *map(asdict, trace.calls)]
    write_atomic(path.with_suffix(".npz"), inputs)
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def load(path: Path) -> Trace:
    """Both files. Raises TraceError where they are not what `save` wrote."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        inputs = path.with_suffix(".npz").read_bytes()
    except (OSError, ValueError) as error:
        raise TraceError(f"cannot read the trace {path}: {error}") from None
    if not lines or not isinstance(lines[0], dict) or lines[0].get(_HEADER) != VERSION:
        raise TraceError(f"{path} is not a trace of version {VERSION}")
    if hashlib.sha256(inputs).hexdigest() != lines[0].get("inputs_sha256"):
        raise TraceError(f"{path.with_suffix('.npz')} does not belong to {path}")
    with np.load(io.BytesIO(inputs), allow_pickle=False) as stored:
        x = stored["x"]
    try:
        calls = tuple(_call(line, len(x)) for line in lines[1:])
    except (KeyError, TypeError, ValueError) as error:
        raise TraceError(f"{path} has a line that is no call: {error}") from None
    return Trace(x, calls, int(lines[0].get("lost", 0)))


def _call(line: dict[str, Any], inputs: int) -> Call:
    rows, labels = tuple(map(int, line["rows"])), tuple(map(int, line["labels"]))
    if not rows or min(rows) < 0 or max(rows) >= inputs:
        raise ValueError("a row that is not there")
    return Call(float(line["started_s"]), int(line["identity"]), rows, str(line["digest"]), str(line["status"]), labels)


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """What came of a replay. replies: a call each, in the trace's order; late_s: the most that a call began behind."""

    replies: tuple[Reply, ...]
    seconds: float
    late_s: float


async def replay(
    trace: Trace,
    endpoint: Endpoint,
    *,
    speed: float = 1.0,
    concurrency: int = 64,
    tell: Callable[[int, int], None] = lambda _done, _refused: None,
) -> Replayed:
    """Send every call again at its own time, `speed` times as fast; infinite: as fast as it is answered.

    Calls start in order and may overlap as they did; at an infinite speed they go one after the other.
    """
    total = sum(len(call.rows) for call in trace.calls)
    replies: list[Reply | None] = [None] * len(trace.calls)
    done = refused = 0
    late = 0.0
    async with AsyncOracle(endpoint, total) as oracle, asyncio.TaskGroup() as group:
        gate, started = asyncio.Semaphore(concurrency), time.monotonic()

        async def send(i: int, call: Call) -> None:
            nonlocal done, refused
            async with gate:
                replies[i] = reply = await oracle.query(trace.x[list(call.rows)], call.identity)
            done, refused = done + 1, refused + isinstance(reply, Refused)
            tell(done, refused)

        for i, call in enumerate(trace.calls):
            if math.isinf(speed):
                await send(i, call)
                continue
            due = (call.started_s - trace.calls[0].started_s) / speed
            await asyncio.sleep(max(0.0, due - (time.monotonic() - started)))
            late = max(late, time.monotonic() - started - due)
            group.create_task(send(i, call))
    return Replayed(tuple(reply for reply in replies if reply is not None), time.monotonic() - started, late)
