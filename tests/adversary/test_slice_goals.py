"""Copies, memberships, inversions and triggers through real gRPC against bare models, held to what they should reach.

Slices of the shipped campaigns, on their controls alone: small budgets, few candidates.
"""

import numpy as np
import pytest

from adversary import campaign, judge_leaks
from adversary.attack import Array
from adversary.catalogue import CATALOGUE
from adversary.runner import fell
from tests.adversary.test_slice import EVASIONS, bare

JUDGED = 500
CAMPAIGNS = ("extraction", "extraction-photos", "extraction-cifar10", "extraction-linear", "privacy", "backdoor")


def test_no_attack_is_left_out():
    named = {attack.attack for name in CAMPAIGNS for attack in campaign.load(name).campaign.attacks}
    assert named == CATALOGUE.keys() - set(EVASIONS)


def found(done, kind) -> dict[str, dict[str, Array]]:
    assert not done.failures
    return {
        unit.attack: arrays for unit, arrays in done.found.items() if unit.kind == kind and unit.target == "control"
    }


def attacks(**budgets):
    return [{"attack": name.replace("_", "-"), **given} for name, given in budgets.items()]


@pytest.fixture(scope="module")
def digits(tmp_path_factory, data):
    """A copy of the convolutional victim."""
    wanted = attacks(jbda={"budget": 1200})
    return found(bare("extraction", tmp_path_factory.mktemp("digits"), wanted, victims=JUDGED), "steal")


@pytest.fixture(scope="module")
def more_digits(tmp_path_factory, data):
    """The other ways to it."""
    wanted = attacks(
        t_rnd={"budget": 1200}, knockoff_random={"budget": 3000}, knockoff_adaptive={"budget": 3000},
        data_free={"budget": 12_000},
    )  # fmt: skip
    return found(bare("extraction", tmp_path_factory.mktemp("more_digits"), wanted, victims=JUDGED), "steal")


@pytest.fixture(scope="module")
def photos(tmp_path_factory, data, cifar):
    wanted = attacks(copycat={"budget": 6000})
    return found(bare("extraction-photos", tmp_path_factory.mktemp("photos"), wanted, victims=JUDGED), "steal")


@pytest.fixture(scope="module")
def linear(tmp_path_factory, data):
    """What a linear model gives away."""
    wanted = attacks(tramer={}, inversion={"victims": 10, "budget": 2000})
    return bare("extraction-linear", tmp_path_factory.mktemp("linear"), wanted, victims=JUDGED)


@pytest.fixture(scope="module")
def candidates(tmp_path_factory, cifar):
    wanted = attacks(
        membership_confidence={},
        membership_shadow={"options": {"count": 2}},
        membership_label_only={"victims": 200},
    )
    return found(bare("privacy", tmp_path_factory.mktemp("candidates"), wanted, victims=600), "infer")


@pytest.fixture(scope="module")
def stamped(tmp_path_factory, data):
    return found(bare("backdoor", tmp_path_factory.mktemp("stamped"), victims=150), "send")


def agreement(unit) -> float:
    return float((unit["copied"][-1] == unit["bare"]).mean())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_copy_from_digits_agrees(digits):
    assert agreement(digits["jbda"]) > 0.7
    assert digits["jbda"]["sent"].sum() <= CATALOGUE["jbda"].budget


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "least"), [("t-rnd", 0.7), ("knockoff-random", 0.9), ("knockoff-adaptive", 0.9), ("data-free", 0.3)]
)
def test_further_copies_from_digits_agree(more_digits, name, least):
    assert agreement(more_digits[name]) > least
    assert more_digits[name]["sent"].sum() <= CATALOGUE[name].budget


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_copy_from_photographs_agrees(photos):
    assert agreement(photos["copycat"]) > 0.5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_equations_copy_a_linear_model(linear):
    assert agreement(found(linear, "steal")["tramer"]) > 0.99


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_classes_of_a_linear_model_are_rebuilt(linear):
    side = judge_leaks.inverted([found(linear, "invert")["inversion"]])
    assert side.answered.rate == 1.0
    assert side.nearest.rate > 0.5


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["membership-confidence", "membership-shadow", "membership-label-only"])
def test_members_of_a_model_that_knows_them_by_heart_are_told(candidates, name):
    """Shokri et al. 2017 have a precision near 0.7 on CIFAR-10 with 2,500 images."""
    side = judge_leaks.inferred([candidates[name]])
    assert side.auroc.interval_95[0] > 0.6
    assert side.advantage.value > 0.15


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["badnets", "blend", "wanet"])
def test_a_trigger_gets_its_label(stamped, name):
    unit = stamped[name]
    tried = (unit["clean"] == unit["y"]) & (unit["aim"] != unit["y"])
    assert np.count_nonzero(tried) > 100
    assert fell(unit["y"], unit["adversarial"], unit["aim"])[tried].mean() > 0.9
