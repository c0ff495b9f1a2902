"""Every evasion of the catalogue through real gRPC against a bare model, held to what it should reach there.

One or two of each family at once, the others in the long part. Slices of the campaign `full`, on the control alone: few
victims, the catalogue's budgets. Where the literature has a success near 1, more than 0.8 is asked for; the weak ones
are held to their own published order.
"""

from pathlib import Path

import pytest
import yaml
from rich.console import Console

from adversary import campaign, judge
from adversary.campaign import SHIPPED, title
from adversary.catalogue import CATALOGUE
from adversary.progress import Screen
from adversary.replay import How, Replayed, replay
from adversary.unit import eps_of

EVASIONS = [name for name, entry in CATALOGUE.items() if entry.goal == "evasion" and entry.family != "backdoor"]
FEW = ("fgsm", "pgd", "square", "nes", "hop-skip-jump", "surfree", "oars-nes", "sybil-square", "eot-pgd")
CRAFTED, HUNTED = 40, 6  # victims
FAR = 5.0  # an l2 that walks along the boundary come to within the budgets here; a start is about twice as far away
_WALKS = ("averaging-hop-skip-jump", "geoda", "hop-skip-jump", "qeba", "qeba-dct", "surfree", "sybil-hop-skip-jump")
CHANGED = {
    **{name: {"eps": FAR} for name in _WALKS},
    **{f"oars-{name}": {"eps": FAR, "budget": 4000} for name in ("boundary", "hop-skip-jump", "qeba", "surfree")},
    "boundary": {"budget": 4000, "eps": FAR},
    "jbda-fgsm": {"victims": CRAFTED},
    "one-pixel": {"victims": 12},
}
TRANSFER = 0.45  # from one small network to another: Dong et al. 2018 have 40 to 80 % between ImageNet networks
AT_LEAST = {
    **dict.fromkeys(("mi-fgsm", "di-fgsm", "ti-fgsm"), TRANSFER),
    "jbda-fgsm": 0.35,  # 84 % in the paper, against a remote model; noise of this size has some 26 % here
    "one-pixel": 1 / 12,  # Su et al. 2019 have 31 % on CIFAR-10 with one pixel and say nothing of MNIST; these are five
    "patch": 0.6,  # one patch over a quarter of every image, wherever it lands
    "universal": 0.4,  # one perturbation, learned from these few images alone
}


def test_the_full_campaign_leaves_no_evasion_out():
    full = campaign.load("full").campaign
    assert [attack.attack for attack in full.attacks] == EVASIONS


def bare(source: str, out: Path, attacks: list[dict] | None = None, **changed) -> Replayed:
    """Attacks of a shipped campaign against its control alone."""
    tree = yaml.safe_load((SHIPPED / f"{source}.yaml").read_text())
    tree |= {"seeds": [0], "chunk": 100, "benign": {"images": 0, "callers": 1, "every": 0}, **changed}
    tree["targets"] = {name: {"serve": {}} for name in ("control", "guarded")}
    tree["attacks"] = tree["attacks"] if attacks is None else attacks
    with Screen(Console(stderr=True)) as screen:
        return replay(campaign.validate(tree, SHIPPED), out, How(jobs=2), screen, lambda unit: unit.target != "guarded")


def succeeded(names: tuple[str, ...], out: Path) -> Replayed:
    attacks = [
        each for each in yaml.safe_load((SHIPPED / "full.yaml").read_text())["attacks"] if each["attack"] in names
    ]
    for attack in attacks:
        attack["victims"] = CRAFTED if CATALOGUE[attack["attack"]].crafted else HUNTED
        attack.update(CHANGED.get(attack["attack"], {}))
    return bare("full", out, attacks)


@pytest.fixture(scope="module")
def few(tmp_path_factory, data) -> Replayed:
    return succeeded(FEW, tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def others(tmp_path_factory, data) -> Replayed:
    return succeeded(tuple(name for name in EVASIONS if name not in FEW), tmp_path_factory.mktemp("others"))


def check(done: Replayed, name: str) -> None:
    assert not [reason for unit, reason in done.failures.items() if unit.attack == name]
    attack = next(attack for attack in done.campaign.attacks if title(attack) == name)
    units = [found for unit, found in done.found.items() if unit.attack == name and unit.target == "control"]
    side = judge.side(judge.gather(units, eps_of(attack)))
    assert side.success.n >= HUNTED - 1
    assert side.success.rate > 0.8 or side.success.rate >= AT_LEAST.get(name, 1.0)
    assert side.flagged_queries.hits == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", FEW)
def test_it_succeeds_on_the_bare_model(few, name):
    check(few, name)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [name for name in EVASIONS if name not in FEW])
def test_each_of_the_others_succeeds_on_the_bare_model(others, name):
    check(others, name)
