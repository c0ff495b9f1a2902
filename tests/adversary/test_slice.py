"""Every attack of the catalogue, as the campaign `full` has it, for one victim and a few queries: none fails."""

import pytest
import yaml

from adversary import campaign, cli, report
from adversary.campaign import SHIPPED
from adversary.catalogue import CATALOGUE
from adversary.victims.mnist import CHECKPOINT
from tests.servers import guard

BUDGET = 150
NEEDS = {"autoattack": 1000, "apgd-t": 909, "fab": 900}  # less they do not take


def test_the_full_campaign_leaves_no_attack_out():
    full = campaign.load("full").campaign
    assert [attack.attack for attack in full.attacks] == list(CATALOGUE)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    settings = {"models": [{"name": "mnist", "embedded": {"file": str(CHECKPOINT)}}]}
    with guard.start(tmp_path_factory.mktemp("bare"), settings) as served:
        yield served.address


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_attack_runs_through_the_wire(address, tmp_path, data):
    tree = yaml.safe_load((SHIPPED / "full.yaml").read_text())
    for attack in tree["attacks"]:
        attack["budget"] = NEEDS.get(attack["attack"], min(BUDGET, CATALOGUE[attack["attack"]].budget))
    tree |= {"seeds": [0], "victims": 1, "benign": {"images": 5, "callers": 1, "every": 50}}
    tree["targets"] = {name: {"address": address} for name in ("control", "guarded")}
    tree["model"]["onnx"] = str(CHECKPOINT)
    path = tmp_path / "slice.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert cli.main(["replay", str(path), "--out", str(tmp_path / "out")]) == 0
    made = report.load(tmp_path / "out")
    assert [attack.attack for attack in made.attacks] == list(CATALOGUE)
    assert all(attack.control.answered_rightly.hits == 1 for attack in made.attacks)
    by_gradients = [attack for attack in made.attacks if attack.family == "white-box"]
    assert sum(attack.control.success.hits for attack in by_gradients) >= len(by_gradients) - 2
