"""Attacks that are no evasions, in words and cells: what was copied, who was told apart, what was rebuilt."""

from collections.abc import Iterator
from dataclasses import dataclass

from adversary.report import Document, Estimate, ExtractionPart, InversionPart, MembershipPart, Watched
from adversary.report_text import number, per_cent

COPIED = "What was copied"
_NOTICED = ("noticed", "first noticed at row", "rows noticed")


@dataclass(frozen=True, slots=True)
class Section:
    """One table, and what a reader must know to read it."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


def sections(document: Document) -> Iterator[Section]:
    """Of the goals that the campaign has."""
    if document.extractions:
        yield Section(
            COPIED,
            ("attack", *_both("agreement", "task accuracy"), "rows answered, guarded", *_NOTICED),
            tuple(map(_copied, document.extractions)),
            "Agreement: the last copy labels test inputs that the thief has never seen as the undefended model does. "
            "Task accuracy: it labels them rightly; the model itself does so in "
            f"{per_cent(document.extractions[0].control.model_accuracy)} per cent.",
        )
    if document.memberships:
        yield Section(
            "Who was told apart",
            ("attack", *_both("AUROC", "advantage", "members found at 1 % false"), *_NOTICED),
            tuple(map(_inferred, document.memberships)),
            "Half of the candidates are inputs that the model learned from. AUROC 0.5 and advantage 0 are chance. "
            "Advantage: true- less false-positive rate at the attack's own threshold.",
        )
    if document.inversions:
        yield Section(
            "What was rebuilt",
            ("attack", *_both("recognised", "nearest", "answered as wanted"), *_NOTICED),
            tuple(map(_inverted, document.inversions)),
            "Recognised: a network fitted on real inputs, which the attack never saw, sees the class wanted. Nearest: "
            "of the means of real inputs by class, the wanted class's correlates most with what was rebuilt.",
        )


def _both(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}, {side}" for name in names for side in ("bare", "guarded"))


def _copied(part: ExtractionPart) -> tuple[str, ...]:
    a, b = part.control, part.guarded
    return (
        f"{part.title} ({part.budget:,} queries; {a.agreement.n:,} inputs judged by)",
        *map(per_cent, (a.agreement, b.agreement, a.task_accuracy, b.task_accuracy)),
        number(b.answered),
        *_seen(b.watched),
    )


def _inferred(part: MembershipPart) -> tuple[str, ...]:
    a, b = part.control, part.guarded
    return (
        f"{part.title} ({part.budget:,} queries a candidate; {a.members:,} members, {a.outsiders:,} others)",
        *map(estimate, (a.auroc, b.auroc, a.advantage, b.advantage)),
        *map(per_cent, (a.tpr_at_1_fpr, b.tpr_at_1_fpr)),
        *_seen(b.watched),
    )


def _inverted(part: InversionPart) -> tuple[str, ...]:
    a, b = part.control, part.guarded
    return (
        f"{part.title} ({part.budget:,} queries a class; {a.wanted:,} rebuilt)",
        *map(per_cent, (a.recognised, b.recognised, a.nearest, b.nearest, a.answered, b.answered)),
        *_seen(b.watched),
    )


def _seen(watched: Watched) -> tuple[str, ...]:
    return (
        per_cent(watched.noticed),
        number(watched.queries_to_detection),
        per_cent(watched.flagged_queries),
    )


def estimate(value: Estimate) -> str:
    """0.74 (0.71 to 0.77)."""
    low, high = value.interval_95
    return f"{value.value:.2f} ({low:.2f} to {high:.2f})"
