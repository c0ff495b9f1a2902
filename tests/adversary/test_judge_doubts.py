import pytest

from adversary import judge_doubts, report
from tests.adversary import samples
from tests.adversary.samples import evidence, part


def codes(attack, others=(), usual=40):
    return [doubt.code for doubt in judge_doubts.of_attack(attack, [attack, *others], usual)]


ENOUGH = {"control": evidence([1], n=40), "guarded": evidence([0], n=40)}


def test_a_sound_evaluation_raises_none():
    assert codes(part(**ENOUGH)) == []


def test_a_control_that_stands():
    control = evidence([1] * 31 + [0] * 9, n=40)
    assert codes(part(**{**ENOUGH, "control": control})) == ["control_did_not_succeed"]
    assert codes(part(**{**ENOUGH, "control": control}, expect=0.7)) == []


def test_too_few_victims():
    assert codes(part(control=evidence([1], n=29), guarded=evidence([0], n=29))) == ["few_samples"]


def test_a_budget_that_was_cut():
    assert codes(part(**ENOUGH, budget=39)) == ["budget_cut"]


BLIND = part(**{**ENOUGH, "control": evidence([1, 1, 1, 0], n=40)}, expect=0.5)


@pytest.mark.parametrize(
    ("changed", "masked"),
    [
        ({}, True),
        ({"access": "gradients"}, False),
        ({"norm": "l2"}, False),
        ({"eps": 0.4}, False),
        ({"eps": 0.1}, True),
        ({"control": evidence([1, 1, 1, 0], n=40)}, False),
        ({"control": evidence([1], n=5)}, False),
    ],
)
def test_masked_gradients_show_where_queries_do_better(changed, masked):
    other = part("square", **{**ENOUGH, "access": "scores", "family": "score-based", **changed})
    assert codes(BLIND, [other]) == (["gradients_masked"] if masked else [])


def test_only_white_box_attacks_have_gradients_to_mask():
    other = part("square", **ENOUGH, access="scores", family="score-based")
    assert codes(BLIND.model_copy(update={"family": "transfer"}), [other]) == []


def of_campaign(guarded=None, honest=None, failures=()):
    honest = honest or report.HonestOn(control=samples.callers(), guarded=samples.callers())
    return [doubt.code for doubt in judge_doubts.of_campaign(guarded or samples.target(), honest, failures)]


def test_what_is_doubtful_of_a_whole_campaign():
    assert of_campaign() == []
    assert of_campaign(samples.target(fresh=False, audit=False)) == ["state_kept", "no_audit"]
    wrong = report.HonestOn(control=samples.callers(wrong=300), guarded=samples.callers())
    assert of_campaign(honest=wrong) == ["control_inaccurate"]
    few = report.HonestOn(control=samples.callers(n=50), guarded=samples.callers(n=50))
    assert of_campaign(honest=few) == ["few_benign"]
    assert of_campaign(failures=(report.Failure(unit="u", reason="r"),)) == ["failed"]
