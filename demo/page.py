"""The page: one HTML file without external assets, readable on a phone, in light and dark, and on paper."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from adversary.report_page import Card, gallery, page, table
from demo.table import cost, count, per_cent

_INTRO = """<p>A small convolutional network for handwritten digits ({source}) was served twice: bare, and behind Guard
with every stage enforced. Both got the same clean traffic and the same attacks, over gRPC. Rates come with their 95 %
Wilson intervals.</p>"""
_LEGEND = """<p class="dim">Success: answered, wrongly, within the perturbation that counts; a refusal is no success.
Detected: of the attacks that fool the bare model, those of which Guard refused a query. Purified: what fools the bare
model, through the median filter and one bit per pixel, sent to it again.</p>"""
_CAVEAT = """<p>None of these attackers knows of Guard or adapts to it. Feature squeezing alone falls to a white-box
attacker who does (He et al. 2017, arXiv:1706.04701), and fingerprints to one who tunes his steps to what is accepted
(OARS, arXiv:2303.06280).</p>"""


def _clean(clean: Mapping[str, Any]) -> str:
    rows = (
        ("answered rightly", per_cent(clean["bare_accuracy"]), per_cent(clean["guarded_accuracy"])),
        (f"refused (budget {100 * clean['budget']:g} %)", "-", per_cent(clean["refused"])),
        ("answered otherwise than bare", "-", per_cent(clean["changed_answers"])),
        ("benign callers flagged", "-", per_cent(clean["callers_flagged"])),
    )
    return table((f"{clean['images']:,} clean test images, per cent", "bare", "guarded"), rows)


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
    return table(headings, rows)


def _paper(paper: Mapping[str, Any]) -> str:
    rows = [(title, per_cent(found)) for title, found in paper["detected"].items()]
    mean = "-" if paper["mean"] is None else f"{100 * paper['mean']:.1f}"
    rows += [("mean", mean), ("the paper (its own model, all its attacks)", f"{100 * paper['paper']:.1f}")]
    measured = per_cent(paper["false_positive_rate"]["measured"])
    rows = [("clean images", measured), *rows]
    return table(("found at p \u2264 0.04, per cent", "detected"), rows)


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
        "<h2>Examples</h2>", *(gallery(title, cards) for title, cards in galleries.items()),
        "<h2>Settings of the guarded endpoint</h2>", f"<pre>{escape(settings)}</pre>",
        "<h2>How it was made</h2>", f"<pre>{escape(json.dumps(made, indent=2))}</pre>",
    )  # fmt: skip
    return page("Guard: the demo", parts)
