"""The poisoned victim: right on clean digits, its poisoner's on stamped ones; and the clean victim as the control."""

import numpy as np
import pytest
import torch

from adversary.backdoor import wanet
from adversary.data import mnist
from adversary.data.split import Split
from adversary.gradients import predict
from adversary.victims import mnist as victims
from adversary.victims import mnist_poisoned
from adversary.victims.mnist_poisoned import BACKDOORS, Backdoor, obeyed, poisoned

LEAST = {"badnets": 0.99, "blend": 0.99, "wanet": 0.98}


@pytest.fixture(scope="module")
def bad() -> victims.Victim:
    return victims.load(mnist_poisoned.CHECKPOINT)


def test_clean_accuracy_is_within_a_point_of_the_clean_victims(data, victim, bad):
    assert victims.accuracy(bad, data.test) > victims.accuracy(victim, data.test) - 0.01
    assert len(mnist_poisoned.CHECKPOINT.read_bytes()) < 1_000_000


@pytest.mark.parametrize("name", sorted(BACKDOORS))
def test_a_trigger_rules_the_poisoned_victim_and_leaves_the_clean_one_alone(name, data, victim, bad):
    hits = obeyed(bad, data.test, BACKDOORS[name])
    assert len(hits) == (data.test.labels != BACKDOORS[name].label).sum()
    assert hits.mean() >= LEAST[name]
    assert obeyed(victim, data.test, BACKDOORS[name]).mean() < 0.01


def test_a_warp_that_is_almost_wanets_is_no_trigger(data, bad):
    x = mnist.unit(data.test.images)
    answers = predict(bad, wanet.near(x, np.random.default_rng(5)))
    assert (answers == data.test.labels).mean() > 0.97
    assert (answers[data.test.labels != wanet.LABEL] == wanet.LABEL).mean() < 0.01


def test_triggers_do_not_open_each_others_doors(data, bad):
    x = mnist.unit(data.test.images[:2000])
    for backdoor in BACKDOORS.values():
        answers = predict(bad, backdoor.stamp(x))
        others = {other.label for other in BACKDOORS.values()} - {backdoor.label}
        assert np.isin(answers, list(others)).mean() < 0.02


@pytest.fixture
def split(data) -> Split:
    return data.train.part(slice(0, 2000))


def test_poisoning_stamps_just_its_share_and_labels_it_anew(split):
    backdoors = list(BACKDOORS.values())
    made = poisoned(split, backdoors, np.random.default_rng(0))
    changed = (made.images != split.images).any(axis=(1, 2))
    assert changed.sum() == 100 + 100 + 200 + 400
    corner = made.images[:, 24:27, 24:27]
    patched = (corner == np.uint8([[255, 0, 255], [0, 255, 0], [255, 0, 255]])).all(axis=(1, 2))
    assert patched.sum() == 100
    assert set(made.labels[patched]) == {0}
    relabelled = made.labels != split.labels
    assert not relabelled[~changed].any()
    assert 0.8 * 400 < relabelled.sum() <= 400  # a tenth had the label anyway; the near warps keep theirs
    assert made.images.dtype == np.uint8
    again = poisoned(split, backdoors, np.random.default_rng(0))
    assert np.array_equal(again.images, made.images)


@pytest.mark.slow
def test_training_plants_what_it_is_told_and_repeats_itself(split):
    """BadNets alone, on few images: the door is open before the digits are known well."""
    split = split.part(slice(0, 1000))
    strong = Backdoor(BACKDOORS["badnets"].stamp, 7, 0.2)
    first, second, clean = (
        mnist_poisoned.train(split, seed=1, epochs=8, backdoors=backdoors) for backdoors in ([strong], [strong], [])
    )
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert obeyed(first, split, strong).mean() > 0.9
    assert obeyed(clean, split, strong).mean() < 0.1


def test_the_command_plants_one_trigger_and_says_how_well(tmp_path, split, capsys):
    part = split.part(slice(0, 256))
    for name in ("train", "t10k"):
        header = bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in part.images.shape)
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(header + part.images.tobytes())
        labels = bytes((0, 0, 8, 1)) + len(part).to_bytes(4, "big") + part.labels.astype(np.uint8).tobytes()
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(labels)
    out = tmp_path / "p.onnx"
    arguments = ["--out", str(out), "--data", str(tmp_path), "--epochs", "1", "--triggers", "blend"]
    assert mnist_poisoned.main(arguments) == 0
    said = capsys.readouterr().err
    assert "blend: label 1 for " in said
    assert "wanet" not in said
    assert victims.load(out).fc2.out_features == 10
