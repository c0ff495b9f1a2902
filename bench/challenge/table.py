"""The figures as Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import pages
from bench.detection.table import grid

BEGIN, END = "<!-- bench.challenge: begin -->", "<!-- bench.challenge: end -->"
TITLE = "What proof of work costs"


def markdown(found: Mapping[str, Any]) -> str:
    """The whole."""
    challenge = found["challenge"]
    said = ", ".join(f"`{key}: {value:g}`" for key, value in challenge.items())
    lines = [
        f"`on_clear: challenge` with {said}.",
        f"Data: {found['data']}; `extraction_budget` is the only stage, the victim runs in Guard's own process.",
        "Everything goes through real gRPC and `guard serve`.", "",
        "## What was asked for", "",
        *grid(("what", "wanted", "measured", "held"), [_bar(one) for one in found["bars"]]),
        "## Honest callers", "",
        "Each asks some rows, one a call, of a Guard with challenges and of one without, in pairs of blocks; his first",
        "call is refused and made again, and counts. Latency in ms, over all calls; the ratio is of the blocks' means:",
        "median of the pairs and its 95 % bootstrap interval. Control: the same without challenges on either side;",
        "how far it is from 1 is what else the machine did.", "",
        *grid(
            ("between calls", "callers", "rows each", "Guard", "p50", "mean", "p95", "ratio of means"),
            [row for one in found["honest"] for row in _honest(one)],
        ),
        "## Prices", "", "Computed: by the monitor's curve; times at the measured rate of one Python client.", "",
        *grid(
            ("rows answered", "estimated agreement", "hashes a row", "ms of one core a row"),
            [_price(one) for one in found["prices"]],
        ),
        "## A thief", "",
        f"Batches of {found['batch']} natural images the model has not learned from, solved by `guard.proving`.",
        "Processor time of his whole process, measured; computed for the same rows in the same way as below.", "",
        *grid(
            ("rows", "CPU s, measured", "CPU s, computed", "rows a CPU s, just then", "without challenges, CPU s"),
            [_theft(one) for one in found["theft"]],
        ),
        _rates(found), "",
        *grid(
            ("rows", "CPU s in all", "times as much as without"),
            [(f"{o['rows']:,}", f"{o['cpu_s']:,.0f} ({o['how']})", f"{o['times']:,.0f}") for o in found["totals"]],
        ),
        "## Guard's side", "",
        f"To check a proof (its form, its MAC, 16 parts): {found['check_us']:.0f} us of one core; to make a puzzle:",
        f"{found['issue_us']:.0f} us; to refuse what was made for somebody else: {found['refuse_us']:.0f} us.", "",
        _made(found["made"]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _bar(one: Mapping[str, Any]) -> Sequence[str]:
    return one["what"], one["wanted"], one["measured"], "yes" if one["held"] else "**no**"


def _honest(one: Mapping[str, Any]) -> list[Sequence[str]]:
    pause = f"{1000 * one['think_s']:.0f} ms" if one["think_s"] else "nothing"
    ratio, low, high = one["ratio"]
    rows: list[Sequence[str]] = []
    for name, title in (("plain", "without"), ("asked", "without, again (control)" if one["control"] else "with")):
        own = one[name]
        told = f"{ratio:.2f} ({low:.2f} to {high:.2f})" if name == "asked" else ""
        cells = (f"{own[key]:.2f}" for key in ("p50", "mean", "p95"))
        rows.append((pause, f"{one['callers']}", f"{one['rows']}", title, *cells, told))
    return rows


def _price(one: Mapping[str, Any]) -> Sequence[str]:
    return f"{one['rows']:,}", f"{one['estimate']:.3f}", f"{one['hashes']:,.0f}", f"{one['ms']:,.1f}"


def _theft(one: Mapping[str, Any]) -> Sequence[str]:
    return (
        f"{one['rows']:,}",
        f"{one['cpu_s']:,.1f}",
        f"{one['computed_s']:,.1f}",
        f"{one['rate']:,.1f}",
        f"{one['plain_s']:,.2f}",
    )


def _rates(found: Mapping[str, Any]) -> str:
    return (
        f"He hashed {found['hashes_per_s']:,.0f} times a CPU second; without a puzzle a row takes "
        f"{1000 * found['row_s']:.2f} ms of his CPU time. What follows is **computed** from these and the curve "
        "where it says so; beyond the curve's last point (8,000 rows) its slope goes on."
    )


def _made(made: Mapping[str, Any]) -> str:
    loads = " and ".join(f"{value:.1f}" for value in made["load"])
    return (
        f"Made by `{made['command']}` on {made['day']}, seed {made['seed']}: {made['machine']}, load {loads} before "
        "and after. Above the number of CPUs, others worked, too: latencies are then provisional."
    )


def put(page: Path, text: str) -> None:
    """Between the page's marks."""
    pages.put(page, text, begin=BEGIN, end=END, title=TITLE)
