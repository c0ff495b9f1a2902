"""AdvGAN: a generator that wins on the bare victim, on images it never saw too, and keeps to its ball."""

import numpy as np
import torch

from adversary.evasion import advgan
from adversary.gradients import predict
from adversary.tensors import rows
from tests.adversary.evasion.models import run


def test_wins_on_the_bare_victim(victim, prey):
    x, y = prey[0][:32], prey[1][:32]
    result = run(advgan, victim, x, y, eps=0.3, budget=100)
    assert (predict(victim, result.x_adv) != y).mean() > 0.8


def test_one_pass_is_enough_for_images_it_never_saw(victim, prey):
    x, y = prey
    made = advgan.generator(victim, x[:48], y[:48], eps=0.3, passes=100, rng=np.random.default_rng(0))
    with torch.no_grad():
        perturbed = made(rows(x[48:])).numpy()
    assert np.abs(perturbed - x[48:]).max() <= 0.3 + 1e-6
    assert (predict(victim, perturbed) != y[48:]).mean() > 0.5


def test_an_untrained_generator_wins_little(victim, prey):
    x, y = prey
    result = run(advgan, victim, x, y, eps=0.3, budget=1)
    assert (predict(victim, result.x_adv) != y).mean() < 0.5


def test_torchs_own_randomness_is_left_alone(victim, prey):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    run(advgan, victim, prey[0][:2], prey[1][:2], eps=0.3, budget=1)
    assert torch.equal(torch.rand(3), expected)
