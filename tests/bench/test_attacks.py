"""The whole comparison on a served model, with libraries of our own making; the real ones are in test_libraries.py."""

import json

import numpy as np
import pytest
import yaml

from adversary import campaign
from bench.attacks import __main__ as command
from bench.attacks import run
from bench.attacks.libraries import PEERS
from bench.attacks.measure import given
from tests.adversary.tiny import Tiny, serving
from tests.bench import stubs

BAR = {
    "fgsm", "pgd", "carlini-wagner", "deepfool", "autoattack", "square", "hop-skip-jump", "boundary", "simba"
}  # fmt: skip


@pytest.fixture
def served():
    with serving(Tiny(stubs.answer, shape=(-1, 1, 6, 6))) as tiny:
        yield tiny


@pytest.fixture
def dark(tmp_path, served):
    """A campaign on images below the middle grey, all of class 0; every fifth is a bright one of the same label."""
    x = np.random.default_rng(0).uniform(0.3, 0.4, (200, 1, 6, 6)).astype(np.float32)
    x[::5] += 0.4
    np.savez(tmp_path / "dark.npz", x=x, y=np.zeros(200, int))
    tree = {
        "name": "dark",
        "seeds": [1, 2],
        "victims": 10,
        "chunk": 3,
        "data": {"kind": "npz", "file": str(tmp_path / "dark.npz")},
        "model": {"name": "tiny", "onnx": str(tmp_path / "dark.npz"), "torch": "tests.bench.stubs:load"},
        "targets": {"guarded": {"address": "127.0.0.1:1"}, "control": {"address": served.address}},
        "benign": {"images": 20},
        "attacks": [
            {"attack": "fgsm", "eps": 0.25},
            {"attack": "square", "title": "squares", "budget": 100, "options": {"initial": 0.6}, "victims": 6},
            {"attack": "rays", "budget": 100},
        ],
    }
    (tmp_path / "dark.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


@pytest.fixture(autouse=True)
def _stubs(monkeypatch):
    monkeypatch.setattr(run, "PEERS", (stubs.FGSM, stubs.SQUARE))


def bench(dark, *more):
    arguments = [str(dark / "dark.yaml"), "--ours", str(dark / "out"), "--json", str(dark / "found.json"), *more]
    code = command.main(arguments)
    return code, {one["title"]: one for one in json.loads((dark / "found.json").read_text())["attacks"]}


def test_both_sides_of_both_kinds_of_attack(dark, capsys):
    _, found = bench(dark)
    assert set(found) == {"fgsm", "squares"}  # rays has no peer
    fgsm, squares = found["fgsm"], found["squares"]
    assert fgsm["ours"]["success"] == fgsm["theirs"]["success"]
    assert 10 < fgsm["ours"]["success"]["n"] < 20  # what is answered wrongly as it is is no victim
    assert fgsm["ours"]["success"]["rate"] == 1.0
    assert (fgsm["theirs"]["cost"]["median"], fgsm["theirs"]["queries"]["n"]) == (1, 0)
    assert fgsm["points"] == 0.0
    assert fgsm["within"]
    assert squares["options"] == {"step": pytest.approx(0.06)}
    assert squares["theirs"]["success"]["n"] == squares["ours"]["success"]["n"] < 12
    assert squares["theirs"]["success"]["rate"] == 1.0
    assert squares["theirs"]["queries"]["median"] in {2, 3}  # 0.35 + 3 * 0.06
    assert squares["rows"]["median"] == 2 * squares["theirs"]["queries"]["median"] - 1
    assert squares["ours"]["queries"]["median"] >= 1
    shown = capsys.readouterr()
    assert "squares" in shown.out
    assert "rays" not in shown.out


def test_the_guarded_endpoint_is_left_alone_and_nothing_is_done_twice(dark, served):
    _, first = bench(dark)
    calls = len(served.requests)
    _, again = bench(dark)
    assert again == first
    assert len(served.requests) == calls
    assert not list((dark / "out" / "units").glob("*guarded*"))


def test_what_a_campaign_left_is_used(dark, served):
    from adversary import cli

    told = [str(dark / "dark.yaml"), "--out", str(dark / "out"), "--guarded", served.address]
    assert cli.main(["replay", *told]) == 0
    calls = len(served.requests)
    _, found = bench(dark)
    judged = sum(one["theirs"]["success"]["n"] for one in found.values())
    assert len(served.requests) == calls + judged  # the library's inputs alone


def test_a_library_that_hands_back_what_is_too_far_or_no_image_has_no_success(dark, monkeypatch):
    from dataclasses import replace

    far = replace(stubs.FGSM, run=lambda model, prey, options: np.where(prey.x > 0.35, 2.0, np.nan))
    monkeypatch.setattr(run, "PEERS", (far,))
    code, found = bench(dark)
    assert found["fgsm"]["theirs"]["success"]["hits"] == 0
    assert found["fgsm"]["points"] == 100.0
    assert code == 1


def test_fewer_attacks_fewer_victims_and_a_page(dark):
    page = dark / "page.md"
    page.write_text("# Results\n")
    code, found = bench(dark, "--only", "fgsm", "--victims", "3", "--docs", str(page))
    assert code == 0
    assert set(found) == {"fgsm"}
    assert found["fgsm"]["ours"]["success"]["n"] <= 6
    assert "--only fgsm --victims 3" in page.read_text()
    assert command.main([str(dark / "dark.yaml"), "--only", "rays"]) == 2


def test_an_attack_that_fails_is_told(dark, served, capsys):
    served.answer = lambda x: stubs.answer(x)[:, :, None]  # of no shape that holds scores
    assert bench_fails(dark) == 2
    assert "squares" in capsys.readouterr().err


def bench_fails(dark):
    return command.main([str(dark / "dark.yaml"), "--ours", str(dark / "out"), "--only", "squares"])


def test_every_attack_of_the_bar_has_a_library_and_ours_options():
    standard = campaign.load("standard").campaign
    peers = {peer.attack: peer for peer in PEERS}
    assert set(peers) == BAR
    of = {attack.attack: given(attack) for attack in standard.attacks if attack.attack in peers}
    assert set(of) == BAR
    options = {name: peers[name].options(of[name]) for name in BAR}
    assert options["pgd"] == {"abs_stepsize": pytest.approx(0.01875), "steps": 40}
    assert options["carlini-wagner"]["stepsize"] == pytest.approx((0.01, 0.05))  # 5 searches of 200 steps reach 10 each
    assert options["deepfool"] == {"steps": 50, "candidates": 10, "overshoot": 0.02}
    assert options["square"]["p_init"] == 0.8
    assert options["simba"]["epsilon"] == 0.2
