"""The figures by hand; a small slice of the table in earnest, beside controls that tell a detector from chance."""

import json

import numpy as np
import pytest
import torch

from adversary.scores import Rate
from bench.detection import __main__ as command
from bench.detection import adaptive, bars, craft, differentiable, figures, run, scoring, stagework, table
from bench.detection.attacks import ATTACKS
from bench.detection.subjects import subject
from guard.types import Material, Mode, OnError


def test_an_area_by_hand():
    found = figures.area(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.5, 4.0]))
    assert found.value == pytest.approx((1.5 + 3 + 4) / 12)  # pairs in order, a tie counted half
    low, high = found.interval
    assert 0.0 < low < found.value < high < 1.0


def test_an_area_of_all_pairs_in_order_has_an_interval_all_the_same():
    found = figures.area(np.arange(20.0), np.arange(100.0, 110.0))
    assert found.value == 1.0
    assert found.interval == Rate(10, 10).interval


def test_delongs_interval_covers_the_truth_as_often_as_it_says():
    rng, covered = np.random.default_rng(4), 0
    for _ in range(300):
        low, high = figures.area(rng.normal(size=80), rng.normal(1.0, size=60)).interval
        covered += low <= 0.76025 <= high  # Phi(1 / sqrt 2)
    assert 0.91 <= covered / 300 <= 0.98


def test_nothing_succeeded_is_no_figure():
    found = figures.detected(np.arange(5.0), np.zeros(0)).plain()
    assert found["auroc"]["value"] is None
    assert found["tpr_at_5_fpr"]["n"] == 0


def test_shuffled_scores_say_nothing():
    rng = np.random.default_rng(0)
    low, high = figures.area(rng.random(500), rng.random(500)).interval
    assert low < 0.5 < high


def test_every_attack_of_the_issue_is_planned_on_both_data_sets():
    names = "fgsm bim pgd carlini-wagner deepfool autoattack jsma ead universal patch transfer"
    wanted = set(names.split())
    for data in ("mnist", "cifar10"):
        assert {one.name for one in ATTACKS[data]} == wanted
        assert next(one for one in ATTACKS[data] if one.name == "pgd").budget == 40


def test_units_cover_every_image_once():
    units = craft.units("mnist", 600, ["fgsm", "patch"])
    assert [(one.attack, one.start, one.stop) for one in units] == [
        ("fgsm", 0, 250), ("fgsm", 250, 500), ("fgsm", 500, 600), ("patch", 0, 600),
    ]  # fmt: skip


def test_an_unaware_attacker_has_no_detector_in_his_loss():
    on = subject("mnist")
    x, y = on.hunted_x[:8], on.hunted_y[:8]
    x_adv = adaptive.attack(on, adaptive.Aware((), 0.0), {}, x, y, eps=0.3, seed=0, steps=10)
    assert np.abs(x_adv - x).max() <= 0.3 + 1e-6
    assert x_adv.min() >= 0.0
    assert x_adv.max() <= 1.0
    assert (craft.predict(on.model, x_adv) != y).mean() > 0.8


@pytest.mark.parametrize("channels", [1, 3])
def test_the_statistics_in_torch_are_the_stages_own(channels):
    rng = np.random.default_rng(2)
    x = rng.random((120, 12, 12, channels), np.float32)
    one = stagework.working("detector", "input_statistics", Material(x, None, 2))
    found = differentiable.score(torch.from_numpy(stagework.planar(x[:20])), one.stage.arrays)
    np.testing.assert_allclose(found.numpy(), one.stage.score(x[:20]), rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The quick slice, crafted and fitted anew."""
    home = tmp_path_factory.mktemp("bench-detection")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(craft, "home", lambda: home)
        yield run.measured(["mnist"], run.QUICK, 1, "test")


def test_detectors_beat_their_control(found):
    for attack in ("fgsm", "bim"):
        cells = found["data"]["mnist"]["detectors"]["feature_squeezing"]
        assert cells[attack]["auroc"]["value"] > 0.95
        assert cells[attack]["auroc"]["interval_95"][0] > cells["untouched"]["auroc"]["interval_95"][1]


def test_the_attacks_succeed_on_the_bare_model(found):
    assert all(one["success"]["rate"] > 0.5 for one in found["data"]["mnist"]["attacks"])


def test_the_combination_detects_within_its_budget(found):
    for one in found["data"]["mnist"]["combinations"]:
        assert one["mean"] > 0.9
        assert one["false_positives"]["interval_95"][0] <= one["budget"]


def test_a_decision_does_not_depend_on_its_batch(found):
    assert all(one["decisions_that_differ"] == 0 for one in found["false_positives"][0]["rates"])


def test_no_purifier_means_the_bare_model(found):
    bare = found["data"]["mnist"]["purifiers"]["none"]
    assert bare["clean"]["rate"] > 0.95
    for attack in found["data"]["mnist"]["attacks"]:
        assert bare["robust"][attack["attack"]]["rate"] == pytest.approx(1.0 - attack["success"]["rate"])


def test_the_document_is_json_and_a_page(found, tmp_path):
    page = tmp_path / "results" / "detection.md"
    page.parent.mkdir()
    page.write_text("# Title\n\nProse.\n", encoding="utf-8")
    for _ in range(2):
        table.put(page, table.markdown(json.loads(json.dumps(found))))
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Title\n\nProse.\n")
    assert text.count("## What was asked for") == 1
    assert "| feature_squeezing |" in text


def test_bars_that_are_missed_say_so():
    found = {"data": {"mnist": {"victim": {"accuracy": 0.9}, "attacks": []}}, "false_positives": []}
    victim, images = bars.judged(found)
    assert not victim.held
    assert (images.measured, images.held) == ("0", False)


def test_a_rule_flags_what_any_detector_flags():
    said = scoring.Said(
        {"a": np.zeros(3), "b": np.zeros(3)}, {"a": np.array([0.5, 0.001, 1]), "b": np.array([0.01, 1, 1])}
    )
    stages = tuple(_stage(name, 0.02) for name in ("a", "b"))
    rule = scoring.Rule(0.05, stages, None, None)
    assert rule.flagged(said).tolist() == [True, True, False]


def _stage(name, threshold):
    return scoring.Stage(name, "detector", object(), Mode.SHADOW, OnError.ALLOW, threshold=threshold)


def test_unknown_data_is_refused(capsys):
    assert command.main(["nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
