"""The figures as Markdown tables."""

import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import pages
from bench.answers import labels
from bench.answers.membership import ANSWER, WITH_LABEL
from bench.detection.table import area, grid, share

BEGIN, END = "<!-- bench.answers: begin -->", "<!-- bench.answers: end -->"


def markdown(found: Mapping[str, Any]) -> str:
    """The whole."""
    lines = ["## What was asked for", ""]
    rows = [(one["what"], one["wanted"], one["measured"], "yes" if one["held"] else "**no**") for one in found["bars"]]
    lines += grid(("what", "wanted", "measured", "held"), rows)
    for section, tell in _TELL.items():
        if found.get(section):
            lines += [*tell(found[section]), _made(found["made"][section]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _made(by: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(by["versions"].items()))
    return f"Made by `{by['command']}`, on {by['machine']}; {versions}."


def _paragraph(text: str) -> Iterator[str]:
    yield from textwrap.wrap(" ".join(text.split()), 120)
    yield ""


def _labels(part: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Labels", "")
    yield from _paragraph(f"""Of drawn test rows (seed {part["seed"]}): how often the bare answer ties at the top in its
        datatype, how often the cast alone, Guard or no Guard, gives another label than the model's own FP32 logits; and
        how often a protection changed the label that travels. Intervals are Clopper and Pearson's, 95 %.""")
    rows = [
        (data, one["meaning"], one["datatype"], f"{whole['rows']:,}", _exact(one["tied"]),
         _exact(one["moved_by_the_cast"]), *_changed(whole["cells"], one))
        for data, whole in part["bulk"].items()
        for one in whole["bare"]
    ]  # fmt: skip
    headings = ("data", "meaning", "datatype", "rows", "bare answer ties, %", "moved by the cast, %",
                "changed by a protection", "of answers")  # fmt: skip
    yield from grid(headings, rows)
    yield from ("Each protection, over all data, meanings and forms; the last two are the control:", "")
    names = dict.fromkeys(cell["way"] for whole in part["bulk"].values() for cell in whole["cells"])
    yield from grid(("protection", "labels changed", "of answers", "answers touched, %"), [
        (name, *_of_way(part["bulk"], name)) for name in names
    ])  # fmt: skip
    yield from _edges(part["edge"])
    yield from _wired(part["wire"])
    yield from _repeats(part.get("repeats", ()))


def _exact(one: Mapping[str, Any]) -> str:
    low, high = one["interval_95"]
    return f"{100 * one['rate']:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def _changed(cells: list[Mapping[str, Any]], one: Mapping[str, Any]) -> tuple[str, str]:
    keeping = {str(way) for way in labels.KEEPING}
    mine = [
        cell["changed"]
        for cell in cells
        if cell["meaning"] == one["meaning"] and cell["form"].split()[0] == one["datatype"] and cell["way"] in keeping
    ]
    return str(sum(cell["hits"] for cell in mine)), f"{sum(cell['n'] for cell in mine):,}"


def _of_way(bulk: Mapping[str, Any], name: str) -> tuple[str, str, str]:
    cells = [cell for whole in bulk.values() for cell in whole["cells"] if cell["way"] == name]
    hits, n, acted = (
        sum(cell[what][key] for cell in cells)
        for what, key in (("changed", "hits"), ("changed", "n"), ("acted", "hits"))
    )
    return f"{hits:,}", f"{n:,}", f"{100 * acted / max(1, n):.1f}"


def _edges(edge: Mapping[str, Any]) -> Iterator[str]:
    yield from _paragraph("""At the edge: the runner-up of real answers put at the top's value, or one step of the
        datatype below or above it. Answers that still tie are those that a protection did not touch.""")
    rows = []
    for data, cells in edge.items():
        hits, n, ties = (
            sum(cell[what][key] for cell in cells)
            for what, key in (("changed", "hits"), ("changed", "n"), ("tied", "hits"))
        )
        rows.append((data, str(hits), f"{n:,}", f"{ties:,}"))
    yield from grid(("data", "labels changed", "of answers", "that still tie"), rows)


def _wired(wire: Mapping[str, Any]) -> Iterator[str]:
    yield from _paragraph("""Through real gRPC: an upstream, two `guard serve` with one secret, one model for each
        protection, meaning and form. A batch asked four times more, of both; some rows by themselves, twice.""")
    rows = [
        (data, f"{one['cells']}", f"{one['rows']}", f"{one['changed']['hits']} of {one['changed']['n']:,}",
         f"{one['replicas_equal']['hits']} of {one['replicas_equal']['n']}",
         f"{one['rows_alone_equal']['hits']} of {one['rows_alone_equal']['n']}")
        for data, one in wire.items()
    ]  # fmt: skip
    headings = ("data", "models", "rows", "labels changed", "batches byte-equal", "rows byte-equal, label kept")
    yield from grid(headings, rows)


def _repeats(repeats: list[Mapping[str, Any]]) -> Iterator[str]:
    if not repeats:
        return
    yield from _paragraph(f"""Repeats: {repeats[0]["rows"]} unsure CIFAR-10 test images (confidence below 0.7) asked
        {repeats[0]["repeats"]:,} times; L1 between the model's own answer and one answer, and the better of the mean
        and the median of all of them (± half a 95 % interval). Drawn anew: the same noise under a new secret each
        time.""")
    rows = [
        (one["way"], str(one["distinct"]), *(
            f"{one[kind][what]['mean']:.3f} ± {one[kind][what]['half_95']:.3f}"
            for kind in ("keyed", "anew") for what in ("once", "averaged")
        ))
        for one in repeats
    ]  # fmt: skip
    headings = ("protection", "different answers to a row", "one answer", "averaged", "drawn anew: one", "averaged")
    yield from grid(headings, rows)


def _square(part: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Square attack", "")
    yield from _paragraph(f"""CIFAR-10's residual network, {share(part["accuracy"], interval=False)} % right on the test
        set; linf {255 * part["eps"]:g}/255, {part["budget"]:,} queries, probabilities told in FP32, every row
        protected. Robust accuracy is of rightly labelled test images (95 %, Wilson); times the accuracy it is that of
        the whole test set.""")
    rows = [
        (one["way"], one["rule"], f"{one['initial']:g}", str(one["robust"]["n"]), share(one["robust"]),
         share(one["robust_at_100"], interval=False),
         "-" if one["median_queries"] is None else f"{one['median_queries']:,.0f}")
        for one in part["attacks"]
    ]  # fmt: skip
    headings = ("protection", "attacker", "first squares", "images", "robust accuracy, %", "after 100 queries, %",
                "queries, median of the broken")  # fmt: skip
    yield from grid(headings, rows)
    yield from ("What honest callers get, on all test images:", "")
    honest = [
        (name, f"{one['changed']['hits']} of {one['changed']['n']:,}",
         f"{one['calibration_error']:.3f} ({one['interval_95'][0]:.3f} to {one['interval_95'][1]:.3f})",
         share(one["touched"], interval=False))
        for name, one in part["honest"].items()
    ]  # fmt: skip
    yield from grid(("protection", "labels changed", "calibration error (95 %)", "answers touched, %"), honest)
    wired = [
        (name, f"{one['answers_equal']['hits']} of {one['answers_equal']['n']:,}",
         f"{one['attacks_equal']['hits']} of {one['attacks_equal']['n']}")
        for name, one in part["wire"].items()
    ]  # fmt: skip
    yield from ("The same attack through `guard serve`, against the one in process:", "")
    yield from grid(("protection", "answers equal to the last bit", "attacks that end alike"), wired)


def _membership(part: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Membership", "")
    right = part["accuracy"]
    yield from _paragraph(f"""{part["members"]:,} members (right: {share(right["members"], interval=False)} %) against
        {part["others"]:,} test images (right: {share(right["others"], interval=False)} %). AUROC, 95 % bootstrap; 0.5
        is chance. `confidence`, `entropy`, `sorted` see the answer alone; `loss` and `modified entropy` know the true
        label, and so whether the answer is right, which by itself gives `right or wrong`.""")
    names = (*ANSWER, *WITH_LABEL, "right or wrong", "loss, right answers alone")
    rows = [
        (way, f"{one['changed']['hits']}", *(area(one["auroc"][name]) for name in names),
         f"{one['calibration_error']:.3f}")
        for way, one in part["ways"].items()
    ]  # fmt: skip
    yield from grid(("protection", "labels changed", *names, "calibration error, test images"), rows)
    one = part["labels"]
    few = one["auroc"]["n"]
    yield from _paragraph(f"""By labels alone, {one["copies"]} copies of each of {few[0]:,} members and {few[1]:,}
        others, shifted, turned, mirrored or noisy: AUROC {area(one["auroc"])}, whatever protection keeps the
        labels.""")


_TELL: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "labels": _labels, "square": _square, "membership": _membership,
}  # fmt: skip


def put(page: Path, text: str) -> None:
    """Between the page's marks."""
    pages.put(page, text, begin=BEGIN, end=END, title="Protected answers, measured")
