"""Figures by hand; small slices in earnest, each beside the victim without protection or a protection that fails."""

import numpy as np
import pytest

from adversary.evasion import square as plain_square
from bench.answers import __main__ as command
from bench.answers import bars, climbing, labels, membership, served, square, table, wire
from bench.answers.served import BARE, way
from bench.answers.square import AAA, Row
from bench.detection.run import made
from guard.outputs.aaa import AAA as Bent


@pytest.fixture(scope="module")
def objects():
    return served.subject("cifar10").part(slice(0, 120))


class Sloped:
    """Two classes; the first loses as the first channel gets brighter."""

    def __init__(self):
        self.asked = []

    def probabilities(self, x):
        self.asked += list(x.copy())
        logit = 4.0 - 40.0 * (np.asarray(x, np.float64)[:, 0].mean(axis=(1, 2)) - 0.5)
        p = 1.0 / (1.0 + np.exp(-logit))
        return np.stack([p, 1.0 - p], axis=1)


@pytest.mark.parametrize("eps", [0.05, 0.2])
def test_the_plain_rule_is_square_as_it_is(eps):
    x, y = np.full((1, 3, 8, 8), 0.5, np.float32), np.zeros(1, np.int64)
    ours, theirs = Sloped(), Sloped()
    mine = climbing.attack(ours.probabilities, x, y, climbing.Rule, eps=eps, budget=40, seed=3)
    other = plain_square.attack(theirs, x, y, eps=eps, budget=40, rng=np.random.default_rng([3, 0]))
    np.testing.assert_array_equal(ours.asked, theirs.asked)
    assert (mine.queries[0] or 40) == other.queries[0]
    assert bool(mine.queries[0] > 0) is (eps > 0.1)


def test_rules_by_hand():
    down, up, both = (climbing.RULES[name](2.0) for name in ("down", "up", "both"))
    assert [down.keeps(1.0, 2.0), down.keeps(2.0, 1.0)] == [True, False]
    assert [up.keeps(2.0, 1.0), up.keeps(1.0, 2.0), up.keeps(1.0, 4.5)] == [True, False, True]
    assert [both.keeps(1.0, 2.0), both.keeps(5.5, 2.0), both.keeps(5.5, 2.0)] == [True, False, True]


def test_who_knows_the_period_undoes_the_bend():
    margin = np.random.default_rng(0).uniform(0.0, 12.0, 200)
    shown, rule = Bent(period=4.0).margin(margin), climbing.RULES["undone"](4.0)
    assert np.abs(shown - margin).max() > 3.0
    np.testing.assert_allclose([rule.seen(m) for m in shown], margin, atol=1e-9)


def test_exact_intervals():
    assert labels.exact(0, 100) == pytest.approx((0.0, 0.0362167), abs=1e-6)
    assert labels.exact(5, 10) == pytest.approx((0.1870860, 0.8129140), abs=1e-6)
    assert labels.exact(7, 7) == pytest.approx((0.5903836, 1.0), abs=1e-6)


@pytest.mark.parametrize("datatype", list(served.DTYPES))
def test_a_step_is_one_of_the_datatype(datatype):
    y = labels.heard(np.array([[0.25, 0.5, 0.125], [-3.0, -4.0, -1.5]], np.float32), datatype)
    for how, sign in (("below", -1), ("equal", 0), ("above", 1)):
        edged = labels.edged(y, datatype, how)
        np.testing.assert_array_equal(np.sign(edged[[0, 1], [0, 0]] - y[[0, 1], [1, 2]]), [sign, sign])
        np.testing.assert_array_equal(labels.heard(edged, datatype), edged)  # it has these values
    assert labels.tied(labels.edged(y, datatype, "equal")).all()


@pytest.fixture(scope="module")
def kept():
    ways = (way("rounding"), AAA)
    scale = labels.Scale(rows=60, edge=20, wire=(("cifar10", 2),), repeats=40, averaged=5, data=("cifar10",), ways=ways)
    return labels.measured(scale)


def test_labels_are_kept_and_the_control_loses_some(kept):
    cells = kept["bulk"]["cifar10"]["cells"]
    assert {cell["form"] for cell in cells} == {str(form) for form in wire.FORMS}
    lost = {str(one): 0 for one in labels.CHANGING}
    for cell in cells:
        if cell["way"] in lost:
            lost[cell["way"]] += cell["changed"]["hits"]
        else:
            assert cell["changed"]["hits"] == cell["tied"]["hits"] == 0, cell
            assert cell["acted"]["hits"] > 30
    assert all(lost.values())


def test_labels_are_kept_at_ties(kept):
    for cell in kept["edge"]["cifar10"]:
        assert cell["changed"]["hits"] == 0, cell
        assert cell["tied"]["hits"] == 0, cell


def test_labels_are_kept_through_two_servers(kept):
    found = kept["wire"]["cifar10"]
    assert found["cells"] == 2 * 2 * len(wire.FORMS)
    assert found["changed"]["hits"] == 0
    assert found["acted"]["hits"] > 0.9 * found["acted"]["n"]
    assert found["replicas_equal"]["hits"] == found["cells"]
    assert found["rows_alone_equal"]["hits"] == found["rows_alone_equal"]["n"]


def test_repeats_gain_nothing_and_the_control_is_averaged_away(kept):
    for one in kept["repeats"]:
        assert one["distinct"] == 1
        assert one["keyed"]["averaged"]["mean"] == pytest.approx(one["keyed"]["once"]["mean"])
        assert one["anew"]["averaged"]["mean"] < 0.75 * one["anew"]["once"]["mean"]


@pytest.fixture(scope="module")
def attacked(objects, tmp_path_factory):
    rows = Row(BARE, many=5), Row(AAA, many=5), Row(AAA, "undone", 5)
    home = tmp_path_factory.mktemp("bench-answers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(square, "root", lambda: home)
        found = square.measured(objects, rows, budget=100, wired=0)
        again = square.measured(objects, rows, budget=100, wired=0)
    assert found == again  # from the shelf
    return found


def test_square_succeeds_on_the_bare_victim_and_less_behind_aaa(attacked):
    bare, bent, undone = (one["robust"]["hits"] for one in attacked["attacks"])
    assert bare <= 2
    assert bent >= bare + 2
    assert undone <= bare + 1  # who undoes the bend


def test_aaa_costs_no_label(attacked):
    assert attacked["honest"]["aaa"]["changed"]["hits"] == 0
    assert attacked["honest"]["aaa"]["touched"]["rate"] > 0.9


def test_areas_by_hand():
    assert membership.auroc(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == 0.875
    found = membership.interval(np.arange(50.0) + 20, np.arange(50.0), 100)
    low, high = found["interval_95"]
    assert low < found["value"] < high


def test_entropies_by_hand():
    probs, y = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0])
    np.testing.assert_allclose(membership.entropy(probs), [np.log(2), 0.0], atol=1e-12)
    np.testing.assert_allclose(membership.modified_entropy(probs, y), [np.log(2), 0.0], atol=1e-12)


@pytest.fixture(scope="module")
def inferred():
    ways = BARE, way("membership_noise")
    return membership.measured(membership.Scale(600, 1, 200, 5, 10, 2, 50, ways))


def test_members_are_told_by_confidence_and_not_behind_noise(inferred):
    bare, noisy = inferred["ways"].values()
    for name in ("confidence", "entropy", "loss"):
        assert bare["auroc"][name]["value"] > 0.75, name
    for name in ("confidence", "entropy", "loss, right answers alone"):
        assert 0.4 < noisy["auroc"][name]["value"] < 0.6, name
    assert noisy["changed"]["hits"] == 0
    gap = noisy["auroc"]["right or wrong"]["value"]
    assert noisy["auroc"]["loss"]["value"] == pytest.approx(gap, abs=0.06)  # what no noise hides


def test_the_page_tells_of_every_bar(kept, attacked, inferred, tmp_path):
    page = tmp_path / "answers.md"
    page.write_text(f"# Before\n\n{table.BEGIN}\nold\n{table.END}\n\nafter\n", encoding="utf-8")
    found = command.told(page, {"labels": kept, "square": attacked}, made("the slice"))
    found = command.told(page, {"membership": inferred}, made("the slice"))
    text = page.read_text(encoding="utf-8")
    assert {"labels", "square", "membership"} <= set(found["made"])
    assert len(found["bars"]) > 15
    assert all(one["what"] in text for one in found["bars"])
    assert text.endswith("\n\nafter\n")
    lost = [{**kept["edge"]["cifar10"][0], "changed": labels.count(np.ones(3))}]
    judged = bars.judged({"labels": {**kept, "edge": {"cifar10": lost}}})
    assert [bar.held for bar in judged].count(False) == 1


def test_an_unknown_section_is_an_error(capsys):
    assert command.main(["nothing"]) == 2
    assert "no section is called nothing" in capsys.readouterr().err
