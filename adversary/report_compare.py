"""Two reports side by side: what a change of the defence, or of the attacks, has done."""

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from adversary.report import Attacked, Document, Share
from adversary.report_goals import estimate
from adversary.report_text import NOTHING, briefly

Part = TypeVar("Part", bound=Attacked)
_LEVELS = ("attack", "success, guarded", "", "difference", "noticed", "", "difference")


def difference(a: Share, b: Share) -> str:
    """From a to b in points, with Newcombe's hybrid score interval (1998, method 10) from the two Wilson intervals."""
    if a.rate is None or b.rate is None:
        return NOTHING
    (low_a, high_a), (low_b, high_b) = a.interval_95, b.interval_95
    middle = b.rate - a.rate
    low = middle - math.hypot(b.rate - low_b, high_a - a.rate)
    high = middle + math.hypot(high_b - b.rate, a.rate - low_a)
    return f"{100 * middle:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def notes(a: Document, b: Document) -> list[str]:
    """What else differs, so that a difference is not taken for the defence's."""
    told = (
        ("campaign", a.campaign_sha256, b.campaign_sha256),
        ("overrides", a.overrides, b.overrides),
        ("data", a.data.sha256, b.data.sha256),
        ("model", a.model.onnx_sha256, b.model.onnx_sha256),
        ("seeds", a.seeds, b.seeds),
        ("guarded endpoint's settings", a.targets.guarded.settings_sha256, b.targets.guarded.settings_sha256),
        ("profile", a.targets.guarded.profile, b.targets.guarded.profile),
        ("versions", a.versions, b.versions),
        ("adversary's code", a.code_sha256, b.code_sha256),
    )
    differ = [name for name, left, right in told if left != right]
    lines = [f"They differ in: {', '.join(differ)}."] if differ else ["They differ in nothing but what was found."]
    for one, other, name in ((a, b, "first"), (b, a, "second")):
        only = sorted({attack.title for attack in one.all_attacks} - {attack.title for attack in other.all_attacks})
        lines += [f"Only in the {name}: {', '.join(only)}."] if only else []
    return lines


def rows(a: Document, b: Document) -> list[tuple[str, ...]]:
    """Attacks that both have, by title, then honest callers."""
    found: list[tuple[str, ...]] = [
        (
            left.title,
            *_trio(left.guarded.success, right.guarded.success),
            *_trio(left.guarded.noticed, right.guarded.noticed),
        )
        for left, right in _pairs(a.attacks, b.attacks)
    ]
    found += _leaks(a, b)
    before, after = a.honest.guarded.alone, b.honest.guarded.alone
    paid = _trio(before.clean_accuracy, after.clean_accuracy), _trio(before.flagged, after.flagged)
    return [*found, ("honest: right, noticed", *paid[0], *paid[1])]


def _leaks(a: Document, b: Document) -> Iterator[tuple[str, ...]]:
    """Under the same headings: agreement, AUROC, recognised in the place of success."""
    for left, right in _pairs(a.extractions, b.extractions):
        main = _trio(left.guarded.agreement, right.guarded.agreement)
        yield (f"{left.title}: agreement", *main, *_trio(left.guarded.watched.noticed, right.guarded.watched.noticed))
    for one, other in _pairs(a.memberships, b.memberships):
        values = one.guarded.auroc, other.guarded.auroc
        main = estimate(values[0]), estimate(values[1]), f"{values[1].value - values[0].value:+.2f}"
        yield (f"{one.title}: AUROC", *main, *_trio(one.guarded.watched.noticed, other.guarded.watched.noticed))
    for was, now in _pairs(a.inversions, b.inversions):
        main = _trio(was.guarded.recognised, now.guarded.recognised)
        yield (f"{was.title}: recognised", *main, *_trio(was.guarded.watched.noticed, now.guarded.watched.noticed))


def _pairs(a: Sequence[Part], b: Sequence[Part]) -> list[tuple[Part, Part]]:
    other = {part.title: part for part in b}
    return [(part, other[part.title]) for part in a if part.title in other]


def _trio(a: Share, b: Share) -> tuple[str, str, str]:
    return briefly(a), briefly(b), difference(a, b)


def show(a: Document, b: Document, console: Console) -> None:
    """As a table."""
    table = Table(
        title=f"{a.campaign} ({a.run.finished}) and {b.campaign} ({b.run.finished}), points with 95 % intervals"
    )
    for heading in _LEVELS:
        table.add_column(heading, justify="left" if heading == "attack" else "right")
    for line in rows(a, b):
        table.add_row(*line)
    console.print(table)
    _say(notes(a, b), console)


def _say(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False)
