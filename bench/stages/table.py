"""What was measured: on a terminal, and as tables of Markdown."""

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.stages.peers import LIBRARY, PEERS, Agreement
from bench.stages.ready import Unserved
from bench.stages.rounds import How, Measured

LARGE, BAR_LARGE, BAR_SMALL = "224x224x3", 5.0, 1.0
BEGIN, END = "<!-- what stages cost: begin -->", "<!-- what stages cost: end -->"
_PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "pillow", "scipy", LIBRARY)
_UNEQUAL = {True: "yes", False: "no", None: "by design not"}


@dataclass(frozen=True, slots=True)
class Made:
    """How the figures came about. load: of the machine, its average over a minute, before and after."""

    command: str
    machine: str
    versions: Mapping[str, str]
    day: str
    load: tuple[float, float]
    how: How


@dataclass(frozen=True, slots=True)
class Found:
    """Everything: by key and size how answers agree, by size what is not served."""

    measured: Sequence[Measured]
    agreements: Mapping[tuple[str, str], Agreement]
    unserved: Mapping[str, Sequence[Unserved]]


def versions() -> dict[str, str]:
    """Of what takes part, and is there."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def bar(one: Measured) -> float:
    """How many times less it must cost."""
    return BAR_LARGE if one.size == LARGE else BAR_SMALL


def short(found: Found) -> list[Measured]:
    """What has a peer and is below its bar."""
    return [one for one in found.measured if one.ratio is not None and one.ratio < bar(one)]


def unequal(found: Found) -> list[str]:
    """Methods whose answers should equal the peer's, and do not."""
    return [f"{key} ({size})" for (key, size), agreement in found.agreements.items() if agreement.within is False]


def verdict(found: Found) -> str:
    """All in all."""
    held = [one for one in found.measured if one.ratio is not None]
    if not held:
        return f"{LIBRARY} was not there to compare with"
    below = short(found)
    said = f"{len(held) - len(below)} of {len(held)} within their bar"
    if below:
        said += "; below it: " + ", ".join(f"{one.key} at {one.size} x {one.batch} ({one.ratio:.1f})" for one in below)
    return f"{said}; answers that differ and should not: {', '.join(unequal(found)) or 'none'}"


def show(found: Found, console: Console) -> None:
    """On a terminal."""
    for title, (heading, *lines) in (("CPU ms an image", _costs(found)), (f"Beside {LIBRARY}", _beside(found))):
        table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for i, name in enumerate(heading):
            table.add_column(name, justify="left" if i == 0 else "right")
        for line in lines:
            table.add_row(*line)
        console.print(table)
    console.print(verdict(found), highlight=False, soft_wrap=True)


def markdown(found: Found, made: Made) -> str:
    """The tables, what was compared, what is not served, what made them."""
    lines = [*_grid(_costs(found)), "", *_unserved(found)]
    if any(one.ratio is not None for one in found.measured):
        lines += ["", f"Beside {LIBRARY}, in the same rounds; its CPU time over ours, in brackets the quartiles.", ""]
        lines += [*_grid(_beside(found)), "", *_agreements(found)]
    packages = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    load = " and ".join(f"{value:.1f}" for value in made.load)
    told = (
        f"Made by `{made.command}` on {made.day}: {made.machine}, load {load} before and after; {packages}. "
        f"Medians of {made.how.rounds} rounds (three at least, and no more than {made.how.most_s:g} s of a method). "
        f"{verdict(found)[:1].upper()}{verdict(found)[1:]}."
    )
    return "\n".join([*lines, "", told])


def _grid(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    heading, *lines = rows
    yield f"| {' | '.join(heading)} |"
    yield "|---" + "|---:" * (len(heading) - 1) + "|"
    for line in lines:
        yield f"| {' | '.join(line)} |"


def _settings(found: Found) -> list[tuple[str, int]]:
    return list(dict.fromkeys((one.size, one.batch) for one in found.measured))


def _costs(found: Found) -> list[tuple[str, ...]]:
    """A row a stage, a column a size and batch."""
    settings = _settings(found)
    by_key: dict[str, dict[tuple[str, int], Measured]] = {}
    for one in found.measured:
        by_key.setdefault(one.key, {})[one.size, one.batch] = one
    rows = [("stage", "further upstream rows", *(f"{size} x {batch}" for size, batch in settings))]
    for key, cells in by_key.items():
        further = max(one.further_rows for one in cells.values())
        rows.append((key, str(further), *(_ms(cells[at].ms) if at in cells else "" for at in settings)))
    return rows


def _beside(found: Found) -> list[tuple[str, ...]]:
    """A row a method and size with a peer."""
    rows: list[tuple[str, ...]] = [("method", "images", "ours, ms", f"{LIBRARY}, ms", "ratio", "rounds", "equal")]
    for one in found.measured:
        if one.ratio is not None and one.ratio_quartiles is not None and one.their_ms is not None:
            low, high = one.ratio_quartiles
            agreement = found.agreements.get((one.key, one.size))
            rows.append((
                one.key, f"{one.size} x {one.batch}", _ms(one.ms), _ms(one.their_ms),
                f"{one.ratio:.1f} ({low:.1f} to {high:.1f})", str(one.rounds),
                "" if agreement is None else _UNEQUAL[agreement.within],
            ))  # fmt: skip
    return rows


def _agreements(found: Found) -> Iterator[str]:
    for (key, size), agreement in found.agreements.items():
        yield f"- {key} beside {PEERS[key].name}, {size}: {agreement.words}."


def _unserved(found: Found) -> Iterator[str]:
    for size, stages in found.unserved.items():
        for one in stages:
            yield f"- {one.key} does not serve {size}: {one.why}."


def _ms(value: float) -> str:
    return f"{value:.4f}" if value < 0.01 else f"{value:.3g}"


def put(page: Path, text: str) -> None:
    """Between the page's marks."""
    whole = page.read_text(encoding="utf-8")
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} lacks {BEGIN} or {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
