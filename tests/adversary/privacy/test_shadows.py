"""Shadow models and what is learned from them."""

import numpy as np
import pytest
import torch

from adversary.privacy import shadows
from tests.adversary.privacy.victims import CLASSES, task


@pytest.mark.parametrize(
    ("inside", "outside", "least", "most"),
    [
        ([3.0, 4.0, 5.0], [0.0, 1.0, 2.0], 2.0, 3.0),
        ([3.0, 4.0, 0.0], [1.0, 2.0, 2.5], 2.5, 3.0),  # one member is given up
        ([1.0, 2.0], [1.5, 1.0, 0.0, 0.0], 0.0, 1.0),  # both members for half of the outsiders
        ([1.0, 1.0], [1.0, 1.0], -np.inf, 1.0),  # nothing tells them apart: all are members
    ],
)
def test_the_threshold_tells_most_members_from_most_outsiders(inside, outside, least, most):
    threshold = shadows.divide(np.array(inside), np.array(outside))
    assert least <= threshold < most


def test_each_shadow_has_learned_a_half_by_heart_and_knows_which():
    data = task()
    state = torch.get_rng_state()
    first, second = shadows.train(data.own_x, data.own_y, count=2, epochs=60, rng=np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert not np.array_equal(first.inside, second.inside)
    for shadow in (first, second):
        right = shadow.oracle.labels(data.own_x) == data.own_y
        assert shadow.inside.sum() == len(data.own_x) // 2
        assert right[shadow.inside].mean() > 0.98
        assert right[~shadow.inside].mean() < 0.75


def test_the_seed_decides_everything():
    data = task()
    made = [
        shadows.train(data.own_x, data.own_y, count=1, epochs=2, rng=np.random.default_rng(seed))[0].oracle
        for seed in (0, 0, 1)
    ]
    first, again, other = (oracle.probabilities(data.x[:5]) for oracle in made)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("shape", [(6,), (1, 8, 8), (3, 12, 8), (12, 8, 3), (9, 9)])
def test_a_network_for_any_input(shape):
    net = shadows.network(shape, CLASSES, np.random.default_rng(0))
    assert net(torch.zeros(2, *shape)).shape == (2, CLASSES)


def test_without_inputs_of_his_own_the_attacker_has_no_shadow():
    with pytest.raises(ValueError, match="of the attacker's own"):
        shadows.train(np.zeros((0, 3)), np.zeros(0, int), count=1, epochs=1, rng=np.random.default_rng(0))


def test_a_judge_learns_who_is_inside():
    rng = np.random.default_rng(0)
    inside = rng.random(300) < 0.5
    features = np.float32(np.stack([rng.random(300), 0.5 * rng.random(300) + 0.4 * inside], axis=1))
    score = shadows.judge(features, inside, rng)
    assert ((score(np.float32([[0.5, 0.85], [0.5, 0.05]])) > 0) == [True, False]).all()
