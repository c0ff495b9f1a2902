"""A report in words and cells: what the page, the Markdown and the terminal all show."""

from collections.abc import Sequence

from adversary.report import AttackPart, Document, Honest, Median, Share, Side

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
    unit = "gradients" if attack.access == "gradients" else "queries"
    return f"{attack.norm} \u2264 {attack.eps:g}, {attack.budget:,} {unit if attack.budget > 1 else unit[:-1]}"


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
    kinds = ", ".join(f"{len(attacks)} {family}" for family, attacks in families(document))
    victims = sum(attack.guarded.victims for attack in document.attacks)
    attacks = f"{len(document.attacks)} attack{'' if len(document.attacks) == 1 else 's'}"
    return f"{attacks} ({kinds}) on {victims:,} victims in all, from {document.data.source}."


def _through(document: Document) -> str:
    if not document.attacks:
        return "no attack was finished."
    worst = max(document.attacks, key=lambda attack: attack.guarded.success.rate or 0.0)
    bare, guarded = (_range([side.success for side in sides]) for sides in _sides(document))
    most = f"most by {worst.title}: {briefly(worst.guarded.success)} of {worst.guarded.success.n}"
    reached = max(document.attacks, key=_on_the_way)
    later = ""
    if _on_the_way(reached) > 0:
        later = (
            f" {reached.title} was answered wrongly on its way in {briefly(reached.guarded.reached)}, "
            "more often than its last input was."
        )
    return f"bare, {bare} of attempts; guarded, {guarded}, {most}.{later}"


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
    if not document.attacks:
        return NOTHING
    shares = _range([attack.guarded.noticed for attack in document.attacks])
    found = [
        (attack.guarded.queries_to_detection.median, attack.title)
        for attack in document.attacks
        if attack.access != "gradients" and attack.guarded.queries_to_detection.median is not None
    ]
    when = ", ".join(f"{title} at row {_digits(at)}" for at, title in found)
    if len(found) > _LISTED:
        (low, soonest), (high, latest) = min(found), max(found)
        when = f"between row {_digits(low)} ({soonest}) and row {_digits(high)} ({latest})"
    first = f" First, at the median: {when}." if found else ""
    return f"{shares} of the attacks on the guarded endpoint.{first}"


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
