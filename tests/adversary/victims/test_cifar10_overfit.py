import numpy as np
import pytest
import torch

from adversary.data import cifar10
from adversary.data.split import Split
from adversary.victims import cifar10_overfit as victims
from adversary.victims import making


@pytest.fixture(scope="module")
def loaded():
    return victims.load()


def confidence(model, split):
    with torch.no_grad():
        logits = model(torch.from_numpy(cifar10.unit(split.images)))
    return torch.softmax(logits, 1).max(1).values.numpy()


def test_it_has_learned_its_members_by_heart(cifar, loaded):
    members = cifar.learn.part(slice(victims.MEMBERS))
    assert victims.accuracy(loaded, members) >= 0.99
    others = cifar.test.part(slice(1000))
    assert 0.4 <= victims.accuracy(loaded, others) <= 0.6


def test_it_is_surer_of_its_members(cifar, loaded):
    members, others = confidence(loaded, cifar.learn.part(slice(500))), confidence(loaded, cifar.test.part(slice(500)))
    assert np.median(members) > 0.95
    assert np.median(members) > np.median(others) + 0.05


def test_training_fits_noise_and_repeats_itself():
    rng = np.random.default_rng(0)
    noise = Split(rng.integers(0, 256, (50, 32, 32, 3), np.uint8), rng.integers(0, 10, 50))
    assert victims.accuracy(victims.train(noise, seed=3, epochs=60), noise) > 0.9
    first, again = (victims.train(noise, seed=3, epochs=2).state_dict().values() for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_the_command_learns_from_the_members_alone(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(victims, "MEMBERS", 50)
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (120, 32, 32, 3), np.uint8), rng.integers(0, 10, 120))
    data = cifar10.Cifar10(split, split, "made up", "d")
    monkeypatch.setattr(cifar10, "load", lambda directory, say: data)
    assert victims.main(["--out", str(tmp_path / "v.onnx"), "--epochs", "1"]) == 0
    assert "on the 50 it learned from (made up)" in capsys.readouterr().err


def test_nothing_is_left_of_a_seed_outside():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    split = Split(np.zeros((50, 32, 32, 3), np.uint8), np.zeros(50, np.int64))
    making.train(victims.Victim, making.Recipe(victims._still, victims._adam, 1e-3, 50), split, seed=1, epochs=1)
    assert torch.equal(torch.rand(1), expected)
