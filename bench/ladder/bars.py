"""What was asked for, beside what was measured: agreement that thieves out of place lose, and clean accuracy."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.detection.bars import Bar
from bench.ladder.document import DEFAULT, OUT_OF_PLACE, RECOMMENDED

_POINTS, _CLEAN = 20.0, 0.5


def judged(found: Mapping[str, Any]) -> list[Bar]:
    """All that the document can tell of. Thieves of the victim's own kind have no bar: they are shown."""
    return [*_thieves(found), *_clean(found)]


def _thieves(found: Mapping[str, Any]) -> Iterator[Bar]:
    for one in found["thieves"]:
        asked = one["arm"] == RECOMMENDED or (one["arm"] == DEFAULT and one["way"] != "recovers")
        if not asked or one["queried"] not in OUT_OF_PLACE:
            continue
        gap = one["lost"]
        bare = 100.0 * one["agreement"]["rate"] + gap["points"]
        measured = f"{gap['points']:.1f} ({gap['low']:.1f} to {gap['high']:.1f}), of {bare:.1f} %"
        yield Bar(f"{name(one)}: agreement lost", f"at least {_POINTS:.0f} points", measured, gap["points"] >= _POINTS)


def _clean(found: Mapping[str, Any]) -> Iterator[Bar]:
    for one in found["honest"]:
        what = f"{one['kind']} callers, {one['arm']}: "
        if one["points"] is None:
            worst = 100.0 * one["changed"]["rate"]
            measured = f"{one['changed']['hits']:,} of {one['rows']:,} ({worst:.2f} %)"
            yield Bar(f"{what}rows with another label, or none", f"at most {_CLEAN} %", measured, worst <= _CLEAN)
        else:
            measured = f"{one['points']:+.2f} points ({one['low']:+.2f} to {one['high']:+.2f})"
            held = abs(one["points"]) <= _CLEAN
            yield Bar(f"{what}accuracy", f"unchanged within {_CLEAN} points", measured, held)


def name(one: Mapping[str, Any]) -> str:
    """Of a thief's run, in words."""
    parts = [one["queried"], one["way"], one["arm"]]
    if one["patient"]:
        parts.append("patient")
    if one["accounts"] > 1:
        parts.append(f"{one['accounts']} accounts")
    if one["seed"]:
        parts.append(f"seed {one['seed']}")
    return ", ".join(parts)
