"""`python -m bench.soak.crowd [--callers 1000000]`: an attacker among a million callers, in a history in memory.

Each of the crowd asks once, under a name of its own, and what it asks is new; every so often the attacker asks, small
steps around one image. The history's bounds are the defaults, so that nearly all of the crowd is forgotten again. Shown
are the most callers and rows that were held, resident memory, and after how many queries the attacker was refused,
beside how many he has alone.
"""

import argparse
import gc
import json
import os
import sys

import numpy as np

from bench.monitors import guarded
from bench.monitors.ground import ground
from bench.proxy import load
from guard.stores.memory import MemoryStore

DATA = "mnist"
DEFENCE = guarded.Defence(monitors=("fingerprint", "similarity_graph"))
MANY = 200
"""Queries of the attacker."""


def attacked(service: guarded.Guarded, crowd: int, seed: int) -> dict[str, float]:
    """What came of it, with so many callers between."""
    rng, images = np.random.default_rng(seed), service.on.unit(service.on.test.images)
    start, every = images[0], max(1, crowd // MANY)
    refused, asked, before = 0, 0, load.resident_mb([os.getpid()])
    most_callers = most_rows = 0
    for i in range(max(crowd, MANY * every)):
        if crowd:
            one = images[rng.integers(1, len(images))] + rng.normal(0, 0.15, start.shape)
            service.answer(np.clip(one, 0, 1).astype(np.float32)[None], f"one of the crowd {i}")
        if i % every == 0:
            asked += 1
            step = np.clip(start + rng.normal(0, 0.003, start.shape), 0, 1).astype(np.float32)
            told = service.answer(step[None], "the attacker")
            refused = refused or asked * bool(told.refused.any())
            most_callers = max(most_callers, len(service.store._people))  # noqa: SLF001
            most_rows = max(most_rows, service.store.entries)
    gc.collect()
    return {
        "crowd": crowd, "refused_after": refused, "most_callers": most_callers, "most_rows": most_rows,
        "grown_mb": load.resident_mb([os.getpid()]) - before,
    }  # fmt: skip


def service(bound: int) -> guarded.Guarded:
    """A guarded victim with an empty history of these bounds."""
    guarded.make(DATA, DEFENCE)
    store = MemoryStore(max_entries=bound, max_callers=bound)
    return guarded.Guarded(ground(DATA), guarded.engine_of(DATA, DEFENCE), store)


def main() -> int:
    """0 where the bounds held and the attacker was refused."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak.crowd", description="An attacker in a crowd.")
    parser.add_argument("--callers", type=int, default=1_000_000)
    parser.add_argument("--bound", type=int, default=100_000, help="of rows and of callers (the settings' default)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    alone = attacked(service(options.bound), 0, options.seed)
    among = attacked(service(options.bound), options.callers, options.seed)
    sys.stdout.write(json.dumps({"alone": alone, "among": among}, indent=1) + "\n")
    held = among["most_callers"] <= options.bound and among["most_rows"] <= options.bound
    return 0 if held and among["refused_after"] else 1


if __name__ == "__main__":
    sys.exit(main())
