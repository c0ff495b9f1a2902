"""The report as a page, for a reader who was not there."""

import json
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from adversary.attack import REFUSED, Array
from adversary.campaign import TargetName
from adversary.judge import Evidence
from adversary.judge_document import Judged, Rebuilt
from adversary.report import Attacked, AttackPart, Document
from adversary.report_goals import COPIED, sections
from adversary.report_page import Card, Shot, gallery, page, table
from adversary.report_plots import bars, copies, curves
from adversary.report_text import COST_HEADINGS, HEADINGS, HONEST_HEADINGS, cost, families, honest, row, summary
from adversary.runner import NEVER

_SHOWN = 3  # examples an attack
_IMAGE = (2, 3)  # axes of what can be shown as a picture
_BY_QUERIES = frozenset({"scores", "labels"})

_RATES = "Per cent, with 95 % intervals (Wilson; medians and estimates: bootstrap)."
_KEY = (
    f'<p class="dim"><span class="key bare"></span>bare<span class="key guarded"></span>guarded{{more}}. {_RATES}</p>'
)
_NOTICED = '<span class="key noticed"></span>noticed on the guarded endpoint'
_TERMS = """<p class="dim">Success: the endpoint answered the attack's last input, asked afresh, wrongly, and the
perturbation is within its bound; a refusal is no success. Attacked: victims answered rightly as they are. Noticed: a
call was refused, or flagged in Guard's audit log. Robust: of all victims, answered rightly and not attacked with
success. A row is one input; a call may carry many.</p>"""


def render(judged: Judged) -> str:
    """The whole page."""
    document = judged.document
    parts = [
        f"<h1>Campaign {escape(document.campaign)}: one model, bare and guarded</h1>",
        f"<p>{escape(document.description)}</p>",
        _summary(document),
        _doubts(document),
        *_evasions(document),
        *_goals(document),
        "<h2>What honest callers paid</h2>",
        table(HONEST_HEADINGS, honest(document)),
        *_costs(document),
        *_examples(judged),
        "<h2>The attacks</h2>",
        _sources(document),
        "<h2>How it was made</h2>",
        *_made(document),
    ]
    return page(f"Campaign {document.campaign}", parts)


def _evasions(document: Document) -> list[str]:
    if not document.attacks:
        return []
    return [
        "<h2>What got through</h2>",
        _KEY.format(more=""),
        f'<div class="plot">{bars(document.attacks)}</div>',
        _attacks(document),
        _TERMS,
        *_curves([attack for attack in document.attacks if attack.access in _BY_QUERIES]),
    ]


def _costs(document: Document) -> list[str]:
    if not document.attacks:
        return []
    return [
        "<h2>What it takes</h2>",
        table(COST_HEADINGS, [cost(attack) for attack in document.attacks]),
        '<p class="dim">Medians. Cost: gradients taken, or rows sent. l2, linf: of successful perturbations.</p>',
    ]


def _goals(document: Document) -> list[str]:
    parts = []
    for section in sections(document):
        note = f'<p class="dim">{escape(section.note)} {_RATES}</p>'
        parts += [f"<h2>{escape(section.title)}</h2>", table(section.headings, section.rows), note]
        if section.title == COPIED:
            drawn = "".join(f"<div><h3>{escape(part.title)}</h3>{copies(part)}</div>" for part in document.extractions)
            key = _KEY.format(more=f"{_NOTICED}; a line a seed")
            parts += ["<h3>Agreement by rows sent</h3>", key, f'<div class="cards">{drawn}</div>']
    return parts


def _summary(document: Document) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in summary(document))}</dl>"


def _doubts(document: Document) -> str:
    said = [doubt.text for doubt in document.warnings]
    said += [f"{attack.title}: {doubt.text}" for attack in document.all_attacks for doubt in attack.warnings]
    if not said:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in said)
    return f'<div class="care"><h2>To be read with care</h2><ul>{items}</ul></div>'


def _attacks(document: Document) -> str:
    rows: list[Sequence[str]] = []
    for family, attacks in families(document):
        ids = dict.fromkeys(f"{technique.name} {technique.id}" for a in attacks for technique in a.atlas)
        rows += [(f"{family} \u2014 MITRE ATLAS: {', '.join(ids)}",), *map(row, attacks)]
    return table(HEADINGS, rows)


def _curves(attacks: Sequence[AttackPart]) -> list[str]:
    if not attacks:
        return []
    drawn = "".join(f"<div><h3>{escape(attack.title)}</h3>{curves(attack)}</div>" for attack in attacks)
    note = '<p class="dim">Reached: answered wrongly within the bound at some query, whatever came afterwards.</p>'
    return ["<h2>How fast</h2>", _KEY.format(more=_NOTICED), f'<div class="cards">{drawn}</div>', note]


def _examples(judged: Judged) -> list[str]:
    shown = {
        attack.title: _cards(judged.inputs[attack.title], judged.evidence[attack.title])
        for attack in judged.document.attacks
        if judged.inputs[attack.title].ndim - 1 in _IMAGE
    }
    shown |= {
        title: _rebuilt(sides) for title, sides in judged.rebuilt.items() if sides["control"].x.ndim - 1 in _IMAGE
    }
    galleries = [gallery(title, cards) for title, cards in shown.items() if cards]
    return ["<h2>Examples</h2>", *galleries] if galleries else []


def _cards(x: Array, sides: Mapping[TargetName, Evidence]) -> list[Card]:
    """Victims that fall bare: first those that the guarded endpoint withstands."""
    bare, guarded = sides["control"], sides["guarded"]
    stopped = np.flatnonzero(bare.success & ~guarded.success)[:_SHOWN]
    passed = np.flatnonzero(bare.success & guarded.success)[: max(1, _SHOWN - len(stopped))]
    return [_card(x, bare, guarded, int(i)) for i in (*stopped, *passed)]


def _rebuilt(sides: Mapping[TargetName, Rebuilt]) -> list[Card]:
    """The first of each class, bare and guarded."""
    bare, guarded = sides["control"], sides["guarded"]
    first = [int(np.flatnonzero(bare.y == label)[0]) for label in np.unique(bare.y)]
    return [(_mirror(bare, i, "bare"), _mirror(guarded, i, "guarded")) for i in first]


def _mirror(side: Rebuilt, i: int, name: str) -> Shot:
    good = side.recognised[i] != side.y[i]
    return Shot(side.x[i], f"{name}, class {side.y[i]}", f"seen as {side.recognised[i]}", bool(good))


def _card(x: Array, bare: Evidence, guarded: Evidence, i: int) -> Card:
    return (
        Shot(x[i], "clean", f"answer {bare.clean[i]}"),
        Shot(bare.x_adv[i], f"bare, l2 {bare.l2[i]:.1f}", f"answer {bare.adversarial[i]}", good=False),
        Shot(guarded.x_adv[i], f"guarded, l2 {guarded.l2[i]:.1f}", _said(guarded, i), bool(not guarded.success[i])),
    )


def _said(guarded: Evidence, i: int) -> str:
    answer = "refused" if guarded.adversarial[i] == REFUSED else f"answer {guarded.adversarial[i]}"
    at = guarded.flagged_at[i]
    return f"{answer}; never noticed" if at == NEVER else f"{answer}; noticed at row {at:,}"


def _sources(document: Document) -> str:
    rows = [
        (f"{a.title} ({a.source})", a.family, a.access, a.origin, _options(a), ", ".join(t.id for t in a.atlas))
        for a in document.all_attacks
    ]
    return table(("attack", "family", "sees", "code", "options", "ATLAS"), rows)


def _options(attack: Attacked) -> str:
    return ", ".join(f"{name}: {value}" for name, value in attack.options.items()) or "-"


def _made(document: Document) -> list[str]:
    told = document.model_dump(mode="json", include=_TOLD)
    settings = document.targets.guarded.settings
    parts = []
    if settings:
        parts += ["<h3>Settings of the guarded endpoint</h3>", f"<pre>{escape(settings)}</pre>"]
    parts += ["<h3>The campaign</h3>", f"<pre>{escape(document.campaign_yaml)}</pre>"]
    parts += ["<h3>Seeds, versions, digests</h3>", f"<pre>{escape(json.dumps(told, indent=2))}</pre>"]
    if document.failures:
        rows = [(failure.unit, failure.reason) for failure in document.failures]
        parts += ["<h3>What failed</h3>", table(("unit of work", "why"), rows)]
    return parts


_TOLD = {
    "seeds",
    "identities",
    "atlas_version",
    "data",
    "model",
    "campaign_sha256",
    "overrides",
    "code_sha256",
    "versions",
    "run",
}
