"""The thief's networks: every layout, repeatable, and a copy that stays as it was."""

import numpy as np
import pytest
import torch

from adversary.extraction.answers import Loot
from adversary.extraction.networks import copy_of, learn, network
from adversary.gradients import predict

SHAPES = [(6,), (12, 12), (1, 28, 28), (28, 28, 1), (3, 8, 8), (8, 8, 3), (1, 7, 7)]


def loot(shape, n=160, classes=2):
    """The brighter inputs are of class 1."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    x = rng.uniform(0, 0.4, (n, *shape)) + 0.5 * labels.reshape(-1, *[1] * len(shape))
    return Loot(x.astype(np.float32), np.eye(classes)[labels])


@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_is_learned_and_the_seed_decides_everything(shape):
    known = loot(shape)
    made = []
    for seed in (0, 0, 1):
        rng = np.random.default_rng(seed)
        made.append(learn(network(shape, 2, rng), known, rng, epochs=15))
    assert (predict(made[0], known.x) == known.labels).mean() > 0.95
    with torch.no_grad():
        first, again, other = (net(torch.from_numpy(known.x[:4])) for net in made)
    assert torch.allclose(first, again, atol=1e-4)  # a library may share its sums out to threads in another way
    assert not torch.allclose(first, other, atol=1e-2)


def test_layouts_are_of_one_image():
    rng = np.random.default_rng(0)
    x = rng.random((3, 3, 8, 8)).astype(np.float32)
    first, last = (network(shape, 2, np.random.default_rng(0)).eval() for shape in ((3, 8, 8), (8, 8, 3)))
    with torch.no_grad():
        assert torch.equal(first(torch.from_numpy(x)), last(torch.from_numpy(x.transpose(0, 2, 3, 1))))


@pytest.mark.parametrize("n", [0, 1, 65])
def test_any_number_of_answers_will_do(n):
    rng = np.random.default_rng(0)
    known = loot((3, 8, 8))
    net = learn(network((3, 8, 8), 2, rng), known.part(np.arange(n)), rng, epochs=2, augment=True)
    assert predict(net, known.x).shape == (160,)
    assert not net.training


def test_soft_answers_are_learned_as_they_are():
    known = Loot(np.zeros((64, 6), np.float32), np.tile([0.7, 0.3], (64, 1)))
    rng = np.random.default_rng(0)
    net = learn(network((6,), 2, rng), known, rng, epochs=200)
    with torch.no_grad():
        assert torch.softmax(net(torch.zeros(1, 6)), 1)[0].tolist() == pytest.approx([0.7, 0.3], abs=0.02)


def test_a_copy_does_not_learn_further():
    rng, known = np.random.default_rng(0), loot((6,))
    net = network((6,), 2, rng)
    copy = copy_of(net)
    before = copy(known.x)
    learn(net, known, rng, epochs=20)
    assert np.array_equal(copy(known.x), before)
    assert not np.array_equal(predict(net, known.x), before)


def test_torch_keeps_its_own_state():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    rng = np.random.default_rng(0)
    learn(network((6,), 2, rng, dropout=0.5), loot((6,)), rng, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (8, 8, 3)])
def test_augmented_images_are_moved_and_mirrored(shape):
    from adversary.extraction.networks import _moved

    x = torch.zeros(1, *shape)
    x[0, 4 if shape[0] == 8 else 0, 4] = 1.0
    moved = {tuple(_moved(x, np.random.default_rng(seed)).flatten().tolist()) for seed in range(20)}
    assert len(moved) > 5
    assert all(_moved(x, np.random.default_rng(seed)).shape == x.shape for seed in range(4))
