"""What was measured, as JSON has it and as a table of Markdown."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import pages
from bench.batching.load import Load

_BEGIN, _END = "<!-- bench.batching: begin -->", "<!-- bench.batching: end -->"
_QUARTILES = (0.25, 0.5, 0.75)


def told(device: str, stage: str, callers: int, rounds: Sequence[tuple[Load, Load]]) -> dict[str, Any]:
    """One line: medians of rounds; of ratios, batched over apart, the quartiles."""
    apart, batched = zip(*rounds, strict=True)
    return {
        "device": device,
        "stage": stage,
        "callers": callers,
        "apart": _figures(apart),
        "batched": {**_figures(batched), "rows_per_run": float(np.median([one.rows_per_run for one in batched]))},
        "throughput_ratio": _ratios(rounds, lambda one: one.calls_per_s),
        "cpu_ratio": _ratios(rounds, lambda one: one.cpu_s),
        "median_ratio": _ratios(rounds, lambda one: float(np.median(one.seconds))),
        "p99_ratio": _ratios(rounds, lambda one: float(np.quantile(one.seconds, 0.99))),
    }


def _figures(loads: Sequence[Load]) -> dict[str, float]:
    return {
        "calls_per_s": float(np.median([one.calls_per_s for one in loads])),
        "cpu_ms": 1e3 * float(np.median([one.cpu_s for one in loads])),
        "median_ms": 1e3 * float(np.median([np.median(one.seconds) for one in loads])),
        "p99_ms": 1e3 * float(np.median([np.quantile(one.seconds, 0.99) for one in loads])),
    }


def _ratios(rounds: Sequence[tuple[Load, Load]], of: Callable[[Load], float]) -> list[float]:
    return [float(q) for q in np.quantile([of(batched) / of(apart) for apart, batched in rounds], _QUARTILES)]


def markdown(document: Mapping[str, Any]) -> str:
    """Two tables, and how they came about."""
    lines = [
        "| device | stage | at once | calls/s apart | batched | ratio | CPU ms apart | batched | ratio | rows/run |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *map(_throughput, document["measured"]),
        "",
        "| device | stage | calls at once | a call, ms (p99) apart | batched | ratio of medians | of p99 |",
        "|---|---|---|---|---|---|---|",
        *map(_latency, document["measured"]),
        "",
    ]
    if "cuda" not in document["devices"]:
        lines += ["CUDA was not measured: onnxruntime runs no session on it here.", ""]
    return "\n".join([*lines, _made(document["made"])]) + "\n"


def _made(made: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return (
        f"`{made['command']}`, seed {made['seed']}, {made['rounds']} rounds of {made['seconds']:g} s a load, "
        f"`max_wait_us` {made['max_wait_us']}, `max_rows` {made['max_rows']}, {made['day']}: {made['machine']}, "
        f"load {made['load'][0]:.1f} before and {made['load'][1]:.1f} after; {versions}."
    )


def _throughput(one: Mapping[str, Any]) -> str:
    apart, batched = one["apart"], one["batched"]
    return _cells(
        one["device"],
        one["stage"],
        one["callers"],
        f"{apart['calls_per_s']:,.0f}",
        f"{batched['calls_per_s']:,.0f}",
        _spread(one["throughput_ratio"]),
        f"{apart['cpu_ms']:.2f}",
        f"{batched['cpu_ms']:.2f}",
        _spread(one["cpu_ratio"]),
        f"{batched['rows_per_run']:.1f}",
    )


def _latency(one: Mapping[str, Any]) -> str:
    times = (f"{it['median_ms']:.2f} ({it['p99_ms']:.2f})" for it in (one["apart"], one["batched"]))
    spreads = _spread(one["median_ratio"]), _spread(one["p99_ratio"])
    return _cells(one["device"], one["stage"], one["callers"], *times, *spreads)


def _cells(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _spread(ratio: Sequence[float]) -> str:
    low, middle, high = ratio
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def put(page: Path, text: str) -> None:
    """The text between the page's marks."""
    pages.put(page, text, begin=_BEGIN, end=_END, title="Networks of stages, batched")
