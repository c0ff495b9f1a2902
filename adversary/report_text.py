"""A report in words and cells: what the page, the Markdown and the terminal all show."""

from collections import Counter
from collections.abc import Iterator, Sequence

from adversary.report import (
    AttackPart,
    Document,
    ExtractionPart,
    Honest,
    InversionPart,
    Median,
    MembershipPart,
    Share,
    Side,
)

NOTHING = "-"
HEADINGS = ("attack", "success, bare", "success, guarded", "noticed", "first noticed at row", "rows noticed", "robust")
_MANY = 100
_LISTED = 6


def per_cent(share: Share) -> str:
    """98.0 (92.9 to 99.4)."""
    if share.rate is None:
        return NOTHING
    low, high = (100 * bound for bound in share.interval_95)
    return f"{100 * share.rate:.1f} ({low:.1f} to {high:.1f})"


def briefly(share: Share) -> str:
    """98.0 %."""
    return NOTHING if share.rate is None else f"{100 * share.rate:.1f} %"


def number(median: Median) -> str:
    """412 (310 to 520); small ones with two decimals."""
    if median.median is None or median.interval_95 is None:
        return NOTHING
    low, high = median.interval_95
    return f"{_digits(median.median)} ({_digits(low)} to {_digits(high)})"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= _MANY else f"{value:,.2f}"


def bound(attack: AttackPart) -> str:
    """Linf <= 0.3, 5,000 queries."""
    size = "" if attack.norm == "none" else f"{attack.norm} \u2264 {attack.eps:g}, "
    if attack.access == "nothing":
        return f"{size}no query"
    unit = "gradients" if attack.access == "gradients" else "queries"
    return f"{size}{attack.budget:,} {unit if attack.budget > 1 else unit[:-1]}"


def row(attack: AttackPart) -> tuple[str, ...]:
    """Under HEADINGS."""
    guarded = attack.guarded
    return (
        f"{attack.title} ({bound(attack)}; {guarded.success.n} attacked)",
        per_cent(attack.control.success),
        per_cent(guarded.success),
        per_cent(guarded.noticed),
        number(guarded.queries_to_detection),
        per_cent(guarded.flagged_queries),
        per_cent(guarded.robust_accuracy),
    )


def families(document: Document) -> list[tuple[str, list[AttackPart]]]:
    """Attacks by family, in the campaign's order."""
    order = dict.fromkeys(attack.family for attack in document.attacks)
    return [(family, [attack for attack in document.attacks if attack.family == family]) for family in order]


COST_HEADINGS = ("attack", "cost, bare", "row of success, bare", "row of success, guarded", "l2, bare", "linf, bare")


def cost(attack: AttackPart) -> tuple[str, ...]:
    """Under COST_HEADINGS: medians."""
    bare, guarded = attack.control, attack.guarded
    return (
        attack.title,
        number(bare.cost),
        number(bare.queries_to_success),
        number(guarded.queries_to_success),
        number(bare.l2),
        number(bare.linf),
    )


HONEST_HEADINGS = ("honest callers", "inputs", "answered rightly", "refused", "noticed", "callers noticed")


def honest(document: Document) -> list[tuple[str, ...]]:
    """Under HONEST_HEADINGS."""
    on = document.honest
    named = (
        ("bare, alone", on.control.alone),
        ("guarded, alone", on.guarded.alone),
        ("bare, beside attacks", on.control.beside),
        ("guarded, beside attacks", on.guarded.beside),
    )
    return [(name, f"{part.images:,}", *_honest(part)) for name, part in named if part.images]


def _honest(part: Honest) -> tuple[str, ...]:
    return tuple(map(per_cent, (part.clean_accuracy, part.refused, part.flagged, part.callers_flagged)))


# --- in short


def summary(document: Document) -> list[tuple[str, str]]:
    """For one who was not there: what was attacked, with what, what got through, what was noticed, what it cost."""
    return [
        ("Attacked", _attacked(document)),
        ("With", _with(document)),
        ("Got through", _through(document)),
        ("Noticed", _noticed(document)),
        ("Honest callers", _paid(document)),
    ]


def _attacked(document: Document) -> str:
    guarded, control = document.targets.guarded, document.targets.control
    behind = f"at {guarded.address}" if guarded.address else "served by a Guard of its own (settings below)"
    bare = f"at {control.address}" if control.address else "served with no defence"
    return f"the model \u201c{document.model.name}\u201d, {behind}; and, as the control, the same model {bare}."


def _with(document: Document) -> str:
    every = document.all_attacks
    kinds = ", ".join(f"{n} {family}" for family, n in Counter(attack.family for attack in every).items())
    attacks = f"{len(every)} attack{'' if len(every) == 1 else 's'}"
    victims = sum(attack.guarded.victims for attack in document.attacks)
    on = f" on {victims:,} victims in all" if victims else ""
    return f"{attacks} ({kinds}){on}, from {document.data.source}."


def _through(document: Document) -> str:
    found = [*_evasions(document), *_copies(document), *_members(document), *_inversions(document)]
    return " ".join(found) if found else "no attack was finished."


def _evasions(document: Document) -> Iterator[str]:
    if not document.attacks:
        return
    worst = max(document.attacks, key=lambda attack: attack.guarded.success.rate or 0.0)
    bare, guarded = (_range([side.success for side in sides]) for sides in _sides(document))
    most = f"most by {worst.title}: {briefly(worst.guarded.success)} of {worst.guarded.success.n}"
    yield f"bare, {bare} of attempts; guarded, {guarded}, {most}."
    reached = max(document.attacks, key=_on_the_way)
    if _on_the_way(reached) > 0:
        yield (
            f"{reached.title} was answered wrongly on its way in {briefly(reached.guarded.reached)}, "
            "more often than its last input was."
        )


def _copies(document: Document) -> Iterator[str]:
    if document.extractions:
        best = max(document.extractions, key=lambda part: part.guarded.agreement.rate or 0.0)
        bare, guarded = best.control, best.guarded
        rows = _digits(guarded.answered.median or 0.0)
        yield (
            f"The best copy made through the guarded endpoint ({best.title}, {rows} rows answered) agrees with the "
            f"model on {briefly(guarded.agreement)} of unseen inputs; made through the bare one, on "
            f"{briefly(bare.agreement)}."
        )


def _members(document: Document) -> Iterator[str]:
    if document.memberships:
        worst = max(document.memberships, key=lambda part: part.guarded.auroc.value)
        yield (
            f"What the model learned from is told apart with an AUROC of up to {worst.guarded.auroc.value:.2f} guarded "
            f"({worst.title}), {worst.control.auroc.value:.2f} bare (chance: 0.5)."
        )


def _inversions(document: Document) -> Iterator[str]:
    for part in document.inversions:
        yield (
            f"Of the classes that {part.title} rebuilt, another network recognises {briefly(part.control.recognised)} "
            f"bare, {briefly(part.guarded.recognised)} guarded."
        )


def _on_the_way(attack: AttackPart) -> int:
    """Victims reached at some query whose final input failed."""
    return attack.guarded.reached.hits - attack.guarded.success.hits


def _sides(document: Document) -> tuple[list[Side], list[Side]]:
    return [attack.control for attack in document.attacks], [attack.guarded for attack in document.attacks]


def _range(shares: Sequence[Share]) -> str:
    rates = [share.rate for share in shares if share.rate is not None]
    if not rates:
        return NOTHING
    low, high = f"{100 * min(rates):.0f}", f"{100 * max(rates):.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def _noticed(document: Document) -> str:
    seen = [attack.guarded.noticed for attack in document.attacks]
    seen += [part.guarded.watched.noticed for part in _others(document)]
    if not seen:
        return NOTHING
    found = [
        (attack.guarded.queries_to_detection.median, attack.title)
        for attack in document.attacks
        if attack.access in {"scores", "labels"}
    ]
    found += [(part.guarded.watched.queries_to_detection.median, part.title) for part in _others(document)]
    at = [(row, title) for row, title in found if row is not None]
    when = ", ".join(f"{title} at row {_digits(row)}" for row, title in at)
    if len(at) > _LISTED:
        (low, soonest), (high, latest) = min(at), max(at)
        when = f"between row {_digits(low)} ({soonest}) and row {_digits(high)} ({latest})"
    first = f" First, at the median: {when}." if at else ""
    return f"{_range(seen)} of the attacks on the guarded endpoint.{first}"


def _others(document: Document) -> Sequence[ExtractionPart | MembershipPart | InversionPart]:
    return (*document.extractions, *document.memberships, *document.inversions)


def _paid(document: Document) -> str:
    bare, guarded = document.honest.control.alone, document.honest.guarded.alone
    if not guarded.images:
        return "not measured."
    beside = document.honest.guarded.beside
    also = f" Beside attacks, {briefly(beside.flagged)} of {beside.images:,}." if beside.images else ""
    callers = guarded.callers_flagged
    return (
        f"of {guarded.images:,} clean inputs {briefly(bare.clean_accuracy)} were answered rightly bare, "
        f"{briefly(guarded.clean_accuracy)} guarded; {briefly(guarded.flagged)} were noticed, "
        f"{briefly(guarded.refused)} refused; {callers.hits} of {callers.n} callers were taken for attackers.{also}"
    )
