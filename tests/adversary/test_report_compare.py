import json

import numpy as np
import pytest

from adversary import cli, judge, report, report_compare
from tests.adversary import samples


def share(hits, n):
    return judge.share(np.arange(n) < hits)


def test_a_difference_has_newcombes_interval():
    """Newcombe 1998, table II, (a): 56/70 - 48/80, method 10."""
    assert report_compare.difference(share(48, 80), share(56, 70)) == "+20.0 (+5.2 to +33.4)"
    assert report_compare.difference(share(0, 0), share(1, 2)) == "-"


def test_rows_pair_attacks_by_title():
    a = samples.document()
    b = samples.document(attacks=(samples.part("walk", **samples.PGD), samples.part("new")))
    rows = report_compare.rows(a, b)
    assert [row[0] for row in rows] == ["walk", "honest: right, noticed"]
    assert rows[0][1:3] == ("0.0 %", "25.0 %")
    assert report_compare.notes(a, b) == [
        "They differ in nothing but what was found.",
        "Only in the first: pgd <eps>.",
        "Only in the second: new.",
    ]


def test_what_else_differs_is_said():
    other = samples.document(seeds=(1,), model=report.ModelPart(name="mnist", version="", onnx_sha256="x"))
    assert report_compare.notes(samples.document(), other) == ["They differ in: model, seeds."]


@pytest.fixture
def files(tmp_path):
    for name, made in (("a", samples.document()), ("b", samples.document(code_sha256="z"))):
        (tmp_path / f"{name}.json").write_text(report.dump(made))
    return [str(tmp_path / "a.json"), str(tmp_path / "b.json")]


def test_the_command_as_a_table(files, capsys):
    assert cli.main(["compare", *files]) == 0
    assert "They differ in: adversary's code." in capsys.readouterr().out


def test_the_command_as_json(files, capsys):
    assert cli.main(["compare", *files, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["rows"]) == 3


def test_what_is_no_report_is_said(tmp_path, capsys):
    (tmp_path / "x.json").write_text("[]")
    assert cli.main(["compare", str(tmp_path / "x.json"), str(tmp_path / "x.json")]) == 2
    assert "not a report" in capsys.readouterr().err
