"""FGSM, BIM, PGD: the published behaviour on the bare victim, and the arithmetic on a linear model."""

import numpy as np
import pytest
import torch

from adversary.attack import norms
from adversary.evasion import bim, fgsm, pgd
from adversary.gradients import loss_gradient, predict

EPS = 0.3


def linear(weights):
    """Two classes: the logit of class 1 is w.x, that of class 0 is 0."""
    w = torch.tensor(weights, dtype=torch.float32)
    return lambda x: torch.stack([torch.zeros(len(x)), x @ w], dim=1)


def run(module, model, x, y, budget, *, seed=0, **options):
    return module.attack(model, x, y, eps=EPS, budget=budget, rng=np.random.default_rng(seed), **options)


@pytest.mark.parametrize(("module", "budget", "least"), [(fgsm, 1, 0.85), (bim, 10, 0.98), (pgd, 40, 0.98)])
def test_success_on_the_bare_victim(victim, prey, module, budget, least):
    x, y = prey
    result = run(module, victim, x, y, budget)
    assert (predict(victim, result.x_adv) != y).mean() >= least
    assert norms(result.x_adv - x, "linf").max() <= EPS + 1e-6
    assert result.x_adv.min() >= 0.0
    assert result.x_adv.max() <= 1.0
    assert result.x_adv.dtype == np.float32
    assert result.queries.tolist() == [budget] * len(x)


@pytest.mark.parametrize(("module", "budget"), [(fgsm, 1), (bim, 10), (pgd, 40)])
def test_the_attacks_are_weaker_with_less_eps(victim, prey, module, budget):
    x, y = prey
    weak = module.attack(victim, x, y, eps=0.02, budget=budget, rng=np.random.default_rng(0))
    assert (predict(victim, weak.x_adv) != y).mean() < 0.2


@pytest.mark.parametrize(("module", "budget"), [(fgsm, 1), (bim, 10), (pgd, 10)])
def test_on_a_linear_model_every_value_moves_against_its_weight(module, budget):
    x = np.full((1, 4), 0.5, np.float32)
    result = run(module, linear([2.0, -1.0, 0.5, -3.0]), x, np.array([1]), budget)
    assert result.x_adv[0].tolist() == pytest.approx([0.2, 0.8, 0.2, 0.8])


def test_fgsm_with_a_random_start_stays_in_the_ball(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    plain, started = run(fgsm, victim, x, y, 1), run(fgsm, victim, x, y, 1, start=0.5)
    assert not np.array_equal(plain.x_adv, started.x_adv)
    assert norms(started.x_adv - x, "linf").max() <= EPS + 1e-6


def test_bim_takes_the_steps_it_is_told():
    x = np.full((1, 1), 0.5, np.float32)
    result = run(bim, linear([1.0]), x, np.array([1]), 2, step=0.1)
    assert result.x_adv[0, 0] == pytest.approx(0.3)


def test_pgd_repeats_itself_by_seed(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    assert np.array_equal(run(pgd, victim, x, y, 3).x_adv, run(pgd, victim, x, y, 3).x_adv)
    assert not np.array_equal(run(pgd, victim, x, y, 3).x_adv, run(pgd, victim, x, y, 3, seed=1).x_adv)


@pytest.mark.parametrize("module", [fgsm, bim, pgd])
def test_no_budget_no_attack(module):
    with pytest.raises(ValueError, match="budget of one gradient"):
        run(module, linear([1.0]), np.zeros((1, 1), np.float32), np.array([0]), 0)


def test_the_gradient_is_the_losses():
    x = np.array([[0.0], [1.0]], np.float32)
    # cross-entropy of class 1: -log sigmoid(2x); its derivative is -2 (1 - sigmoid(2x))
    expected = -2.0 * (1.0 - 1.0 / (1.0 + np.exp(-2.0 * x)))
    assert np.allclose(loss_gradient(linear([2.0]), x, np.array([1, 1])), expected, atol=1e-6)
    assert loss_gradient(linear([2.0]), x[:0], np.array([])).shape == (0, 1)
    assert predict(linear([2.0]), x[:0]).shape == (0,)
