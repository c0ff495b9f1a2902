"""Calls through a proxy, and what it took of its processor.

h2load sends one request again and again; where repeats would be cheap (monitors tell retries), `fresh` sends rows that
are all different, from Python. Only the proxy's own processor time is compared, so the client may be slow.
"""

import os
import re
import subprocess
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from adversary.attack import Array
from bench.proxy import programs
from bench.proxy.shapes import Shape
from bench.proxy.upstream import INFER

_CONNECTIONS = {1: 1, 8: 2, 32: 4}
_DONE = re.compile(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
_LIMIT = 64 * 1024 * 1024


class Failed(RuntimeError):
    """Calls that were not answered."""


@dataclass(frozen=True, slots=True)
class Took:
    """cpu_us: of the proxy, a call. rate: calls a second. p50_us, p99_us: on the clock. None: not measured."""

    cpu_us: float
    rate: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None


def cpu_ns(pids: Sequence[int]) -> int:
    """Of these processes' threads, theirs that have ended not counted."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total


def descendants(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def resident_mb(pids: Sequence[int]) -> float:
    """Together."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def again(port: int, pids: Sequence[int], body: Path, calls: int, at_once: int) -> Took:
    """One framed request, so many times. Raises Failed."""
    connections = _CONNECTIONS[at_once]
    with tempfile.NamedTemporaryFile() as log:
        command = [
            *programs.pinned(1), programs.program("h2load"), "-n", str(calls), "-c", str(connections), "-m",
            str(at_once // connections), "-W", "20", "-w", "20", "-d", str(body), f"--log-file={log.name}",
            "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{INFER}",
        ]  # fmt: skip
        before = cpu_ns(pids)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        taken = cpu_ns(pids) - before
        lines = [line.split("\t") for line in Path(log.name).read_text().splitlines()]
    counts = _DONE.search(done.stdout)
    if counts is None or int(counts[1]) != calls or any(line[1] != "200" for line in lines):
        raise Failed(done.stdout[-400:])
    times = np.array([float(line[2]) for line in lines])
    rate = re.search(r"([\d.]+) req/s", done.stdout)
    return Took(taken / calls / 1e3, float(rate[1]) if rate else 0.0, *map(float, np.quantile(times, (0.5, 0.99))))


def fresh(port: int, pids: Sequence[int], shape: Shape, calls: int, at_once: int, rng: np.random.Generator) -> Took:
    """Rows that are all different: real images under noise of their own. Raises grpc.RpcError."""
    images, options = shape.images(), [("grpc.max_receive_message_length", _LIMIT)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call: Any = channel.unary_unary(INFER, request_serializer=None, response_deserializer=None)
        bodies = [shape.request(_noisy(images, shape.rows, rng)) for _ in range(calls)]
        before = cpu_ns(pids)
        waiting = deque[Any]()
        for body in bodies:
            waiting.append(call.future(body, timeout=60))
            if len(waiting) >= at_once:
                waiting.popleft().result()
        for one in waiting:
            one.result()
        return Took((cpu_ns(pids) - before) / calls / 1e3)


def _noisy(images: Array, rows: int, rng: np.random.Generator) -> Array:
    x = images[rng.integers(len(images), size=rows)]
    return np.clip(x + rng.normal(0.0, 0.2, x.shape), 0.0, 1.0).astype(np.float32)
