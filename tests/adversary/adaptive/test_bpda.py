"""BPDA: a purifier without a gradient stops PGD through it, and not PGD past it."""

import numpy as np
import pytest
import torch

from adversary.adaptive import bpda
from adversary.attack import norms
from adversary.evasion import pgd
from adversary.gradients import predict


@pytest.fixture
def defended(victim):
    return lambda x: victim(torch.round(x * 7) / 7)


def run(victim, x, y, *, eps=0.2, budget=20, seed=0, **options):
    return bpda.attack(victim, x, y, eps=eps, budget=budget, rng=np.random.default_rng(seed), **options)


def test_gets_through_what_stops_pgd(victim, defended, prey):
    x, y = prey[0][:32], prey[1][:32]
    through = pgd.attack(defended, x, y, eps=0.2, budget=20, rng=np.random.default_rng(0))
    past = run(victim, x, y)
    assert (predict(defended, through.x_adv) != y).mean() < 0.1
    assert (predict(defended, past.x_adv) != y).mean() > 0.95
    assert norms(past.x_adv - x, "linf").max() <= 0.2 + 1e-6
    assert past.queries.tolist() == [20] * 32


def test_any_purifier_will_do_random_ones_with_more_samples(victim, prey):
    import cv2

    x, y, rng = prey[0][:24], prey[1][:24], np.random.default_rng(3)

    def blurred(images):
        weak = images + 0.15 * rng.standard_normal(images.shape)
        return np.stack([cv2.medianBlur(np.float32(image[0]), 3)[None] for image in weak])

    result = run(victim, x, y, eps=0.3, budget=100, purify=blurred, samples=5)
    plain = pgd.attack(victim, x, y, eps=0.3, budget=20, rng=np.random.default_rng(0))
    wrong = [(predict(victim, blurred(x_adv)) != y).mean() for x_adv in (x, plain.x_adv, result.x_adv)]
    assert wrong[0] < 0.3
    assert wrong[2] > 0.8
    assert wrong[2] >= wrong[1]
    assert result.queries.tolist() == [100] * 24


def test_the_seed_decides(victim, prey):
    x, y = prey[0][:2], prey[1][:2]
    a, b, c = (run(victim, x, y, seed=seed, budget=3).x_adv for seed in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_less_than_a_step_is_no_budget(victim, prey):
    with pytest.raises(ValueError, match="budget"):
        run(victim, prey[0][:1], prey[1][:1], budget=4, samples=5)
