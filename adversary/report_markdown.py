"""The report as Markdown: for a pull request, a ticket, a wiki."""

from collections.abc import Sequence

from adversary.report import Document
from adversary.report_goals import sections
from adversary.report_text import COST_HEADINGS, HEADINGS, HONEST_HEADINGS, cost, families, honest, row, summary


def render(document: Document) -> str:
    """The whole text."""
    parts = [f"# Campaign {document.campaign}", _plain(document.description)]
    parts += ["\n".join(f"- **{name}:** {_plain(text)}" for name, text in summary(document))]
    parts += _doubts(document)
    parts += ["Per cent with 95 % Wilson intervals; medians with 95 % bootstrap intervals."]
    for family, attacks in families(document):
        parts += [f"## {family.capitalize()}", _table(HEADINGS, [row(attack) for attack in attacks])]
    if document.attacks:
        parts += ["## What it takes", _table(COST_HEADINGS, [cost(attack) for attack in document.attacks])]
    for section in sections(document):
        parts += [f"## {section.title}", _table(section.headings, section.rows), _plain(section.note)]
    parts += ["## Honest callers", _table(HONEST_HEADINGS, honest(document))]
    parts += ["## The attacks", _attacks(document)]
    made = ", ".join(f"{name} {version}" for name, version in document.versions.items())
    seeds = ", ".join(map(str, document.seeds))
    parts += [f"Seeds {seeds}; MITRE ATLAS {document.atlas_version}; {made}; {document.run.machine}."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _doubts(document: Document) -> list[str]:
    doubts = [("", doubt) for doubt in document.warnings]
    doubts += [(f"{attack.title}: ", doubt) for attack in document.all_attacks for doubt in attack.warnings]
    if not doubts:
        return []
    return ["## To be read with care", "\n".join(f"- {_plain(about + doubt.text)}" for about, doubt in doubts)]


def _attacks(document: Document) -> str:
    rows = [
        (attack.title, attack.attack, attack.origin, ", ".join(t.id for t in attack.atlas), attack.source)
        for attack in document.all_attacks
    ]
    return _table(("title", "attack", "code", "ATLAS", "source"), rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)


def _plain(text: str) -> str:
    """What a campaign's file says is shown, never rendered."""
    escaped = text.replace("\\", "\\\\")
    for character in "|<>`*_[]":
        escaped = escaped.replace(character, f"\\{character}")
    return " ".join(escaped.split())
