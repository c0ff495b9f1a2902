"""The page: one HTML file without external assets, readable on a phone, in light and dark, and on paper."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from adversary.attack import Array
from demo.table import cost, count, per_cent

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --ground: #ffffff; --card: #f4f6f8; --line: #d5dae0;
        --good: #0a6b2d; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --dim: #9aa4b0; --ground: #14171b; --card: #1d2127; --line: #333a43;
          --good: #6fd08c; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: var(--ground); color: var(--ink);
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
p { max-width: 44rem; } .dim, figcaption { color: var(--dim); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; vertical-align: top; padding: .35rem .5rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td { white-space: nowrap; } td:first-child { white-space: normal; min-width: 7rem; }
small { display: block; color: var(--dim); font-size: .8rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: .8rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem;
        display: flex; gap: .7rem; break-inside: avoid; }
figure { margin: 0; flex: 1 1 0; min-width: 0; }
figure img { width: 100%; max-width: 8rem; height: auto; aspect-ratio: 1; image-rendering: pixelated; display: block; }
figcaption { font-size: .8rem; line-height: 1.3; margin-top: .3rem; overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem; overflow-x: auto;
      font-size: .85rem; }
@media print { .scroll { overflow: visible; } pre { white-space: pre-wrap; } }
"""

_INTRO = """<p>A small convolutional network for handwritten digits ({source}) was served twice: bare, and behind Guard
with every stage enforced. Both got the same clean traffic and the same attacks, over gRPC. Rates come with their 95 %
Wilson intervals.</p>"""
_LEGEND = """<p class="dim">Success: answered, wrongly, within the perturbation that counts; a refusal is no success.
Detected: of the attacks that fool the bare model, those of which Guard refused a query. Purified: what fools the bare
model, through the median filter and one bit per pixel, sent to it again.</p>"""
_CAVEAT = """<p>None of these attackers knows of Guard or adapts to it. Feature squeezing alone falls to a white-box
attacker who does (He et al. 2017, arXiv:1706.04701), and fingerprints to one who tunes his steps to what is accepted
(OARS, arXiv:2303.06280).</p>"""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One picture of a card. image: (28, 28) in [0, 1]; good: whether its caption is good news, None: neither."""

    image: Array
    title: str
    caption: str
    good: bool | None = None


Card = tuple[Shot, ...]


def png(image: Array) -> str:
    """(H, W) in [0, 1] -> a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shot(shot: Shot) -> str:
    tone = "" if shot.good is None else f' class="{"good" if shot.good else "bad"}"'
    text = f"{shot.title}: {shot.caption}"
    return (
        f'<figure><img src="{png(shot.image)}" width="28" height="28" alt="{escape(text)}">'
        f"<figcaption>{escape(shot.title)}<br><span{tone}>{escape(shot.caption)}</span></figcaption></figure>"
    )


def _gallery(title: str, cards: Sequence[Card]) -> str:
    inside = "".join(f'<div class="card">{"".join(map(_shot, card))}</div>' for card in cards)
    return f'<h3>{escape(title)}</h3><div class="cards">{inside}</div>'


def _cell(text: str) -> str:
    """What stands in brackets at the end goes below, small."""
    main, bracket, rest = text.partition(" (")
    below = f"<small>{escape(rest.removesuffix(')'))}</small>" if bracket else ""
    return escape(main) + below


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = "".join("<tr>" + "".join(f"<td>{_cell(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _clean(clean: Mapping[str, Any]) -> str:
    rows = (
        ("answered rightly", per_cent(clean["bare_accuracy"]), per_cent(clean["guarded_accuracy"])),
        (f"refused (budget {100 * clean['budget']:g} %)", "-", per_cent(clean["refused"])),
        ("answered otherwise than bare", "-", per_cent(clean["changed_answers"])),
        ("benign callers flagged", "-", per_cent(clean["callers_flagged"])),
    )
    return _table((f"{clean['images']:,} clean test images, per cent", "bare", "guarded"), rows)


def _attacks(attacks: Sequence[Mapping[str, Any]]) -> str:
    headings = (
        "success, per cent", "bare", "guarded", "detected", "refused at query", "caller flagged at", "purified: right",
    )  # fmt: skip
    rows = [
        (
            f"{row['title']} ({row['victims']} inputs, {row['norm']} \u2264 {row['eps']:g}, {row['access']})",
            per_cent(row["bare_success"]), per_cent(row["guarded_success"]), per_cent(row["detected"]),
            count(row["queries_to_detection"]), count(row["queries_to_flagged_caller"]),
            per_cent(row["right_when_purified"]),
        )
        for row in attacks
    ]  # fmt: skip
    return _table(headings, rows)


def _paper(paper: Mapping[str, Any]) -> str:
    rows = [(title, per_cent(found)) for title, found in paper["detected"].items()]
    mean = "-" if paper["mean"] is None else f"{100 * paper['mean']:.1f}"
    rows += [("mean", mean), ("the paper (its own model, all its attacks)", f"{100 * paper['paper']:.1f}")]
    measured = per_cent(paper["false_positive_rate"]["measured"])
    rows = [("clean images", measured), *rows]
    return _table(("found at p \u2264 0.04, per cent", "detected"), rows)


def render(document: Mapping[str, Any], galleries: Mapping[str, Sequence[Card]], settings: str) -> str:
    """The whole page."""
    made = document["provenance"]
    note = f"<p><strong>Note:</strong> {escape(document['data']['note'])}.</p>" if document["data"]["note"] else ""
    intro = _INTRO.format(source=escape(document["data"]["source"]))
    parts = (
        "<h1>One model, bare and behind Guard</h1>", intro, note,
        "<h2>Clean traffic</h2>", _clean(document["clean"]),
        f'<p class="dim">Latency of one image, guarded over bare: {escape(cost(document["latency"]))}.</p>',
        "<h2>Attacks</h2>", _attacks(document["attacks"]), _LEGEND, _CAVEAT,
        "<h2>Feature squeezing beside its paper</h2>", _paper(document["paper"]),
        f'<p class="dim">{escape(document["paper"]["source"])}.</p>',
        "<h2>Examples</h2>", *(_gallery(title, cards) for title, cards in galleries.items()),
        "<h2>Settings of the guarded endpoint</h2>", f"<pre>{escape(settings)}</pre>",
        "<h2>How it was made</h2>", f"<pre>{escape(json.dumps(made, indent=2))}</pre>",
    )  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,"><title>Guard: the demo</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
