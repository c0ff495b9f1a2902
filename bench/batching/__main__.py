"""`python -m bench.batching`: what it brings to run rows of concurrent calls together in a stage's network.

Each round has every stage at every number of callers, with batching and without, one right after the other; the ratios
are of a round, so that a busier moment weighs on both. Networks are those of `bench/profiles/`.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from adversary.data.cache import write_atomic
from adversary.judge_document import machine
from bench.batching import load, table
from bench.batching.load import SEED, STAGES, Load, Loaded
from bench.stages.table import versions
from guard.batching import Gathering
from guard.settings import Batching

DOCS = Path("docs/results/batching.md")
CALLERS = (1, 8, 32)
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class How:
    """rounds: of everything. seconds: of one load. max_wait_us, max_rows: as the settings have them."""

    rounds: int = 15
    seconds: float = 0.5
    max_wait_us: int = Batching().max_wait_us
    max_rows: int = Batching().max_rows


_QUICK = How(rounds=2, seconds=0.05)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    usual = How()
    made = argparse.ArgumentParser(prog="python -m bench.batching", description="What batching networks brings.")
    made.add_argument("--quick", action="store_true", help="two short rounds; writes nothing unless told to")
    made.add_argument("--rounds", type=int, metavar="N", help=f"of everything ({usual.rounds})")
    made.add_argument("--seconds", type=float, metavar="S", help=f"of each load ({usual.seconds})")
    made.add_argument("--max-wait-us", type=int, metavar="US", help=f"batching.max_wait_us ({usual.max_wait_us})")
    made.add_argument("--max-rows", type=int, metavar="N", help=f"batching.max_rows ({usual.max_rows})")
    made.add_argument("--json", type=Path, metavar="FILE", help="the figures")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help=f"the page ({DOCS})")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0, whatever the figures are: they say what the defaults should be."""
    words = sys.argv[1:] if argv is None else list(argv)
    options = parser().parse_args(words)
    given = {key: getattr(options, key) for key in ("rounds", "seconds", "max_wait_us", "max_rows")}
    how = replace(_QUICK if options.quick else How(), **{key: one for key, one in given.items() if one is not None})
    load_before = os.getloadavg()[0]
    measured = measure(how)
    made = {
        "command": shlex.join(["python", "-m", "bench.batching", *_measuring(words)]),
        "machine": machine(),
        "versions": versions(),
        "day": datetime.now(UTC).date().isoformat(),
        "load": [load_before, os.getloadavg()[0]],
        "seed": SEED,
        **asdict(how),
    }
    document = {"made": made, "devices": list(load.devices()), "measured": measured}
    text = table.markdown(document)
    print(text)
    page = options.docs or (None if options.quick else DOCS)
    if page is not None:
        table.put(page, text)
    file = options.json or (None if page is None else page.with_suffix(".json"))
    if file is not None:
        write_atomic(file, (json.dumps(document, indent=1) + "\n").encode())
    return 0


def _measuring(words: Sequence[str]) -> list[str]:
    """What of a command line decides the figures."""
    kept, skip = [], False
    for word in words:
        if not skip and word not in {"--json", "--docs"}:
            kept.append(word)
        skip = word in {"--json", "--docs"}
    return kept


def measure(how: How) -> list[dict[str, Any]]:
    """Everything, in one interleaved run."""
    together = Gathering(max_wait_s=how.max_wait_us / 1e6, max_rows=how.max_rows, where="everywhere")
    found: dict[tuple[str, str, int], list[tuple[Load, Load]]] = {}
    pairs: dict[tuple[str, str], tuple[Loaded, Loaded]] = {}
    for device in load.devices():
        apart, batched = load.stages(device, Gathering(where="nowhere")), load.stages(device, together)
        pairs |= {(device, stage): (apart[stage], batched[stage]) for stage in STAGES}
    asked = {callers: load.inputs(callers) for callers in CALLERS}
    order = [(*pair, callers) for pair in pairs for callers in CALLERS]
    rng = np.random.default_rng(SEED)
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("rounds", total=how.rounds * len(order))
        for number in range(how.rounds):
            for i in rng.permutation(len(order)):
                device, stage, callers = order[i]
                found.setdefault(order[i], []).append(
                    _both(pairs[device, stage], asked[callers], how.seconds, turned=number % 2 == 1)
                )
                progress.advance(bar)
    return [table.told(*key, found[key]) for key in order]


def _both(pair: tuple[Loaded, Loaded], callers: Any, seconds: float, *, turned: bool) -> tuple[Load, Load]:
    if turned:
        together = load.drive(pair[1], callers, seconds)
        return load.drive(pair[0], callers, seconds), together
    return load.drive(pair[0], callers, seconds), load.drive(pair[1], callers, seconds)


if __name__ == "__main__":
    if any(os.environ.get(name) != "1" for name in _ONE_THREAD):
        environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
        os.execve(sys.executable, [sys.executable, "-m", "bench.batching", *sys.argv[1:]], environment)
    raise SystemExit(main())
