"""`python -m bench.soak.burst [--plane grpcio]`: the largest messages, all at once, and what Guard then holds.

Each of many callers, on a connection of his own, sends a request of the largest size at once, and once more; answers
are the largest, too. A server that takes two seconds stands behind, so that every place is taken while the others come:
as many are answered as there are places, as many wait as may, all others are refused. Reported is the most that the
process ever held (VmHWM) beside what it held before; the limits are those of the manifests under deploy/, whose pods
may take 1 GiB.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from grpc import aio

from guard.wire import messages
from guard.wire import open_inference_pb2 as pb
from tests.proxy import world
from tests.servers import guard

PLACES, WAITING, CALLERS = 16, 64, 300
REQUEST_BYTES, ANSWER_BYTES = 4 * 1024 * 1024, 1024 * 1024
LIMIT_MB, BASE_MB = 1024.0, 400.0
"""MiB: what a pod may hold, and a worker with monitors and a full history without large calls (bench.growth)."""
TAKES_S, DEADLINE_S, EACH = 2.0, 60.0, 2


def held_mb(pid: int) -> dict[str, float]:
    """Of a process: now (VmRSS), and at most until now (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    told = dict(line.split(":", 1) for line in lines)
    return {key: int(told[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM")}


async def burst(plane: str, *, places: int = PLACES, waiting: int = WAITING, callers: int = CALLERS) -> dict[str, Any]:
    """What was held, and how calls ended."""
    body = messages.build_request("m", {"x": np.zeros((1, (REQUEST_BYTES - 1024) // 4), np.float32)})
    answer = pb.ModelInferResponse(raw_output_contents=[bytes(ANSWER_BYTES - 1024)]).SerializeToString()

    async def infer(_: bytes, context: Any) -> bytes:  # noqa: ARG001
        await asyncio.sleep(TAKES_S)
        return answer

    async def caller(address: str) -> Counter[str]:
        async with aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            method: Any = channel.unary_unary(world.INFER)
            return Counter([(await world.ended(method(body, timeout=DEADLINE_S))).code.name for _ in range(EACH)])

    limits = {
        "max_concurrent_calls": places, "max_queued_calls": waiting,
        "max_request_bytes": REQUEST_BYTES, "max_response_bytes": ANSWER_BYTES,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bench-burst-") as home:
        async with world.serving(infer=infer) as server:
            tree = {
                "plane": plane, "upstream": {"address": server.address}, "unlisted_models": "allow", "limits": limits,
            }  # fmt: skip
            with guard.start(Path(home), tree) as guarded:
                before = held_mb(guarded.process.pid)["VmRSS"]
                ends = sum(await asyncio.gather(*(caller(guarded.address) for _ in range(callers))), Counter[str]())
                after = held_mb(guarded.process.pid)
    more = after["VmHWM"] - before
    return {
        "plane": plane, "limits": limits, "callers": callers, "ends": dict(ends),
        "before_mb": before, "most_mb": after["VmHWM"], "afterwards_mb": after["VmRSS"],
        "more_in_requests": more * 2**20 / (places * len(body)),
    }  # fmt: skip


def main() -> int:
    """0 where a pod would have had room."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak.burst", description="The largest messages, at once.")
    parser.add_argument("--plane", choices=["grpcio", "fast"], default="grpcio")
    parser.add_argument("--places", type=int, default=PLACES)
    parser.add_argument("--callers", type=int, default=CALLERS)
    options = parser.parse_args()
    found = asyncio.run(burst(options.plane, places=options.places, callers=options.callers))
    needed = BASE_MB + found["most_mb"] - found["before_mb"]
    sys.stdout.write(f"{json.dumps(found)}\n{needed:.0f} MB with a base of {BASE_MB:.0f}: ")
    sys.stdout.write("held\n" if needed <= LIMIT_MB else f"MISSED: more than {LIMIT_MB:.0f}\n")
    return int(needed > LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
