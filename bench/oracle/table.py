"""What was measured, line by line on a terminal, and as tables of Markdown."""

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.oracle.attacks import ASKING, IN_ALL
from bench.oracle.rounds import Measured

BAR = 0.7
BEGIN, END = "<!-- the oracle's rate: begin -->", "<!-- the oracle's rate: end -->"
_PACKAGES = ("grpcio", "protobuf", "numpy", "onnxruntime")
_INFORMATION = "prepared bytes"  # not the oracle's


@dataclass(frozen=True, slots=True)
class Made:
    """How the figures came about. load: of the machine, its average over a minute, before and after."""

    command: str
    machine: str
    versions: Mapping[str, str]
    day: str
    load: tuple[float, float]


def versions() -> dict[str, str]:
    """Of what takes part."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}


def bound(one: Measured) -> bool:
    """Whether the bar is for it: for what the oracle does, and not for an attack's own arithmetic."""
    return _INFORMATION not in one.sender and not one.sender.endswith(IN_ALL)


def short(found: Sequence[Measured]) -> list[Measured]:
    """What the bar is for, and does not reach it."""
    return [one for one in found if bound(one) and one.ratio < BAR]


def line(one: Measured) -> str:
    """One sender."""
    what = f"{one.endpoint}, {one.kind} x {one.batch}, {one.concurrency} at once: {one.sender}"
    return f"{what:74} {one.rate:11,.0f} rows/s; plain {one.plain_rate:11,.0f}; ratio {_ratio(one)}"


def verdict(found: Sequence[Measured]) -> str:
    """All in all."""
    held = [one for one in found if bound(one)]
    below = short(found)
    least = min(held, key=lambda one: one.ratio)
    return (
        f"{len(held) - len(below)} of {len(held)} at or above {BAR:g} of the plain loop's rate; "
        f"the least: {least.ratio:.2f} ({least.endpoint}, {least.kind} x {least.batch}, {least.sender})"
    )


def _ratio(one: Measured) -> str:
    low, high = one.quartiles
    return f"{one.ratio:.2f} ({low:.2f} to {high:.2f})"


def markdown(found: Sequence[Measured], made: Made) -> str:
    """A table a number of calls at once, one for attacks, what made them."""
    attacks = [one for one in found if one.sender.endswith((ASKING, IN_ALL))]
    several = [one for one in found if one.concurrency > 1]
    alone = [one for one in found if one not in attacks and one not in several]
    lines = [
        *("One call after the other.", "", *_grid(alone)),
        *("", f"{several[0].concurrency} calls at once.", "", *_grid(several)),
        *("", "Attacks. `asking`: the time that they spend in the oracle; `in all`: with their own arithmetic.", ""),
        *_grid(attacks),
    ]
    packages = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    load = " and ".join(f"{value:.1f}" for value in made.load)
    rounds = found[0].rounds
    told = (
        f"Made by `{made.command}` on {made.day}: {made.machine}, load {load} before and after; {packages}. "
        f"{rounds} pairs of rounds each; medians of the pairs' ratios, in brackets their quartiles. {verdict(found)}."
    )
    return "\n".join([*lines, "", told])


def _grid(found: Sequence[Measured]) -> Iterator[str]:
    """A row a setting, a column a sender."""
    senders = list(dict.fromkeys(one.sender for one in found))
    settings = list(dict.fromkeys((one.endpoint, one.kind, one.batch) for one in found))
    yield f"| endpoint | input | rows a call | plain loop, rows/s | {' | '.join(senders)} |"
    yield "|---|---|---|---|" + "---|" * len(senders)
    for endpoint, kind, batch in settings:
        here = {one.sender: one for one in found if (one.endpoint, one.kind, one.batch) == (endpoint, kind, batch)}
        rate = next(iter(here.values())).plain_rate
        cells = (_ratio(here[sender]) if sender in here else "" for sender in senders)
        yield f"| {endpoint} | {kind} | {batch} | {rate:,.0f} | {' | '.join(cells)} |"


def put(page: Path, text: str) -> None:
    """Between the page's marks."""
    whole = page.read_text(encoding="utf-8")
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} lacks {BEGIN} or {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
