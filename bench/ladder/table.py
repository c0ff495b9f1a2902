"""The figures as Markdown tables."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import pages
from bench.detection.table import NOTHING, grid, share
from bench.ladder.arms import OUTCOMES

BEGIN, END = "<!-- bench.ladder: begin -->", "<!-- bench.ladder: end -->"
_TITLE = "A copy behind the ladder, measured"
_SETS = {
    "photos": "Natural and out of distribution: squares of photographs", "own": "Images of the victim's own kind",
    "foreign": "Natural and out of distribution: another data set", "noise": "Synthetic: smooth random fields",
    "data-free": "Synthetic: a generator that follows the victim's answers",
    "jbda": "Synthetic: steps from 150 images of the victim's kind",
}  # fmt: skip


def markdown(found: Mapping[str, Any]) -> str:
    """The whole."""
    by = found["made"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(by["versions"].items()))
    lines = [
        f"Made by `{by['command']}`, seed {by['seed']}, on {by['machine']}; {versions}.",
        f"Monitors: {', '.join(by['monitors'])}. {found['epochs']} epochs a copy, {found['step_s']:g} s a query.",
        "", "## What was asked for", "",
    ]  # fmt: skip
    rows = [(one["what"], one["wanted"], one["measured"], "yes" if one["held"] else "**no**") for one in found["bars"]]
    lines += grid(("what", "wanted", "measured", "held"), rows)
    for queried, title in _SETS.items():
        some = [one for one in found["thieves"] if one["queried"] == queried]
        if some:
            lines += [f"## {title}", "", *_thieves(some)]
    lines += ["## Clean callers", "", *_honest(found["honest"])]
    return "\n".join(lines).rstrip() + "\n"


def _thieves(some: list[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        (
            one["way"], one["arm"], "patient" if one["patient"] else "in a hurry", str(one["accounts"]),
            str(one["seed"]), f"{one['sent']:,}", *(f"{one['outcomes'][name]:,}" for name in OUTCOMES),
            " / ".join(NOTHING if at < 0 else f"{at:,}" for at in one["levels"]),
            NOTHING if one["hours"] is None else f"{one['hours']:.1f}",
            share(one["agreement"]), NOTHING if one["arm"] == "bare" else _points(one["lost"]),
        )
        for one in some
    ]  # fmt: skip
    headings = (
        "what he learns from", "arm", "pace", "accounts", "seed", "rows sent", *OUTCOMES,
        "first row at watch / suspect / hostile", "hours", "the copy agrees, %", "points lost",
    )  # fmt: skip
    yield from grid(headings, rows)


def _points(one: Mapping[str, float]) -> str:
    return f"{one['points']:.1f} ({one['low']:.1f} to {one['high']:.1f})"


def _honest(found: list[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        (
            one["kind"], one["arm"], f"{one['callers']:,}", f"{one['rows']:,}",
            *(f"{one['outcomes'][name]:,}" for name in OUTCOMES), f"{one['changed']['hits']:,}",
            share(one["without"]), share(one["with"]),
            NOTHING if one["points"] is None else f"{one['points']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})",
        )
        for one in found
    ]  # fmt: skip
    headings = (
        "traffic", "arm", "callers", "rows", *OUTCOMES, "another label, or none", "accuracy without, %",
        "with, %", "difference, points",
    )  # fmt: skip
    yield from grid(headings, rows)


def put(page: Path, text: str) -> None:
    """Between the page's marks."""
    pages.put(page, text, begin=BEGIN, end=END, title=_TITLE)
