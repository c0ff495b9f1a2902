"""`python -m bench.kernels`: what each compiled kernel saves, against its plain twin, in seconds.

Both take their turn in each round, in one process with one thread; processor time a call, and the ratio of the two,
round by round.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from adversary.judge_document import machine
from bench import pages
from guard import kernels, linking, sketching, windows
from guard.wire import messages, scan

_BEGIN, _END = "<!-- bench.kernels: begin -->", "<!-- bench.kernels: end -->"
_SECRET = b"a bench needs none that is secret"
_SHAPES = ((28, 28, 1), (32, 32, 3), (224, 224, 3))
_CALL_S = 0.01  # of a round, about
_DIGESTS = 20  # of a round


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.kernels", description="What each compiled kernel saves.")
    made.add_argument("--rounds", type=int, default=31, metavar="N", help="of everything (31)")
    made.add_argument("--json", action="store_true", help="print the figures instead of the table")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help="put the table into this page")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0; 2 where Guard was built without kernels."""
    options = parser().parse_args(argv)
    if kernels.compiled is None:
        print("bench.kernels: Guard was built without a C compiler", file=sys.stderr)
        return 2
    rows = [(name, *timed(*pair, options.rounds)) for name, pair in pairs()]
    hashes = digests(options.rounds)
    text = table(rows, hashes)
    told = {"pairs": {name: {"kernel": kernel, "plain": plain} for name, kernel, plain in rows}, "digests": hashes}
    print(json.dumps(told, indent=1) if options.json else text)
    if options.docs is not None:
        pages.put(options.docs, text, begin=_BEGIN, end=_END, title="Compiled kernels, measured")
    return 0


Call = Callable[[], Any]


def pairs() -> list[tuple[str, tuple[Call, Call]]]:
    """By name, what calls the kernel and what calls its twin."""
    rng = np.random.default_rng(0)
    found: list[tuple[str, tuple[Call, Call]]] = []
    for shape in _SHAPES:
        levels = rng.integers(256, size=shape, dtype=np.uint8)
        told = levels, windows._grid(_SECRET, levels.size), 50 if levels.size > 64 * 64 * 3 else 20  # noqa: SLF001
        both = partial(windows._compiled, *told), partial(windows._plain, *told)  # noqa: SLF001
        found.append((f"fingerprint, {_words(shape)}", both))
    for shape in _SHAPES[:2]:
        x = rng.random((1, *shape), dtype=np.float32)
        still = sketching._moved  # noqa: SLF001
        found.append((f"motions, {_words(shape)}", (partial(still, x), partial(_without, still, x))))
    motions, ways = rng.normal(size=(1, 10, 48)).astype(np.float32), rng.normal(size=(1, 2, 48))
    pair = partial(linking._compiled, motions, ways), partial(linking._plain, motions, ways)  # noqa: SLF001
    body = messages.build_request("model", {"image": np.zeros((1, 28, 28, 1), np.float32)})
    divided = partial(scan.divide, body), partial(_without, scan.divide, body)
    return [*found, ("what motion explains", pair), ("a request taken apart", divided)]


def _without(call: Callable[[Any], Any], x: Any) -> Any:
    kept, kernels.compiled = kernels.compiled, None
    try:
        return call(x)
    finally:
        kernels.compiled = kept


def digests(rounds: int) -> dict[str, list[float]]:
    """Microseconds for the bytes of a 224x224x3 float image, keyed where a hash can be, by round."""
    row, key = np.random.default_rng(0).bytes(224 * 224 * 3 * 4), b"k" * 32
    made: dict[str, Call] = {
        "BLAKE3": lambda: blake3(row, key=key).digest(length=16),
        "BLAKE2b": lambda: hashlib.blake2b(row, key=key, digest_size=16).digest(),
        "SHA-256": lambda: hashlib.sha256(row).digest(),
    }
    found: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, one in made.items():
            found[name].append(1e6 * _once(one, _DIGESTS))
    return found


def timed(kernel: Call, plain: Call, rounds: int) -> tuple[list[float], list[float]]:
    """Microseconds a call, by round."""
    calls = max(1, round(_CALL_S / max(1e-7, _once(plain, 3))))
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        order = ((kernel, found[0]), (plain, found[1]))
        for one, times in order if number % 2 else order[::-1]:
            times.append(1e6 * _once(one, calls))
    return found


def _once(call: Call, calls: int) -> float:
    began = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - began) / calls


def table(rows: Sequence[tuple[str, list[float], list[float]]], hashes: Mapping[str, list[float]]) -> str:
    """Markdown: medians, and the middle half of the ratios and of what a digest takes."""
    lines = ["| what | kernel, us | without, us | without over kernel |", "|---|---|---|---|"]
    for name, kernel, plain in rows:
        low, middle, high = np.quantile(np.array(plain) / np.array(kernel), (0.25, 0.5, 0.75))
        lines.append(
            f"| {name} | {np.median(kernel):.1f} | {np.median(plain):.1f} | {middle:.1f} ({low:.1f} to {high:.1f}) |"
        )
    lines += ["", "| digest of 602 KB | us |", "|---|---|"]
    for name, taken in hashes.items():
        low, middle, high = np.quantile(taken, (0.25, 0.5, 0.75))
        lines.append(f"| {name} | {middle:.0f} ({low:.0f} to {high:.0f}) |")
    on = machine()
    day = datetime.now(UTC).date().isoformat()
    return "\n".join(lines) + f"\n\n`python -m bench.kernels`, {len(rows[0][1])} rounds, seed 0, {day}: {on}.\n"


def _words(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


if __name__ == "__main__":
    raise SystemExit(main())
