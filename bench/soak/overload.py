"""`python -m bench.soak.overload [--seconds 120]`: five times the load that can be sustained, for a time.

A model that takes 20 ms stands behind a Guard of few places, so that these are what is short, not the machine's
processors; half as many may wait, as by default. It runs in a process of its own; the client speaks HTTP/2 through
libnghttp2, and says how late its own loop was, which would be told of as Guard's otherwise.

First as many callers as there are places, each asking when it was answered: the rate is what can be sustained, its p99
that at the knee. Then calls come at five times that rate, whatever becomes of them. Then the first again. Bars:
answered calls keep their p99 within twice the knee's, the others are refused within 10 ms of their arrival, memory
stays, and 2 s later everything is as it was; no call is uninspected.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.soak import slow
from bench.soak.looking import look, uninspected
from guard import settings
from guard.proxy import status
from guard.proxy.fast.upstream import FastUpstream
from guard.proxy.seam import Upstream
from tests.proxy import world
from tests.servers import guard

TAKES_S, PLACES, TIMES = 0.02, 4, 5
DEADLINE_S, KNEE_S, CONNECTIONS = 5.0, 5.0, 8
REQUEST = world.request()
P99, REFUSED_S, GROWTH, AFTER_S = 2.0, 0.010, 1.10, 2.0


@dataclass
class Told:
    """How calls ended, and how long each took, by that."""

    took_s: dict[str, list[float]] = field(default_factory=dict)

    def add(self, code: str, took_s: float) -> None:
        """One call."""
        self.took_s.setdefault(code, []).append(took_s)

    def p99_s(self, code: str) -> float:
        """0 where no call ended so."""
        all_of = sorted(self.took_s.get(code, [])) or [0.0]
        return all_of[int(0.99 * (len(all_of) - 1))]

    @property
    def ends(self) -> "Counter[str]":
        """How many."""
        return Counter({code: len(took) for code, took in self.took_s.items()})


async def call(channel: Upstream, told: Told) -> None:
    """One."""
    began = time.perf_counter()
    reply = await channel.unary(world.INFER, REQUEST, (), DEADLINE_S)
    told.add(status.name_of(reply.code), time.perf_counter() - began)


async def lateness(late_s: list[float]) -> None:
    """Of this process's own loop, until cancelled."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        late_s.append(time.perf_counter() - began - 0.001)


async def closed(channel: Upstream, seconds: float) -> tuple[Told, float]:
    """As many callers as there are places; and calls a second."""
    told, until = Told(), time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < until:
            await call(channel, told)

    await asyncio.gather(*(caller() for _ in range(PLACES)))
    return told, told.ends["OK"] / seconds


async def flood(channels: list[Upstream], rate: float, seconds: float) -> Told:
    """Calls at this rate, evenly."""
    told, calls, began = Told(), set(), time.perf_counter()
    sent = 0
    while (at_s := time.perf_counter() - began) < seconds:
        while sent < at_s * rate:
            task = asyncio.create_task(call(channels[sent % len(channels)], told))
            calls.add(task)
            task.add_done_callback(calls.discard)
            sent += 1
        await asyncio.sleep(0.001)
    await asyncio.gather(*calls)
    return told


async def measured(seconds: float, plane: str) -> dict[str, Any]:
    """All of it."""
    with tempfile.TemporaryDirectory(prefix="bench-overload-") as home, ExitStack() as stack:
        directory = Path(home)
        model = {"name": "m", "profile": world.profile(directory / "profile"), "mode": "enforce"}
        limits = {"max_concurrent_calls": PLACES, "max_queued_calls": PLACES // 2}
        tree = {
            "plane": plane, "upstream": {"address": stack.enter_context(slow.started(TAKES_S))}, "limits": limits,
            "models": [{**model, "validation": {"bounds": False}}],
        }  # fmt: skip
        guarded = stack.enter_context(guard.start(directory, tree))
        where = settings.Upstream(address=guarded.address)
        channels: list[Upstream] = [FastUpstream(where, settings.Limits()) for _ in range(CONNECTIONS)]
        late_s: list[float] = []
        try:
            await closed(channels[0], 1.0)
            knee, rate = await closed(channels[0], KNEE_S)
            before = look(guarded.process.pid, 0.0, [], 0)
            watching = asyncio.create_task(lateness(late_s))
            flooded = await flood(channels, TIMES * rate, seconds)
            watching.cancel()
            after = look(guarded.process.pid, 0.0, [], 0)
            await closed(channels[0], AFTER_S)
            again, rate_again = await closed(channels[0], KNEE_S)
            passed = await asyncio.to_thread(uninspected, guarded.admin)
        finally:
            await asyncio.gather(*(channel.close() for channel in channels))
    late_s.sort()
    return {
        "plane": plane, "seconds": seconds, "sustained_per_s": rate, "knee_p99_ms": 1e3 * knee.p99_s("OK"),
        "sent_per_s": sum(flooded.ends.values()) / seconds, "ends": dict(flooded.ends),
        "answered_p99_ms": 1e3 * flooded.p99_s("OK"), "refused_p99_ms": 1e3 * flooded.p99_s("RESOURCE_EXHAUSTED"),
        "client_late_p99_ms": 1e3 * late_s[int(0.99 * len(late_s))], "client_late_most_ms": 1e3 * late_s[-1],
        "rss_mb": [before.rss_mb, after.rss_mb], "again_per_s": rate_again, "again_p99_ms": 1e3 * again.p99_s("OK"),
        "again_ends": dict(again.ends), "uninspected": passed,
    }  # fmt: skip


def judged(found: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(what, figures, whether it held)."""
    p99, before, (rss, rss_then) = found["answered_p99_ms"], found["knee_p99_ms"], found["rss_mb"]
    others = set(found["ends"]) - {"OK", "RESOURCE_EXHAUSTED"}
    return [
        ("answered calls' p99", f"{before:.1f} to {p99:.1f} ms", p99 <= P99 * before),
        ("refused within", f"{found['refused_p99_ms']:.1f} ms (p99)", found["refused_p99_ms"] <= 1e3 * REFUSED_S),
        ("other ends", ", ".join(sorted(others)) or "none", not others),
        ("resident memory", f"{rss:.1f} to {rss_then:.1f} MB", rss_then <= GROWTH * rss),
        ("afterwards", f"{found['again_per_s']:.0f} of {found['sustained_per_s']:.0f} a second, {found['again_ends']}",
         found["again_per_s"] >= found["sustained_per_s"] / GROWTH and set(found["again_ends"]) == {"OK"}),
        ("uninspected", json.dumps(found["uninspected"]), not any(found["uninspected"].values())),
    ]  # fmt: skip


def main() -> int:
    """0 where all held."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak.overload", description="Five times what is sustained.")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--plane", choices=["grpcio", "fast"], default="grpcio")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = asyncio.run(measured(options.seconds, options.plane))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    rows = judged(found)
    for what, figures, held in rows:
        sys.stdout.write(f"{what:22} {figures:50} {'held' if held else 'MISSED'}\n")
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if all(held for *_, held in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
