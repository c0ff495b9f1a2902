"""EOT: against a model that turns and shifts its input at random, the mean of many gradients beats any one."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from adversary.adaptive import eot
from adversary.attack import norms
from adversary.evasion import pgd
from adversary.gradients import predict


def turned(x):
    """A random rotation by up to half a radian and a shift by up to 15 % of each image."""
    angle, shift = torch.rand(len(x)) - 0.5, (torch.rand(len(x), 2) - 0.5) * 0.6
    rows = [torch.cos(angle), -torch.sin(angle), shift[:, 0], torch.sin(angle), torch.cos(angle), shift[:, 1]]
    grid = functional.affine_grid(torch.stack(rows, 1).reshape(-1, 2, 3), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def errors(model, x, y):
    torch.manual_seed(5)
    return np.mean([(predict(model, x) != y).mean() for _ in range(8)])


def test_beats_single_gradients_on_a_random_model(victim, prey):
    x, y = prey[0][:32], prey[1][:32]

    def defended(inputs):
        return victim(turned(inputs))

    torch.manual_seed(1)
    bare = pgd.attack(victim, x, y, eps=0.2, budget=20, rng=np.random.default_rng(0))
    averaged = eot.attack(victim, x, y, eps=0.2, budget=400, samples=20, transform=turned, rng=np.random.default_rng(0))
    assert errors(defended, x, y) < 0.2
    assert errors(defended, averaged.x_adv, y) > errors(defended, bare.x_adv, y) + 0.1
    assert errors(defended, averaged.x_adv, y) > 0.7


def test_a_models_own_randomness_is_averaged_too(victim, prey):
    x, y = prey[0][:16], prey[1][:16]

    def defended(inputs):
        return victim(turned(inputs))

    wrapped = eot.attack(victim, x, y, eps=0.2, budget=100, transform=turned, rng=np.random.default_rng(0))
    own = eot.attack(defended, x, y, eps=0.2, budget=100, sigma=0.0, rng=np.random.default_rng(0))
    assert errors(defended, own.x_adv, y) == pytest.approx(errors(defended, wrapped.x_adv, y), abs=0.1)


def test_succeeds_on_the_bare_victim_and_keeps_the_ball(victim, prey):
    x, y = prey[0][:16], prey[1][:16]
    result = eot.attack(victim, x, y, eps=0.3, budget=100, rng=np.random.default_rng(0))
    assert (predict(victim, result.x_adv) != y).mean() > 0.9
    assert norms(result.x_adv - x, "linf").max() <= 0.3 + 1e-6
    assert result.x_adv.dtype == np.float32
    assert result.queries.tolist() == [100] * 16


def test_the_seed_decides_and_torchs_own_stream_is_left_alone(victim, prey):
    x, y = prey[0][:2], prey[1][:2]
    state = torch.random.get_rng_state()
    a, b, c = (eot.attack(victim, x, y, eps=0.3, budget=20, rng=np.random.default_rng(s)).x_adv for s in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert torch.equal(state, torch.random.get_rng_state())


def test_less_than_a_step_is_no_budget(victim, prey):
    with pytest.raises(ValueError, match="budget"):
        eot.attack(victim, prey[0][:1], prey[1][:1], eps=0.3, budget=9, rng=np.random.default_rng(0))
