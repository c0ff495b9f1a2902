"""`python -m bench.allocator`: what keeping large messages' memory saves, and what it holds.

Each way of telling glibc takes its turn in each round, in a fresh process of one thread: what a request takes to be
parsed by protobuf and put together anew, what a 3x3 median of it takes, page faults, and resident memory at the end.
`environment` is what a process that executes itself again would get. `--served` puts calls through a `guard serve` with
a purifier in front of an embedded model, 8 in flight, rows that are all different.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adversary.judge_document import machine
from bench import pages
from guard import allocator
from guard.filters import median
from guard.wire import open_inference_pb2 as pb

BEGIN, END, TITLE = "<!-- bench.allocator: begin -->", "<!-- bench.allocator: end -->", "Memory of large messages, kept"
SYSTEM, KEPT, ENVIRONMENT, ARENAS = "system", "mallopt", "environment", "mallopt, 2 arenas"
WAYS = (SYSTEM, KEPT, ENVIRONMENT, ARENAS)
SIZES = {"12 KB": (32, 32, 3), "150 KB": (112, 112, 3), "602 KB": (224, 224, 3)}
_VARIABLES = {
    "MALLOC_MMAP_THRESHOLD_": allocator.MMAP_THRESHOLD_BYTES,
    "MALLOC_TRIM_THRESHOLD_": allocator.TRIM_THRESHOLD_BYTES,
    "MALLOC_TOP_PAD_": allocator.TOP_PAD_BYTES,
}
_ARENA_MAX = -8
_IN_FLIGHT = 16


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.allocator", description="What keeping memory saves.")
    made.add_argument("--rounds", type=int, metavar="N", help="fresh processes of each way (5)")
    made.add_argument("--quick", action="store_true", help="two rounds of few messages")
    made.add_argument("--json", action="store_true", help="print the figures instead of the table")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help="put the table into this page")
    made.add_argument("--served", action="store_true", help="and a whole Guard, with allocator: system and keep")
    made.add_argument("--once", nargs=2, metavar=("WAY", "MESSAGES"), help=argparse.SUPPRESS)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0."""
    options = parser().parse_args(argv)
    if options.once:
        print(json.dumps(once(options.once[0], int(options.once[1]))))
        return 0
    rounds, messages = (2, 40) if options.quick else (5, 300)
    found = measured(options.rounds or rounds, messages)
    if options.served:
        found["served"] = served(options.rounds or rounds, 40 if options.quick else 200)
    text = markdown(found)
    print(json.dumps(found, indent=1) if options.json else text)
    if options.docs is not None:
        pages.put(options.docs, text, begin=BEGIN, end=END, title=TITLE)
    return 0


def measured(rounds: int, messages: int) -> dict[str, Any]:
    """By way, one of `once` a round."""
    taken: dict[str, list[Any]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS if number % 2 else WAYS[::-1]:
            environ = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
            if way == ENVIRONMENT:
                environ |= {name: str(value) for name, value in _VARIABLES.items()}
            command = [sys.executable, "-m", "bench.allocator", "--once", way, str(messages)]
            done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
            taken[way].append(json.loads(done.stdout))
    return {"machine": machine(), "rounds": rounds, "messages": messages, "ways": taken}


def once(way: str, messages: int) -> dict[str, Any]:
    """In this process: us and page faults a message by size and work, and MB that are resident at the end."""
    if way in {KEPT, ARENAS}:
        allocator.keep()
    if way == ARENAS:
        import ctypes  # noqa: PLC0415 - of one way only

        ctypes.CDLL(None).mallopt(_ARENA_MAX, 2)
    found: dict[str, Any] = {}
    for size, shape in SIZES.items():
        x = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
        body = request(x)
        found[f"{size}, rebuild"] = _timed(lambda body=body: rebuilt(body), messages)  # type: ignore[misc]
        found[f"{size}, median"] = _timed(lambda x=x: median(x, 3), max(4, messages // 8))  # type: ignore[misc]
    waiting = [rebuilt(body) for _ in range(_IN_FLIGHT)]
    del waiting
    found["resident_mb"] = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return found


def request(x: Any) -> bytes:
    """A ModelInferRequest of one tensor."""
    made = pb.ModelInferRequest(model_name="m", raw_input_contents=[x.tobytes()])
    made.inputs.add(name="x", datatype="FP32", shape=x.shape)
    return made.SerializeToString()


def rebuilt(body: bytes) -> bytes:
    """Parsed, its tensor changed, and put together anew, as where a purifier acts."""
    message = pb.ModelInferRequest.FromString(body)
    x = np.frombuffer(message.raw_input_contents[0], "<f4") * np.float32(0.5)
    del message.raw_input_contents[:]
    message.raw_input_contents.append(x.tobytes())
    return message.SerializeToString()


def _timed(work: Callable[[], Any], messages: int) -> dict[str, float]:
    for _ in range(max(4, messages // 10)):
        work()
    faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
    for _ in range(messages):
        work()
    taken = time.process_time() - began
    return {
        "us": 1e6 * taken / messages,
        "faults": (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / messages,
    }


def served(rounds: int, calls: int) -> dict[str, list[dict[str, float]]]:
    """By setting: the process's CPU us a call of 602 KB, and MB that are resident afterwards."""
    from bench.proxy import load  # noqa: PLC0415 - needs real images and onnx
    from bench.proxy.shapes import MODEL, SHAPES  # noqa: PLC0415
    from tests.servers import guard  # noqa: PLC0415

    shape = next(one for one in SHAPES if one.side == max(SIZES["602 KB"]))
    found: dict[str, list[dict[str, float]]] = {"system": [], "keep": []}
    for number in range(rounds):
        for setting in list(found)[:: 1 if number % 2 else -1]:
            model = {"name": MODEL, "embedded": {"file": str(shape.profile() / "model.onnx")}, "mode": "enforce"}
            stages = {"profile": str(shape.profile()), "purifiers": [{"stage": "median", "when": "always"}]}
            tree = {"allocator": setting, "models": [model | stages]}
            with tempfile.TemporaryDirectory() as home, guard.start(Path(home), tree) as running:
                pids, port = load.descendants(running.process.pid), int(running.address.rpartition(":")[2])
                rng = np.random.default_rng(number)
                load.fresh(port, pids, shape, max(8, calls // 4), 8, rng)
                took = load.fresh(port, pids, shape, calls, 8, rng)
                found[setting].append({"us": took.cpu_us, "resident_mb": load.resident_mb(pids)})
    return found


def ratios(ways: Mapping[str, Sequence[Mapping[str, Any]]], way: str, work: str) -> tuple[float, ...]:
    """Quartiles of what a way takes over what the system's takes, round by round."""
    pairs = zip(ways[way], ways[SYSTEM], strict=True)
    return tuple(
        map(float, np.quantile([one[work]["us"] / other[work]["us"] for one, other in pairs], (0.25, 0.5, 0.75)))
    )


def markdown(found: Mapping[str, Any]) -> str:
    """A table of the medians and of the middle half of the ratios."""
    ways = found["ways"]
    lines = ["| what | way | CPU us | over system | page faults |", "|---|---|---|---|---|"]
    for work in (name for name in ways[SYSTEM][0] if name != "resident_mb"):
        for way in WAYS:
            us, faults = (float(np.median([one[work][key] for one in ways[way]])) for key in ("us", "faults"))
            low, middle, high = ratios(ways, way, work)
            lines.append(f"| {work} | {way} | {us:,.0f} | {middle:.2f} ({low:.2f} to {high:.2f}) | {faults:,.1f} |")
    lines += ["", "| way | MB resident at the end |", "|---|---|"]
    lines += [f"| {way} | {float(np.median([one['resident_mb'] for one in ways[way]])):,.0f} |" for way in WAYS]
    for setting, taken in found.get("served", {}).items():
        us, resident = (float(np.median([one[key] for one in taken])) for key in ("us", "resident_mb"))
        lines += [
            "",
            f"`guard serve` with `allocator: {setting}`, 602 KB: {us:,.0f} us a call, {resident:,.0f} MB resident.",
        ]
    return "\n".join(
        [*lines, "", f"`python -m bench.allocator`, {found['rounds']} rounds, seed 0: {found['machine']}.", ""]
    )


if __name__ == "__main__":
    raise SystemExit(main())
