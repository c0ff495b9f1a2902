"""The figures as Markdown tables."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import pages
from bench.detection.table import NOTHING, grid, share

BEGIN, END = "<!-- bench.monitors: begin -->", "<!-- bench.monitors: end -->"
_TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
_NAMES = {
    "benign": "Benign traffic", "evasion": "Evasions by queries", "adaptive": "Attackers who adapt or hide",
    "extraction": "Extractions", "budget": "The extraction budget", "wire": "Through the wire",
    "whole-benign": "Benign traffic, detectors beside the monitors",
    "whole-evasion": "Evasions by queries, detectors beside the monitors",
    "whole-adaptive": "Attackers who adapt or hide, detectors beside the monitors",
}  # fmt: skip


def markdown(found: Mapping[str, Any]) -> str:
    """The whole."""
    lines = ["## What was asked for", ""]
    rows = [(one["what"], one["wanted"], one["measured"], "yes" if one["held"] else "**no**") for one in found["bars"]]
    lines += grid(("what", "wanted", "measured", "held"), rows)
    for section, tell in _TELL.items():
        if found.get(section):
            lines += [f"## {_NAMES[section]}", ""]
            for data, part in found[section].items():
                lines += [f"### {_TITLES.get(data, data)}", "", _made(found["made"][section][data]), "", *tell(part)]
    return "\n".join(lines).rstrip() + "\n"


def _made(by: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(by["versions"].items()))
    monitors = ", ".join(by["monitors"])
    beside = ", ".join(f"{name} (weight {weight:g})" for name, weight in by.get("detectors", {}).items())
    told = f" Detectors: {beside}." if beside else ""
    return f"Made by `{by['command']}`, seed {by['seed']}, on {by['machine']}; {versions}. Monitors: {monitors}.{told}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def _blame(one: Mapping[str, Any]) -> str:
    return (
        ", ".join(f"{name} {count:,}" for name, count in sorted(one["blame"].items(), key=lambda x: -x[1])) or NOTHING
    )


def _benign(part: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (kind, f"{one['callers']:,}", f"{one['queries']:,}", share(one["watch"]), f"{one['alarms']['hits']}",
         share(one["alarms"]), f"{one['hostile']['hits']}", f"{one['refused']['hits']}",
         share(one["flagged"]) if "flagged" in one else NOTHING, _blame(one))
        for kind, one in part.items()
    ]  # fmt: skip
    headings = (
        "traffic", "callers", "queries", "ever on watch, %", "false alarms", "% of callers", "hostile",
        "callers refused once", "rows refused by detectors alone, %", "queries refused, by",
    )  # fmt: skip
    yield from grid(headings, rows)


def _evasion(part: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (
            name, f"{one['norm']} <= {one['eps']:.4g}", f"{one['budget']:,}", share(one["bare_success"]),
            _number(one["needed"]), share(one["before"]), share(one["before_of_searching"]),
            _number(one["queries_to_detection"]), _number(one["worst"]),
            NOTHING if one["share_of_needed"] is None else f"{100 * one['share_of_needed']:.1f}",
            share(one["within_share"], interval=False), _blame(one),
        )
        for name, one in part.items()
    ]  # fmt: skip
    headings = (
        "attack", "bound", "budget", "success on the bare victim, %", "queries it needs, median",
        "flagged before success, %", "the same, of those that need more than 10", "queries to detection, median",
        "most", "of those needed, %", "runs within 5 % of their own", "refused by",
    )  # fmt: skip
    yield from grid(headings, rows)


def _adaptive(part: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (
            way, name, f"{one['budget']:,}", share(one["bare_success"], interval=False), share(one["success"]),
            str(one["at_once"]["hits"]), share(one["detected"]), _number(one["queries_to_detection"]),
            _number(one["queries_to_success"]), _number(one["answered"]), _blame(one),
        )
        for way, cells in part.items()
        for name, one in cells.items()
    ]  # fmt: skip
    headings = (
        "way", "attack", "budget", "success on the bare victim, %", "success, %", "within 10 queries",
        "detected before success, %", "queries to detection, median", "to success", "answered, median", "refused by",
    )  # fmt: skip
    yield from grid(headings, rows)


def _extraction(part: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (
            name, str(one["within_1000"]["n"]), share(one["within_1000"]), _number(one["queries_to_detection"]),
            _number(one["worst"]), _number(one["published"]), _blame(one),
        )
        for name, one in part["thieves"].items()
    ]  # fmt: skip
    headings = (
        "thief", "runs", "flagged within 1,000 queries, %", "queries to detection, median", "most", "published",
        "refused by",
    )  # fmt: skip
    yield from grid(headings, rows)
    rows = [
        (
            name,
            *(", ".join(f"{n:,}" for n in one[key]) for key in ("sent", "answered", "flagged")),
            share(one["agreement"]),
        )
        for name, one in part["copies"].items()
    ]
    yield from ("Images of the victim's own kind, to the end:", "")
    yield from grid(("victim", "sent", "answered", "first refused at", "the copy agrees, %"), rows)


def _budget(part: Mapping[str, Any]) -> Iterator[str]:
    curve = part["curve"]
    yield from ("What students at `guard fit` agree on with the victim, by answers that they learned from:", "")
    yield from grid([f"{n:,}" for n in curve["counts"]], [[f"{100 * share:.1f} %" for share in curve["agreement"]]])
    marks = ", ".join(f"{100 * float(mark):.0f} % after {_number(n)}" for mark, n in curve["rows_for"].items())
    yield from (f"By this curve a caller reaches {marks} answers.", "", "Real copies of as many answers:", "")
    yield from grid(
        ("thief", "answers", "the estimate, %", "copies agree, %: mean", "each", "estimate less copies, points"),
        [_copy(one) for one in part["copies"]],
    )
    yield from ("In-distribution Knockoff to the end; the first query at each level is the median of the runs:", "")
    effects = (
        "victim", "accounts", "sent", "answered", "watch at", "suspect at", "hostile at", "the copy agrees, %", "each",
    )  # fmt: skip
    yield from grid(effects, [_effect(one) for one in part["effect"]])
    yield from ("Benign callers, by the budget alone (watch at 50 %, suspect at 70 %, hostile at 90 %):", "")
    rows = [
        (kind, f"{one['callers']:,}", _number(one["median"]), _number(one["most"]),
         *(share(one[level]) for level in ("watch", "suspect", "hostile")))
        for kind, one in part["benign"].items()
    ]  # fmt: skip
    headings = ("traffic", "callers", "queries each, median", "most", "watch, %", "suspect, %", "hostile, %")
    yield from grid(headings, rows)


def _copy(one: Mapping[str, Any]) -> tuple[str, ...]:
    mean = sum(one["agreement"]) / len(one["agreement"])
    each = ", ".join(f"{100 * share:.1f}" for share in one["agreement"])
    estimate = one["estimate"]
    return (one["thief"], f"{one['budget']:,}", f"{100 * estimate:.1f}", f"{100 * mean:.1f}", each,
            f"{100 * (estimate - mean):+.1f}")  # fmt: skip


def _effect(one: Mapping[str, Any]) -> tuple[str, ...]:
    runs = len(one["each"])
    sent, answered = (f"{sum(one[key]) / runs:,.0f}" for key in ("sent", "answered"))
    levels = []
    for places in zip(*one["levels"], strict=True):
        reached = sorted(float("inf") if place < 0 else place for place in places)
        middle = reached[(runs - 1) // 2]
        levels.append(NOTHING if middle == float("inf") else f"{middle:,}")
    each = ", ".join(f"{100 * share:.1f}" for share in one["each"])
    return (one["victim"], f"{one['accounts']}", sent, answered, *levels, share(one["agreement"]), each)


def _wire(part: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (name, str(one["before"]["n"]), share(one["control_success"]), str(one["control_refused"]["hits"]),
         share(one["success"]), share(one["before"]), _number(one["queries_to_detection"]))
        for name, one in part.items()
    ]  # fmt: skip
    headings = (
        "attack", "runs", "success, control, %", "refused, control", "success, guarded, %", "refused before success, %",
        "rows to the first refusal, median",
    )  # fmt: skip
    yield from grid(headings, rows)


_TELL: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "benign": _benign, "evasion": _evasion, "adaptive": _adaptive, "extraction": _extraction, "budget": _budget,
    "wire": _wire, "whole-benign": _benign, "whole-evasion": _evasion, "whole-adaptive": _adaptive,
}  # fmt: skip


def put(page: Path, text: str) -> None:
    """Between the page's marks."""
    pages.put(page, text, begin=BEGIN, end=END, title="Monitors, measured")
