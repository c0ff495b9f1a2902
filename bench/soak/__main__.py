"""`python -m bench.soak [--minutes 30]`: mixed traffic, attacks and faults for a time; fails where something grows.

Guard serves the tests' digit classifier in-process, with detectors and monitors that enforce, outputs as they are. The
settings are read again every `RELOAD_S`, and memory that Guard may fill (history, names of callers) is bounded so that
it is full before the measuring begins. Compared are the first and the last third of what follows the warm-up.
"""

import argparse
import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.soak.looking import Sample, look, uninspected
from bench.soak.traffic import MODEL, Bare, Traffic
from tests.servers import guard
from tests.servers.models import digits_onnx, images

WARM_UP = 0.25
RELOAD_S = 30.0
GROWTH, LATER = 0.02, 1.5
"""Resident memory may grow by so much; the median latency may be so many times what it was."""
HONEST, ATTACKERS, RUDE = 12, 4, 3


def settings(directory: Path) -> dict[str, Any]:
    """With a profile that is fitted now."""
    file = digits_onnx(directory / "digits.onnx")
    np.savez(directory / "clean.npz", x=images(500, seed=11))
    guard.fit(["--model", str(file), "--clean", str(directory / "clean.npz"), "--out", "profile"], directory)
    trusted = [{"kind": "header", "header": "x-user", "trusted_peers": ["127.0.0.0/8"]}, {"kind": "peer"}]
    stages = {
        "detectors": [{"stage": "feature_squeezing"}],
        "monitors": [{"stage": "fingerprint"}, {"stage": "similarity_graph"}, {"stage": "update_direction"}],
    }
    model = {"name": MODEL, "embedded": {"file": str(file)}, "profile": str(directory / "profile"), "mode": "enforce"}
    return {
        "models": [{**model, **stages}],
        "identity": {"chain": trusted},
        "history": {"max_entries": 5000, "max_callers": 200},
        "audit": {"file": str(directory / "audit.jsonl"), "max_explained": 500},
    }


async def run(minutes: float, seed: int, pause_s: float, every_s: float) -> dict[str, Any]:
    """What was seen."""
    with tempfile.TemporaryDirectory(prefix="bench-soak-") as home:
        directory = Path(home)
        tree = settings(directory)
        with guard.start(directory, tree) as guarded:
            traffic = Traffic(guarded.address, Bare(str(directory / "digits.onnx")), seed, pause_s)
            tasks = traffic.callers(HONEST, ATTACKERS, RUDE)
            began, samples, reload_at = time.monotonic(), [], RELOAD_S
            try:
                while (at_s := time.monotonic() - began) < 60 * minutes:
                    await asyncio.sleep(every_s)
                    ended = [task for task in tasks if task.done()]
                    if ended:
                        ended[0].result()
                    calls = sum(traffic.seen.ends.values())
                    samples.append(look(guarded.process.pid, at_s + every_s, traffic.seen.drain(), calls))
                    if at_s > reload_at:
                        reload_at += RELOAD_S
                        guarded.process.send_signal(signal.SIGHUP)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            complaints = [line for line in guarded.log.read_text().splitlines() if "Traceback" in line]
            passed = await asyncio.to_thread(uninspected, guarded.admin)
    seen = traffic.seen
    return {
        "minutes": minutes, "seed": seed, "samples": [asdict(one) for one in samples], "wrong": seen.wrong,
        "ends": {f"{kind} {end}": count for (kind, end), count in sorted(seen.ends.items())},
        "tracebacks": len(complaints), "uninspected": passed,
    }  # fmt: skip


def judged(found: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(what, figures, whether it held)."""
    samples = [Sample(**one) for one in found["samples"]]
    kept = samples[int(WARM_UP * len(samples)) :]
    third = max(1, len(kept) // 3)
    first, last = kept[:third], kept[-third:]

    def medians(name: str) -> tuple[float, float]:
        return tuple(statistics.median(getattr(one, name) for one in part) for part in (first, last))

    (rss, rss_then), (handles, handles_then), (threads, threads_then), (p50, p50_then) = map(
        medians, ("rss_mb", "handles", "threads", "p50_ms")
    )
    pool, pool_then = medians("grpc_threads")
    growth = rss_then / rss - 1
    refused = found["ends"].get("attacker PERMISSION_DENIED", 0)
    bad = {end: count for end, count in found["ends"].items() if end.startswith("honest ") and end != "honest OK"}
    bad.pop("honest PERMISSION_DENIED", None)
    return [
        ("resident memory", f"{rss:.1f} to {rss_then:.1f} MB ({growth:+.1%})", growth < GROWTH),
        ("open files", f"{handles:.0f} to {handles_then:.0f}", handles_then <= handles + 8),
        ("threads", f"{threads:.0f} to {threads_then:.0f}", threads_then <= threads),
        ("gRPC's threads", f"{pool:.0f} to {pool_then:.0f}", pool_then <= pool + 4),
        ("honest callers' median", f"{p50:.2f} to {p50_then:.2f} ms", p50_then < LATER * p50),
        ("wrong answers", str(found["wrong"]), found["wrong"] == 0),
        ("honest calls that failed", json.dumps(bad), not bad),
        ("attackers refused", str(refused), refused > 0),
        ("uninspected calls", json.dumps(found["uninspected"]), not any(found["uninspected"].values())),
        ("tracebacks in the log", str(found["tracebacks"]), found["tracebacks"] == 0),
    ]


def main() -> int:
    """0 where all held."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="A Guard under mixed traffic for a time.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.05, metavar="S", help="between the calls of a caller (mean)")
    parser.add_argument("--every", type=float, default=10.0, metavar="S", help="look so often")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was seen")
    options = parser.parse_args()
    found = asyncio.run(run(options.minutes, options.seed, options.pause, options.every))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    rows = judged(found)
    for what, figures, held in rows:
        sys.stdout.write(f"{what:28} {figures:40} {'held' if held else 'MISSED'}\n")
    sys.stdout.write(json.dumps(found["ends"]) + "\n")
    return 0 if all(held for _, _, held in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
