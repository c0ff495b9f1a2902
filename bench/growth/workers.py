"""CPU time of a call through `guard serve` with one worker and with two, each worker on a core of its own.

An embedded model of 3 kB rows answers, so that no upstream shares the cores. All processes of Guard count, the parent
included, and only their processor time (scheduler statistics), so that the client may share their cores: where there
are two cores it does, on the last one, and calls a second tell little. A Valkey's own time does not count. Guards take
their turn in each round; the smaller number first every other time.
"""

import os
import re
import struct
import tempfile
import urllib.request
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.proxy import load
from bench.proxy.shapes import MODEL, MONITORS, SHAPES
from tests.servers import guard, valkey

KINDS = ("inspect", "monitors, Valkey")
AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class How:
    """calls: a round, of each."""

    rounds: int = 5
    calls: int = 1000
    workers: tuple[int, ...] = (1, 2)


def measured(how: How) -> dict[str, Any]:
    """By kind and number of workers: CPU us a call, calls a second by round; MB that are resident. Raises Failed."""
    shape = SHAPES[0]
    found: dict[str, Any] = {"how": asdict(how), "cores": len(os.sched_getaffinity(0)), "kinds": {}}
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as home, ExitStack() as stack:
        directory = Path(home)
        message = shape.request(shape.images()[: shape.rows])
        (directory / "body").write_bytes(struct.pack(">BI", 0, len(message)) + message)
        port = stack.enter_context(valkey.start(directory))
        for kind in KINDS:
            running = {}
            for count in how.workers:
                own = directory / f"{kind.split(',')[0]}-{count}"
                own.mkdir()
                running[count] = stack.enter_context(guard.start(own, _tree(kind, count, port)))
            pids = {count: load.descendants(one.process.pid) for count, one in running.items()}
            for ones in pids.values():
                _pin(ones)
            told: dict[str, list[dict[str, float | None]]] = {str(count): [] for count in how.workers}
            for number in range(how.rounds + 1):  # the first warms up
                for count in how.workers[:: 1 if number % 2 else -1]:
                    at = int(running[count].address.rpartition(":")[2])
                    took = load.again(at, pids[count], directory / "body", how.calls, AT_ONCE)
                    if number:
                        told[str(count)].append({"us": took.cpu_us, "rate": took.rate})
            for one in running.values():
                check(one.admin, how.calls * (how.rounds + 1))
            resident = {str(count): load.resident_mb(ones) for count, ones in pids.items()}
            found["kinds"][kind] = {"taken": told, "resident_mb": resident}
    return found


def check(admin: str, calls: int) -> None:
    """Raises Failed where so many calls were not inspected and answered well: h2load does not see gRPC's status."""
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as page:
        told = page.read().decode()
    answered = re.findall(
        r'^grpc_server_handled_total\{grpc_code="OK",grpc_method="ModelInfer",.*\} (\S+)$', told, re.MULTILINE
    )
    decided = re.findall(r"^guard_decisions_total\{.*\} (\S+)$", told, re.MULTILINE)
    if sum(map(float, answered)) < calls or sum(map(float, decided)) < calls:
        raise load.Failed(f"of {calls} calls {answered} were answered, {decided} decided")


def _tree(kind: str, workers: int, port: int) -> dict[str, Any]:
    profile = SHAPES[0].profile()
    model: dict[str, Any] = {
        "name": MODEL, "profile": str(profile), "mode": "enforce", "embedded": {"file": str(profile / "model.onnx")},
    }  # fmt: skip
    tree: dict[str, Any] = {"workers": workers, "models": [model]}
    if kind == KINDS[1]:
        model["monitors"] = [{"stage": name} for name in MONITORS]
        tree["history"] = {"store": "valkey", "valkey": {"addresses": [f"127.0.0.1:{port}"], "timeout_s": 0.5}}
    return tree


def _pin(pids: list[int]) -> None:
    """The last so many are workers; who is alone is one. As taskset does, thread by thread."""
    cores = sorted(os.sched_getaffinity(0))
    for i, pid in enumerate(pids[1:] or pids):
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {cores[i % len(cores)]})
