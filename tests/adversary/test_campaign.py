from pathlib import Path

import pytest

from adversary import campaign, serving
from adversary.campaign import CampaignError
from adversary.catalogue import CATALOGUE
from guard import config, registry

TREE = {
    "name": "mine",
    "model": {"name": "m", "onnx": "m.onnx"},
    "targets": {"guarded": {"address": "127.0.0.1:1"}, "control": {"serve": {}}},
    "attacks": [{"attack": "pgd"}],
}


def changed(**parts):
    return campaign.validate({**TREE, **parts})


def test_defaults():
    made = changed()
    assert (made.seeds, made.victims, made.benign.images) == ((0,), 50, 300)
    assert made.attacks[0].entry is CATALOGUE["pgd"]
    assert campaign.title(made.attacks[0]) == "pgd"
    assert made.target("control").serve is not None
    assert made.target("guarded").address == "127.0.0.1:1"


@pytest.mark.parametrize(
    ("parts", "path", "message"),
    [
        ({"victimz": 3}, "victimz", "unknown key"),
        ({"attacks": [{"attack": "pgd", "epsilon": 1}]}, "attacks.0.epsilon", "unknown key"),
        ({"targets": {**TREE["targets"], "third": {"address": "a:1"}}}, "targets.third", "unknown key"),
        ({"attacks": [{"attack": "nonsense"}]}, "attacks.0", "there is no attack 'nonsense'"),
        ({"attacks": []}, "attacks", "at least 1"),
        ({"attacks": [{"attack": "pgd", "eps": 0}]}, "attacks.0.eps", "greater than 0"),
        ({"attacks": [{"attack": "pgd"}, {"attack": "pgd"}]}, "", "two attacks are called 'pgd'"),
        ({"targets": {"guarded": {"address": "a:1"}}}, "targets.control", "required"),
        ({"targets": {"guarded": {}, "control": {"serve": {}}}}, "targets.guarded", "either `address` or `serve`"),
        ({"model": {"name": "m"}}, "", "model.onnx is needed"),
        ({"model": {"name": "m", "std": [0]}}, "model", "every std must be above 0"),
        ({"model": {"name": "m", "layout": "nwhc"}}, "model.layout", "nchw_to_nhwc"),
        (
            {"targets": {**TREE["targets"], "guarded": {"serve": {}, "tls": {}}}},
            "targets.guarded",
            "`tls` goes with `address`",
        ),
        (
            {"targets": {**TREE["targets"], "guarded": {"address": "a:1", "tls": {"ca_file": "x"}}}},
            "targets.guarded.tls.ca_file",
            "unknown key",
        ),
        ({"seeds": [1, 1]}, "", "a seed is listed twice"),
        ({"data": {"kind": "npz"}}, "data", "kind npz goes with `file`"),
        ({"data": {"file": "x.npz"}}, "data", "kind npz goes with `file`"),
        ({"name": "Not a name"}, "name", "pattern"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(parts, path, message):
    with pytest.raises(CampaignError, match=message) as caught:
        changed(**parts)
    assert caught.value.path == path


def test_one_attack_twice_under_two_titles():
    made = changed(attacks=[{"attack": "pgd"}, {"attack": "pgd", "title": "pgd again", "eps": 0.1}])
    assert [campaign.title(attack) for attack in made.attacks] == ["pgd", "pgd again"]


def test_a_black_box_campaign_against_addresses_needs_no_file():
    targets = {"guarded": {"address": "a:1"}, "control": {"address": "b:1"}}
    made = changed(model={"name": "m"}, targets=targets, attacks=[{"attack": "square"}])
    assert made.model.onnx is None


def test_paths_are_relative_to_the_file(tmp_path):
    path = tmp_path / "sub" / "c.yaml"
    path.parent.mkdir()
    path.write_text(
        "name: c\nmodel: {name: m, onnx: ../m.onnx}\nattacks: [{attack: fgsm}]\n"
        "targets: {guarded: {serve: {settings: g.yaml, fit: 9}}, control: {serve: {}}}\n"
    )
    made = campaign.load(str(path)).campaign
    assert made.model.onnx == tmp_path / "m.onnx"
    assert made.targets.guarded.serve.settings == tmp_path / "sub" / "g.yaml"


def test_headers_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("THE_TOKEN", "s3cret")
    targets = {**TREE["targets"], "guarded": {"address": "a:1", "headers": {"authorization": "Bearer ${THE_TOKEN}"}}}
    assert changed(targets=targets).targets.guarded.headers == {"authorization": "Bearer s3cret"}
    monkeypatch.delenv("THE_TOKEN")
    with pytest.raises(CampaignError, match="has no THE_TOKEN") as caught:
        changed(targets=targets)
    assert caught.value.path == "targets.guarded.headers.authorization"


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "not YAML"), ("- a", "must be a mapping"), ("a: 1\na: 2\n", "given twice"), ("a: {b: 1, b: 2}", "twice")],
)
def test_a_file_is_a_mapping_without_repeats(text, message):
    with pytest.raises(CampaignError, match=message):
        campaign.parse(text)


def test_a_missing_file_names_the_shipped_ones(tmp_path):
    with pytest.raises(CampaignError, match=r"shipped are .*smoke"):
        campaign.load(str(tmp_path / "none.yaml"))


def test_addresses_take_the_targets_place():
    overrides = campaign.Overrides({"guarded": "g:1", "control": "c:1"}, "other")
    written = campaign.load("smoke", overrides)
    targets = written.campaign.targets
    assert (targets.guarded.address, targets.control.address) == ("g:1", "c:1")
    assert (targets.guarded.serve, written.campaign.model.name) == (None, "other")
    assert written.text.startswith("#")
    assert len(written.digest) == 64
    assert written.overrides == ("control: c:1", "guarded: g:1", "model.name: other")


def test_a_quick_look_has_fewer_victims():
    written = campaign.load("smoke", campaign.Overrides(victims=12))
    most = {campaign.title(attack): attack.victims or written.campaign.victims for attack in written.campaign.attacks}
    assert max(most.values()) == 12
    assert most["square"] == campaign.load("smoke").campaign.victims
    assert written.overrides == ("at most 12 victims",)


@pytest.mark.parametrize("name", campaign.shipped())
def test_what_is_shipped_is_sound(name):
    made = campaign.load(name).campaign
    assert made.name == name
    assert made.description
    files = [made.model.onnx, *(target.serve.settings for target in (made.targets.guarded,) if target.serve)]
    assert all(file is not None and file.is_file() for file in files)
    for attack in made.attacks:
        attack.entry.load()


@pytest.mark.parametrize("name", campaign.shipped())
def test_guard_takes_the_settings_that_are_shipped(name):
    made = campaign.load(name).campaign
    registry.load()
    fitted = Path("profile") if made.targets.guarded.serve.fit else None
    settings = config.validate(serving.settings_of(made.targets.guarded.serve, made.model, fitted))
    assert [model.name for model in settings.models] == [made.model.name]
