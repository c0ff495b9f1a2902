"""What a store in memory holds, and that its settings bound it: resident bytes as rows come, and callers.

`python -m bench.growth.memory WHAT BOUND`: JSON of what has come so far against bytes, up to four times the bound.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.monitors import costs
from bench.scale import units
from guard.stores.memory import MemoryStore

WHAT = ("rows", "callers")
_STEPS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
_CHUNK = 500


def held(what: str, bound: int) -> dict[str, int]:
    """By how many have come, by how many bytes the process has grown."""
    store = MemoryStore(max_entries=bound) if what == "rows" else MemoryStore(max_callers=bound)
    rng = np.random.default_rng(0)
    gc.collect()
    before, come, found = _resident(), 0, {}
    for step in _STEPS:
        target = int(bound * step)
        if what == "callers":
            asyncio.run(units.callers(store, come, target))
        else:
            for at in range(come, target, _CHUNK):
                costs.meet(store, f"caller {at % 1000}", costs.strangers(rng, min(_CHUNK, target - at)))
        come = target
        gc.collect()
        found[str(come)] = _resident() - before
    return found


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measured(bounds: dict[str, int]) -> dict[str, dict[str, int]]:
    """Each in a process of its own: what another has freed would be used again."""
    found = {}
    for what, bound in bounds.items():
        command = [sys.executable, "-m", "bench.growth.memory", what, str(bound)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[what] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps(held(sys.argv[1], int(sys.argv[2]))))
