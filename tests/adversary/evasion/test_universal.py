"""UAP: one perturbation fools most images, those it never saw included."""

import numpy as np
import pytest

from adversary.evasion import universal
from adversary.gradients import predict, within_linf
from tests.adversary.evasion.models import planes, run

EPS = 0.3


def test_one_perturbation_fools_most_of_the_bare_victims_images(victim, prey):
    x, y = prey[0][:40], prey[1][:40]
    result = run(universal, victim, x, y, eps=EPS, budget=500)
    assert (predict(victim, result.x_adv) != y).mean() > 0.5
    inside = (x > EPS) & (x < 1 - EPS)  # where nothing was clipped, all rows moved alike
    moves = [(result.x_adv - x)[:, 0][inside[:, 0]][k] for k in range(3)]
    assert np.abs(moves).max() <= EPS + 1e-6
    assert result.queries.max() <= 500


def test_it_carries_over_to_images_it_never_saw_and_noise_does_not(victim, prey):
    x, y = prey
    rng, eps = np.random.default_rng(0), 0.25
    common, cost = universal.perturbation(victim, x[:40], y[:40], eps=eps, budget=500, rng=rng)
    noise = eps * np.sign(rng.standard_normal(common.shape))
    fooled, by_noise = (
        (predict(victim, within_linf(x[40:], x[40:] + v, eps)) != y[40:]).mean() for v in (common, noise)
    )
    assert fooled > 0.3
    assert fooled > 3 * by_noise
    assert cost.max() <= 500


def test_rows_share_what_they_teach():
    model = planes([[0.0, 0.0], [1.0, 1.0]], [0.0, -1.0])
    x = np.array([[0.6, 0.5], [0.5, 0.7], [0.55, 0.55]], np.float32)
    result = run(universal, model, x, np.array([1, 1, 1]), eps=0.2, budget=100, fooled=1.0)
    assert (predict(model, result.x_adv) == 0).all()
    assert np.ptp(result.x_adv - x, axis=0) == pytest.approx([0.0, 0.0], abs=1e-6)
