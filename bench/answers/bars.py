"""What was asked for, beside what was measured."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.answers import labels, square
from bench.answers.membership import ANSWER, WITH_LABEL
from bench.detection.bars import Bar

ROBUST, KEPT, WORSE = 0.75, 0.999, 0.02
BARE_AT_LEAST, AT_MOST = 0.70, 0.55
GIVEN = 0.75
"""What a thousand anew drawn answers must leave of one answer's error at most, for the control to be one."""
_NONE, _HIDES = "none", "membership_noise"
_DEFENCES = (str(square.AAA), str(square.NOISE), "low_confidence_noise")


def judged(found: Mapping[str, Any]) -> list[Bar]:
    """All that the document can tell of."""
    return [*_labels(found.get("labels")), *_square(found.get("square")), *_membership(found.get("membership"))]


def _labels(part: Mapping[str, Any] | None) -> Iterator[Bar]:
    if part is None:
        return
    keeping = {str(one) for one in labels.KEEPING}
    for data, one in part["bulk"].items():
        cells = [cell for cell in one["cells"] if cell["way"] in keeping]
        yield _none_changed(f"{data}: labels changed, {one['rows']:,} rows, every protection and form", cells)
    for data, cells in part["edge"].items():
        yield _none_changed(f"{data}: labels changed at a tie or one step from it, every protection and form", cells)
    for data, one in part["wire"].items():
        changed, equal = one["changed"], one["replicas_equal"]
        told = f"{changed['hits']} of {changed['n']:,}, {one['cells']} models"
        yield Bar(f"{data}: labels changed through two `guard serve`", "none", told, changed["hits"] == 0)
        told = f"{equal['hits']} of {equal['n']}, and {one['rows_alone_equal']['hits']} of "
        told += f"{one['rows_alone_equal']['n']} rows by themselves"
        held = equal["hits"] == equal["n"] and one["rows_alone_equal"]["hits"] == one["rows_alone_equal"]["n"]
        yield Bar(f"{data}: replicas and repeats answer byte for byte alike", "all", told, held)
    for one in part.get("repeats", ()):
        left = {name: one[name]["averaged"]["mean"] / one[name]["once"]["mean"] for name in ("keyed", "anew")}
        told = f"{100 * left['keyed']:.0f} % of one answer's error is left (drawn anew: {100 * left['anew']:.0f} %)"
        what = f"{one['way']}: what {one['repeats']:,} repeats, averaged, gain"
        yield Bar(what, "nothing", told, one["distinct"] == 1 and left["keyed"] > 1.0 - 1e-9 and left["anew"] < GIVEN)


def _none_changed(what: str, cells: list[Mapping[str, Any]]) -> Bar:
    hits, n = (sum(cell["changed"][key] for cell in cells) for key in ("hits", "n"))
    bound = max((cell["changed"]["interval_95"][1] for cell in cells), default=1.0)
    told = f"{hits} of {n:,} answers; each of {len(cells)} cells at most {100 * bound:.2g} % (95 %)"
    return Bar(what, "none", told, hits == 0 and bool(cells))


def _square(part: Mapping[str, Any] | None) -> Iterator[Bar]:
    if part is None:
        return
    plain = [one for one in part["attacks"] if one["rule"] == "down"]
    for initial in sorted({one["initial"] for one in plain}, reverse=True):
        known = {one["way"]: one["robust"] for one in plain if one["initial"] == initial}
        tried = {name: known[name] for name in _DEFENCES if name in known}
        if tried:
            best = max(tried, key=lambda name: tried[name]["rate"])
            low, high = (100 * end for end in tried[best]["interval_95"])
            told = f"{100 * tried[best]['rate']:.1f} % ({low:.1f} to {high:.1f}, n {tried[best]['n']}), {best}"
            if _NONE in known:
                told += f"; bare {100 * known[_NONE]['rate']:.1f} %"
            what = f"Square, first squares {initial:g} of the image: robust accuracy, rightly labelled images"
            yield Bar(what, f"at least {100 * ROBUST:g} %", told, tried[best]["rate"] >= ROBUST)
    bare = part["honest"][_NONE]["calibration_error"]
    for name in _DEFENCES:
        one = part["honest"].get(name)
        if one is not None:
            kept, n = one["changed"]["n"] - one["changed"]["hits"], one["changed"]["n"]
            yield Bar(
                f"{name}: labels of clean inputs kept", f"at least {100 * KEPT:g} %", f"{kept:,} of {n:,}",
                kept >= KEPT * n,
            )  # fmt: skip
            told = f"{one['calibration_error']:.3f} against {bare:.3f}"
            held = one["calibration_error"] <= bare + WORSE
            yield Bar(f"{name}: calibration error", f"at most {WORSE:g} more than bare", told, held)


def _membership(part: Mapping[str, Any] | None) -> Iterator[Bar]:
    if part is None:
        return
    bare, hidden = part["ways"][_NONE]["auroc"], part["ways"].get(_HIDES)
    for name in (*ANSWER, *WITH_LABEL):
        told = _area(bare[name])
        yield Bar(
            f"members by {name}: AUROC, bare", f"above {BARE_AT_LEAST}", told, bare[name]["value"] > BARE_AT_LEAST
        )
        if hidden is None:
            continue
        one, floor = hidden["auroc"][name], hidden["auroc"]["right or wrong"]
        told = _area(one)
        if name in WITH_LABEL:
            told += f"; whether the answer is right gives {floor['value']:.3f}"
        yield Bar(f"members by {name}: AUROC, {_HIDES}", f"at most {AT_MOST}", told, one["value"] <= AT_MOST)
    if hidden is not None:
        changed = hidden["changed"]
        yield Bar(f"{_HIDES}: labels changed", "none", f"{changed['hits']} of {changed['n']:,}", changed["hits"] == 0)


def _area(one: Mapping[str, Any]) -> str:
    low, high = one["interval_95"]
    return f"{one['value']:.3f} ({low:.3f} to {high:.3f})"
