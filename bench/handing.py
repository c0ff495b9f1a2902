"""`python -m bench.handing`: what it takes to hand work to a thread and its result back, on one core.

asyncio's `run_in_executor` on a ThreadPoolExecutor, and `guard.proxy.crew`, in turn, with work that is nothing; on
asyncio's own event loop and on uvloop's. Processor time of the process, a work.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import uvloop

from adversary.judge_document import machine
from bench import pages
from guard.proxy.crew import Crew

BEGIN, END = "<!-- bench.handing: begin -->", "<!-- bench.handing: end -->"
TITLE = "Handing work to a thread, measured"
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
AT_ONCE = (1, 8)
_THREADS = 4
Found = dict[tuple[str, int], tuple[list[float], list[float]]]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.handing", description="Work to a thread and back.")
    made.add_argument("--rounds", type=int, default=9, metavar="N", help="of everything (9)")
    made.add_argument("--works", type=int, default=5000, metavar="N", help="of each (5,000)")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help="put the table into this page")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0."""
    options = parser().parse_args(argv)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        found = measured(options.rounds, options.works)
    finally:
        os.sched_setaffinity(0, cores)
    text = table(found, options.rounds, options.works)
    print(text)
    if options.docs is not None:
        pages.put(options.docs, text, begin=BEGIN, end=END, title=TITLE)
    return 0


def measured(rounds: int, works: int) -> Found:
    """By loop and works at once: CPU us a work of an executor, and of a crew, a round each."""
    found: Found = {}
    for number in range(rounds):
        for name, new in LOOPS.items():
            with asyncio.Runner(loop_factory=new) as runner:
                for at_once in AT_ONCE:
                    one = runner.run(_both(works, at_once, turned=bool(number % 2)))
                    for taken, us in zip(found.setdefault((name, at_once), ([], [])), one, strict=True):
                        taken.append(us)
    return found


async def _both(works: int, at_once: int, *, turned: bool) -> tuple[float, float]:
    loop, crew = asyncio.get_running_loop(), Crew("handing", _THREADS)
    with ThreadPoolExecutor(_THREADS) as pool:
        ways = [lambda: loop.run_in_executor(pool, _nothing), lambda: crew.run(_nothing)]
        taken = {way: await _us(ways[way], works, at_once) for way in ((1, 0) if turned else (0, 1))}
    crew.close()
    return taken[0], taken[1]


def _nothing() -> None:
    pass


async def _us(hand: Callable[[], Awaitable[None]], works: int, at_once: int) -> float:
    async def some(count: int) -> None:
        for _ in range(count):
            await hand()

    await some(at_once)  # its threads are there
    began = time.process_time()
    await asyncio.gather(*(some(works // at_once) for _ in range(at_once)))
    return 1e6 * (time.process_time() - began) / (works // at_once * at_once)


def table(found: Found, rounds: int, works: int) -> str:
    """Markdown: medians of rounds, least to most."""
    lines = ["| event loop | at once | executor, CPU us a work | crew, CPU us a work | over |", "|---|---|---|---|---|"]
    for (name, at_once), both in found.items():
        ratio = np.median(np.divide(*both))
        told = [f"{np.median(one):.1f} ({min(one):.1f} to {max(one):.1f})" for one in both]
        lines.append(f"| {name} | {at_once} | {told[0]} | {told[1]} | {ratio:.1f} |")
    day = datetime.now(UTC).date().isoformat()
    made = f"`python -m bench.handing`, {rounds} rounds of {works:,} works, {day}: {machine()}."
    return "\n".join(lines) + f"\n\n{made}\n"


if __name__ == "__main__":
    raise SystemExit(main())
