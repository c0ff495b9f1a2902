"""The table at the end, in a terminal of 80 columns."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_NARROW = 3.0  # per cent; wider intervals need no decimals


def per_cent(shown: Mapping[str, Any]) -> str:
    """A rate with its 95 % interval, in per cent: 98.0 (92.9 to 99.4)."""
    if shown["rate"] is None:
        return "-"
    low, high = shown["interval_95"]
    return f"{100 * shown['rate']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def briefly(shown: Mapping[str, Any]) -> str:
    """The same in fewer letters: 98.0 (93-99)."""
    if shown["rate"] is None:
        return "-"
    low, high = (100 * bound for bound in shown["interval_95"])
    narrow = high - low < _NARROW
    return f"{100 * shown['rate']:.1f} " + (f"({low:.1f}-{high:.1f})" if narrow else f"({low:.0f}-{high:.0f})")


def count(value: float | None) -> str:
    """A median number of queries."""
    return "-" if value is None else f"{value:,.0f}"


def cost(latency: Mapping[str, Any]) -> str:
    """The added latency in words."""
    if latency["ratio"] is None:
        return "not measured"
    low, high = latency["quartiles"]
    return f"x {latency['ratio']:.2f} (quartiles {low:.2f} to {high:.2f} of {latency['pairs']} interleaved pairs)"


def render(document: Mapping[str, Any], console: Console) -> None:
    """The table and the two lines below it."""
    clean = document["clean"]
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title="One model, bare and behind Guard: per cent, 95 % intervals",
    )
    table.add_column("", no_wrap=True)
    for heading in ("bare", "guarded", "detected", "at*"):
        table.add_column(heading, no_wrap=True, justify="right")
    accuracies = briefly(clean["bare_accuracy"]), briefly(clean["guarded_accuracy"])
    table.add_row("clean accuracy", *accuracies, briefly(clean["refused"]))
    table.add_row("benign callers", "", "", briefly(clean["callers_flagged"]))
    table.add_section()
    for row in document["attacks"]:
        table.add_row(
            row["title"], briefly(row["bare_success"]), briefly(row["guarded_success"]), briefly(row["detected"]),
            count(row["queries_to_detection"]),
        )  # fmt: skip
    console.print(table)
    _lines(document, console)


def _lines(document: Mapping[str, Any], console: Console) -> None:
    clean, paper = document["clean"], document["paper"]
    measured = briefly(paper["false_positive_rate"]["measured"])
    singly = ", ".join(f"{title} {briefly(found)}" for title, found in paper["detected"].items())
    for text in (
        "Attacks: success; detected, of those that fool the bare model: a query was refused, *at this one (median).",
        f"Clean: {clean['images']:,} images; detected are false positives, {100 * clean['budget']:g} asked for.",
        f"Feature squeezing at a false-positive rate of {measured}: {singly}; mean {_share(paper['mean'])}.",
        f"Its paper, on its own model, all its attacks: {_share(paper['paper'])} at about 4.",
        f"Latency of one image, guarded over bare: {cost(document['latency'])}.",
    ):
        console.print(text, highlight=False)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
