"""MI-FGSM: the running mean by hand, and what a surrogate's images do to the victim."""

import numpy as np
import pytest

from adversary.evasion import bim, mi_fgsm
from adversary.gradients import predict, within_linf
from tests.adversary.evasion.models import planes, run


def test_steps_follow_the_sum_of_normalised_gradients():
    shown = iter([[4.0, -1.0], [-1.0, -3.0], [-1.0, 1.0]])
    x = np.full((1, 2), 0.5, np.float32)
    result = mi_fgsm.ascend(lambda at: np.array([next(shown)]), x, eps=0.3, steps=3, decay=1.0, step=None)
    # g1 = (.8, -.2); g2 = g1 + (-.25, -.75) = (.55, -.95); g3 = g2 + (-.5, .5) = (.05, -.45)
    assert result.x_adv[0].tolist() == pytest.approx([0.8, 0.2])


def test_without_decay_the_last_gradient_decides():
    shown = iter([[4.0, -1.0], [-1.0, -3.0], [-1.0, 1.0]])
    x = np.full((1, 2), 0.5, np.float32)
    result = mi_fgsm.ascend(lambda at: np.array([next(shown)]), x, eps=0.3, steps=3, decay=0.0, step=None)
    assert result.x_adv[0].tolist() == pytest.approx([0.4, 0.4])


def test_on_a_linear_model_it_is_bim():
    model, x, y = planes([[0.0, 0.0], [1.0, -2.0]]), np.full((1, 2), 0.5, np.float32), np.array([1])
    plain = run(bim, model, x, y, eps=0.2, budget=5, step=0.04)
    assert run(mi_fgsm, model, x, y, eps=0.2, budget=5).x_adv == pytest.approx(plain.x_adv)


def test_a_gradient_of_nothing_moves_nothing():
    model = planes([[0.0, 0.0], [0.0, 0.0]])
    x = np.full((1, 2), 0.5, np.float32)
    assert np.array_equal(run(mi_fgsm, model, x, np.array([0]), eps=0.2, budget=3).x_adv, x)


def test_images_made_on_the_surrogate_carry_over_to_the_victim_and_noise_does_not(victim, surrogate, prey):
    x, y = prey
    eps = 0.25
    result = run(mi_fgsm, surrogate, x, y, eps=eps, budget=10)
    assert (predict(surrogate, result.x_adv) != y).mean() > 0.95
    noise = within_linf(x, x + eps * np.sign(np.random.default_rng(0).standard_normal(x.shape)), eps)
    carried, by_noise = ((predict(victim, sent) != y).mean() for sent in (result.x_adv, noise))
    assert carried > 0.25
    assert carried > 2 * by_noise
