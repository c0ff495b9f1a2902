"""Pieces of a page: one HTML file without external assets, readable on a phone, in light and dark, and on paper."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from adversary.attack import Array
from adversary.images import planes

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --ground: #ffffff; --card: #f4f6f8; --line: #d5dae0;
        --good: #0a6b2d; --bad: #b3261e; --bare: #b35900; --guarded: #0b5cad; --noticed: #57606a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --dim: #9aa4b0; --ground: #14171b; --card: #1d2127; --line: #333a43;
          --good: #6fd08c; --bad: #ff8a80; --bare: #f0a050; --guarded: #6cb2ff; --noticed: #9aa4b0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: var(--ground); color: var(--ink);
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; }
p, ul, dl { max-width: 44rem; } .dim, figcaption { color: var(--dim); }
p, li, dd { overflow-wrap: anywhere; }
dt { font-weight: 600; } dd { margin: 0 0 .6rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; vertical-align: top; padding: .35rem .5rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td { white-space: nowrap; } td:first-child { white-space: normal; min-width: 7rem; }
tr.group td { font-weight: 600; border-bottom-color: var(--ink); padding-top: 1rem; }
small { display: block; color: var(--dim); font-size: .8rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: .8rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem;
        display: flex; gap: .7rem; break-inside: avoid; }
figure { margin: 0; flex: 1 1 0; min-width: 0; }
figure img { width: 100%; max-width: 8rem; height: auto; aspect-ratio: 1; image-rendering: pixelated; display: block; }
figcaption { font-size: .8rem; line-height: 1.3; margin-top: .3rem; overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); }
.care { border-left: .25rem solid var(--bad); padding: .1rem 0 .1rem .8rem; } .care h2 { margin-top: .5rem; }
.plot { max-width: 36rem; }
svg { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif; fill: var(--ink); }
svg .dim { fill: var(--dim); } svg .axis { stroke: var(--line); }
svg .bare { stroke: var(--bare); } svg .guarded { stroke: var(--guarded); } svg .noticed { stroke: var(--noticed); }
svg rect.bare { fill: var(--bare); } svg rect.guarded { fill: var(--guarded); }
svg path { fill: none; stroke-width: 2; } svg path.noticed { stroke-dasharray: 4 3; }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
.key { display: inline-block; width: 1rem; height: .7rem; margin: 0 .3rem 0 .8rem; }
.key.bare { background: var(--bare); } .key.guarded { background: var(--guarded); }
.key.noticed { background: none; border-top: .2rem dashed var(--noticed); height: 0; vertical-align: middle; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem; overflow-x: auto;
      font-size: .85rem; }
@media print { .scroll { overflow: visible; } pre { white-space: pre-wrap; } }
"""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One picture of a card. image: grey (H, W) or with channels, in [0, 1]; good: whether its caption is good news."""

    image: Array
    title: str
    caption: str
    good: bool | None = None


Card = tuple[Shot, ...]


def png(image: Array) -> str:
    """(H, W), (C, H, W) or (H, W, C) in [0, 1] -> a data URI."""
    pixels = np.moveaxis(planes(np.asarray(image)[None])[0], 0, -1)
    grey = pixels.shape[-1] == 1
    levels = np.rint(np.clip(pixels[..., 0] if grey else pixels, 0.0, 1.0) * 255.0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shot(shot: Shot) -> str:
    tone = "" if shot.good is None else f' class="{"good" if shot.good else "bad"}"'
    text = f"{shot.title}: {shot.caption}"
    height, width = planes(np.asarray(shot.image)[None]).shape[2:]
    return (
        f'<figure><img src="{png(shot.image)}" width="{width}" height="{height}" alt="{escape(text)}">'
        f"<figcaption>{escape(shot.title)}<br><span{tone}>{escape(shot.caption)}</span></figcaption></figure>"
    )


def gallery(title: str, cards: Sequence[Card]) -> str:
    """Cards under a heading."""
    inside = "".join(f'<div class="card">{"".join(map(_shot, card))}</div>' for card in cards)
    return f'<h3>{escape(title)}</h3><div class="cards">{inside}</div>'


def _cell(text: str) -> str:
    """What stands in brackets at the end goes below, small."""
    main, bracket, rest = text.partition(" (")
    below = f"<small>{escape(rest.removesuffix(')'))}</small>" if bracket else ""
    return escape(main) + below


def _row(cells: Sequence[str], columns: int) -> str:
    if len(cells) == 1 and columns > 1:
        return f'<tr class="group"><td colspan="{columns}">{escape(cells[0])}</td></tr>'
    return "<tr>" + "".join(f"<td>{_cell(text)}</td>" for text in cells) + "</tr>"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Its first column reads left, the others right; a row of one cell is a heading of those below."""
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = "".join(_row(row, len(headings)) for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def page(title: str, parts: Sequence[str]) -> str:
    """The whole file."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
