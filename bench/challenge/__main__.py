"""`python -m bench.challenge`: honest callers' latency and a thief's work, with proof of work and without, in minutes.

The monitor's curve is a known one (`bench.challenge.profiled`), so that nothing is trained.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from adversary import serving
from adversary.attack import Array
from adversary.data.cache import DataUnavailable, write_atomic
from adversary.judge_document import machine
from bench.challenge import table
from bench.challenge.callers import Honest, Latency, Theft, body, honest, steal
from bench.challenge.pricing import Rates, at_most, interval, prices, total_s
from bench.challenge.profiled import curve, make
from bench.monitors.ground import Ground, ground
from guard import proving
from guard.extraction_budget import Curve
from guard.puzzles import Issuer, read_proof
from guard.settings import Challenge

SEED, BATCH = 0, 32
ROWS = (1_000, 10_000, 20_000)
_SECRET = "a bench needs none that is secret"
_BAR = 2.0
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.challenge", description="What proof of work costs.")
    made.add_argument("--data", choices=("cifar10", "mnist"), default="cifar10")
    made.add_argument("--callers", type=int, default=40, metavar="N", help="honest ones (default 40)")
    made.add_argument("--rows", type=int, default=25, metavar="N", help="of each honest caller (default 25)")
    made.add_argument("--cpu", type=float, default=60.0, metavar="S", help="that the thief works (default 60)")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help="put the tables into this page; figures beside it")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: honest callers are within the bar; 1: they are not; 2: data is out of reach."""
    options = parser().parse_args(argv)
    load, command = os.getloadavg()[0], ["python", "-m", "bench.challenge", *(sys.argv[1:] if argv is None else argv)]
    try:
        found = measured(options)
    except DataUnavailable as error:
        print(f"bench.challenge: {error}", file=sys.stderr)
        return 2
    found["made"] = {
        "command": shlex.join(command), "day": datetime.now(UTC).date().isoformat(), "seed": SEED,
        "machine": machine(), "load": [load, os.getloadavg()[0]],
    }  # fmt: skip
    print(table.markdown(found))
    if options.docs is not None:
        table.put(options.docs, table.markdown(found))
        write_atomic(options.docs.with_suffix(".json"), (json.dumps(found, indent=1) + "\n").encode())
    return 0 if all(one["held"] for one in found["bars"]) else 1


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as plain data."""
    on, challenge = ground(options.data), Challenge()
    rng, known = np.random.default_rng(SEED), curve(options.data)
    half = max(1, options.callers // 2)
    hows = [
        Honest(options.callers, options.rows, 0.0),
        Honest(half, options.rows, 0.03),
        Honest(half, options.rows, 0.0, control=True),
    ]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        name = make(on, directory / "profile").input_name
        singles = [body(on.name, name, x) for x in _drawn(on, on.quiet, options.callers * options.rows, rng, 1)]
        batches = [body(on.name, name, x) for x in _drawn(on, on.thief, 12_800, rng, BATCH)]
        plain, asked = (
            stack.enter_context(serving.served(_settings(on, policy, directory), _SECRET, directory / policy))[0]
            for policy in ("allow", "challenge")
        )
        latencies = [honest(plain, plain if how.control else asked, singles, how) for how in hows]
        theft = steal(asked, batches, BATCH, options.cpu)
        control = steal(plain, batches[: len(theft.steps)], BATCH, options.cpu)
    return _told(options.data, challenge, known, list(zip(hows, latencies, strict=True)), theft, control)


def _drawn(on: Ground, split: Any, n: int, rng: np.random.Generator, batch: int) -> list[Array]:
    some = rng.permutation(len(split))[:n]
    x = on.unit(split.images[np.sort(some)])
    return [x[at : at + batch] for at in range(0, len(x) - batch + 1, batch)]


def _settings(on: Ground, policy: str, directory: Path) -> dict[str, Any]:
    monitor = {"stage": "extraction_budget", "options": {"watch_at": None, "suspect_at": None}}
    model = {
        "name": on.name, "mode": "enforce", "embedded": {"file": str(on.onnx)}, "profile": str(directory / "profile"),
        "monitors": [monitor], "policy": {"on_clear": policy},
    }  # fmt: skip
    return {
        "models": [model], "listen": {"address": "127.0.0.1:0"}, "admin": {"http": None, "grpc": None},
        "identity": {"chain": [{"kind": "api_key"}]}, "limits": {"drain_s": 0.0},
    }  # fmt: skip


def _told(
    data: str, challenge: Challenge, known: Curve, latencies: list[tuple[Honest, Latency]], theft: Theft, control: Theft
) -> dict[str, Any]:
    last, alone = theft.steps[-1], control.steps[-1]
    rates = Rates(last.hashes / last.solving_s, alone.cpu_s / alone.rows)
    told = [_latency(how, latency) for how, latency in latencies]
    shown = np.array([1, 10, 30, 100, 300, 1_000, 3_000, 10_000, 20_000])
    return {
        "data": data, "batch": BATCH, "challenge": challenge.model_dump(),
        "honest": told, "bars": [_bar(one) for one in told if not one["control"]],
        "prices": [
            {"rows": int(n), "estimate": known.at(float(n)), "hashes": float(price),
             "ms": 1000.0 * float(price) / rates.hashes_per_s}
            for n, price in zip(shown, prices(known, challenge, shown), strict=True)
        ],
        "theft": [_at(wanted, theft, control, known, challenge, rates) for wanted in _marks(last.rows)],
        "asked": theft.asked, "calls": theft.calls, "hashes_per_s": rates.hashes_per_s, "row_s": rates.row_s,
        "totals": [_total(rows, theft, known, challenge, rates) for rows in ROWS],
        **_own(challenge),
    }  # fmt: skip


def _marks(most: int) -> list[int]:
    return [*(n for n in (128, 320, 640, 992, 1_504, 2_016, 3_008, 4_000, 6_016, 8_000) if n < most), most]


def _latency(how: Honest, latency: Latency) -> dict[str, Any]:
    def of(values: Array) -> dict[str, float]:
        p50, p95 = np.quantile(1000.0 * values, (0.5, 0.95))
        return {"p50": float(p50), "mean": float(1000.0 * values.mean()), "p95": float(p95)}

    return {
        "think_s": how.think_s, "control": how.control, "callers": how.callers, "rows": how.rows,
        "plain": of(latency.plain), "asked": of(latency.asked), "ratio": interval(latency.ratios, seed=SEED),
    }  # fmt: skip


def _bar(one: dict[str, Any]) -> dict[str, Any]:
    ratio, low, high = one["ratio"]
    pause = f"{1000 * one['think_s']:.0f} ms" if one["think_s"] else "nothing"
    return {
        "what": f"honest callers' mean latency, {pause} between calls", "wanted": f"less than {_BAR:g} times",
        "measured": f"{ratio:.2f} times ({low:.2f} to {high:.2f})", "held": high < _BAR,
    }  # fmt: skip


def _at(
    wanted: int, theft: Theft, control: Theft, known: Curve, challenge: Challenge, rates: Rates
) -> dict[str, Any]:  # fmt: skip
    rows = [step.rows for step in theft.steps]
    place = at_most(rows, wanted)
    step, before = theft.steps[place], theft.steps[max(0, place - 4)]
    spent = step.cpu_s - before.cpu_s
    return {
        "rows": step.rows, "cpu_s": step.cpu_s, "solving_s": step.solving_s,
        "computed_s": total_s(known, challenge, step.rows, BATCH, rates),
        "rate": (step.rows - before.rows) / spent if spent > 0.0 else float("nan"),
        "plain_s": control.steps[min(place, len(control.steps) - 1)].cpu_s,
    }  # fmt: skip


def _total(rows: int, theft: Theft, known: Curve, challenge: Challenge, rates: Rates) -> dict[str, Any]:
    """Measured where he came so far (to the batch before it), else computed."""
    own = theft.steps[-1].rows >= rows
    cpu_s = (
        theft.steps[at_most([step.rows for step in theft.steps], rows)].cpu_s
        if own
        else total_s(known, challenge, rows, BATCH, rates)
    )
    return {
        "rows": rows,
        "cpu_s": cpu_s,
        "how": "measured, to the batch before" if own else "computed",
        "times": cpu_s / rows / rates.row_s,
    }


def _own(challenge: Challenge) -> dict[str, float]:
    """What Guard's own part takes, in us of one core."""
    issuer, now = Issuer(b"a secret of sixteen bytes"), time.time()

    def issue() -> Any:
        return issuer.issue(
            "m", "caller", rows=1, hashes=challenge.hashes(0.0), ttl_s=challenge.ttl_s, nonce=b"n" * 16, now=now
        )

    puzzle = issue()
    text, forged = proving.solve(puzzle.text), proving.solve(issuer.issue(
        "m", "another", rows=1, hashes=16.0, ttl_s=60, nonce=b"n" * 16, now=now).text)  # fmt: skip

    def check(one: str) -> bool:
        proof = read_proof(one)
        return proof is not None and issuer.knows(proof.puzzle, "m", "caller") and proof.good

    return {
        "check_us": _us(lambda: check(text)), "issue_us": _us(issue), "refuse_us": _us(lambda: check(forged)),
    }  # fmt: skip


def _us(work: Callable[[], Any], times: int = 2000) -> float:
    started = time.process_time()
    for _ in range(times):
        work()
    return 1e6 * (time.process_time() - started) / times


if __name__ == "__main__":
    if any(os.environ.get(name) != "1" for name in _ONE_THREAD):
        environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
        os.execve(sys.executable, [sys.executable, "-m", "bench.challenge", *sys.argv[1:]], environment)
    raise SystemExit(main())
