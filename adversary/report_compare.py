"""Two reports side by side: what a change of the defence, or of the attacks, has done."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from adversary.report import Document, Share
from adversary.report_text import NOTHING, briefly

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
        only = sorted({attack.title for attack in one.attacks} - {attack.title for attack in other.attacks})
        lines += [f"Only in the {name}: {', '.join(only)}."] if only else []
    return lines


def rows(a: Document, b: Document) -> list[tuple[str, ...]]:
    """Attacks that both have, by title, then honest callers."""
    other = {attack.title: attack for attack in b.attacks}
    pairs = [(attack, other[attack.title]) for attack in a.attacks if attack.title in other]
    found = [
        (
            left.title,
            *_trio(left.guarded.success, right.guarded.success),
            *_trio(left.guarded.noticed, right.guarded.noticed),
        )
        for left, right in pairs
    ]
    before, after = a.honest.guarded.alone, b.honest.guarded.alone
    paid = _trio(before.clean_accuracy, after.clean_accuracy), _trio(before.flagged, after.flagged)
    return [*found, ("honest: right, noticed", *paid[0], *paid[1])]


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
