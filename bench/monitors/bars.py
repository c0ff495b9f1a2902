"""What was asked for, beside what was measured."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from bench.detection.bars import Bar
from bench.detection.fitted import BUDGET
from bench.monitors.document import WHOLE
from bench.monitors.thefts import OUT_OF_PLACE
from bench.monitors.traffic import ASKED

_BEFORE, _QUERIES, _SHARE = 0.99, 100, 0.05
_OARS_SUCCESS = 0.04
_DETECTED = {"sybil-1": 0.95, "sybil-10": 0.95, "sybil-100": 0.80, "hidden": 0.95}
_ALARMS = 0.001
_NOTICED = 0.95
_WORDS = {
    "before": "attacks flagged before they succeed",
    "before_of_searching": "the same, of those that need more than 10 queries on the bare victim",
}


def judged(found: Mapping[str, Any]) -> list[Bar]:
    """All that the document can tell of."""
    return [*_alone(found), *_extraction(found), *_whole(found)]


def _alone(found: Mapping[str, Any]) -> list[Bar]:
    return [*_evasion(found), *_oars(found), *_detected(found), *_benign(found)]


def _whole(found: Mapping[str, Any]) -> Iterator[Bar]:
    """The same with detectors beside the monitors."""
    for bar in _alone({name: found[section] for section, name in WHOLE.items() if section in found}):
        data, what = bar.what.split(": ", 1)
        yield replace(bar, what=f"{data}, detectors beside: {what}")
    for data, part in _parts(found, "whole-benign"):
        for kind in ASKED:
            if kind in part:
                least = part[kind]["flagged"]["interval_95"][0]
                told = f"{percent(part[kind]['flagged']['rate'])} of {part[kind]['queries']:,} rows"
                what = f"{data}, detectors beside: {kind}: refused by detectors alone"
                yield Bar(what, f"{percent(BUDGET)} not below the interval", told, least <= BUDGET)


def _parts(found: Mapping[str, Any], section: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from found.get(section, {}).items()


def _evasion(found: Mapping[str, Any]) -> Iterator[Bar]:
    for data, part in _parts(found, "evasion"):
        for which, words in _WORDS.items():
            hits, n = (sum(one[which][key] for one in part.values()) for key in ("hits", "n"))
            worst = min(part, key=lambda name: part[name][which]["rate"] or 0.0)
            told = f"{percent(hits / max(n, 1))} of {n} (worst: {worst}, {percent(part[worst][which]['rate'])})"
            yield Bar(f"{data}: {words}", f"at least {percent(_BEFORE)}", told, hits >= _BEFORE * n)
        late = max(part, key=lambda name: part[name]["queries_to_detection"] or float("inf"))
        at = part[late]["queries_to_detection"]
        told = f"at most {at:,.0f} ({late})" if at is not None else f"never ({late})"
        held = at is not None and at <= _QUERIES
        yield Bar(f"{data}: median queries to detection, each attack", f"at most {_QUERIES}", told, held)
        shares = {name: one["share_of_needed"] for name, one in part.items() if one["needed"] is not None}
        dear = max(shares, key=lambda name: shares[name] or 0.0, default="none")
        told = f"at most {percent(shares.get(dear))} ({dear})"
        held = all(share is not None and share <= _SHARE for share in shares.values())
        yield Bar(f"{data}: of the queries needed on the bare victim", f"at most {percent(_SHARE)}", told, held)


def _oars(found: Mapping[str, Any]) -> Iterator[Bar]:
    for data, part in _parts(found, "adaptive"):
        for way, cells in part.items():
            if way in _DETECTED:
                continue
            hits, n = (sum(one["success"][key] for one in cells.values()) for key in ("hits", "n"))
            at_once = sum(one["at_once"]["hits"] for one in cells.values())
            told = f"{percent(hits / max(n, 1))} of {n} ({at_once} of them within 10 queries)"
            yield Bar(
                f"{data}: OARS, {way}: success", f"at most {percent(_OARS_SUCCESS)}", told, hits <= _OARS_SUCCESS * n
            )


def _detected(found: Mapping[str, Any]) -> Iterator[Bar]:
    for data, part in _parts(found, "adaptive"):
        for way, least in _DETECTED.items():
            cells = part.get(way, {})
            if cells:
                worst = min(cells, key=lambda name: cells[name]["detected"]["rate"] or 0.0)
                told = f"{percent(cells[worst]['detected']['rate'])} ({worst})"
                held = all(one["detected"]["rate"] >= least for one in cells.values())
                yield Bar(f"{data}: {way}: detected, each attack", f"at least {percent(least)}", told, held)


def _benign(found: Mapping[str, Any]) -> Iterator[Bar]:
    for data, part in _parts(found, "benign"):
        for kind in ASKED:
            if kind in part:
                one = part[kind]
                alarms, hostile = one["alarms"]["hits"], one["hostile"]["hits"]
                told = f"{alarms} of {one['callers']:,} suspect or refused, {hostile} hostile"
                held = one["alarms"]["rate"] <= _ALARMS and not hostile
                yield Bar(
                    f"{data}: {kind}: false alarms", f"at most {percent(_ALARMS)} of callers, none hostile", told, held
                )


def _extraction(found: Mapping[str, Any]) -> Iterator[Bar]:
    for data, part in _parts(found, "extraction"):
        for name, one in part["thieves"].items():
            if one["published"] is not None:
                at = one["queries_to_detection"]
                told = f"{at:,.0f} at the median, {one['worst']:,} at most" if at is not None else "never"
                held = one["within_published"]["hits"] == one["within_published"]["n"]
                yield Bar(f"{data}: {name}: queries to detection", f"at most {one['published']} (PRADA)", told, held)
            if name in OUT_OF_PLACE:
                told, held = percent(one["within_1000"]["rate"]), one["within_1000"]["rate"] >= _NOTICED
                yield Bar(f"{data}: {name}: flagged within 1,000 queries", f"at least {percent(_NOTICED)}", told, held)


def percent(share: float | None) -> str:
    """For readers."""
    return "nothing" if share is None else f"{100 * share:.3g} %"
