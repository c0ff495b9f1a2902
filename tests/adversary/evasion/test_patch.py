"""Adversarial patch: one sticker for all places, larger ones win more, grey ones do not."""

import numpy as np
import pytest
import torch

from adversary.evasion import patch
from adversary.gradients import predict
from adversary.sizes import sizes
from adversary.tensors import rows
from tests.adversary.evasion.models import run


def test_a_patch_is_round_and_stays_in_its_box():
    assert patch.disc(1).tolist() == [[True]]
    assert patch.disc(2).all()
    assert patch.disc(4).int().tolist() == [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]
    x = torch.zeros(3, 2, 8, 8)
    places = patch.Places(np.array([0, 4, 2]), np.array([4, 0, 3]), np.zeros(3))
    out = patch.put(torch.stack([torch.full((4, 4), 0.3), torch.full((4, 4), 0.7)]), x, places)
    for image, top, left in zip(out, places.top, places.left, strict=True):
        box = image[:, top : top + 4, left : left + 4]
        assert torch.equal(box[0] != 0, patch.disc(4))
        assert box[0].max().item() == pytest.approx(0.3)
        assert box[1].max().item() == pytest.approx(0.7)
        assert (image != 0).sum() == 2 * 12
    assert not x.any()


def test_a_turn_moves_the_pattern_not_the_box():
    bar = torch.zeros(1, 9, 9)
    bar[0, 4] = 1.0
    turned = patch.put(bar, torch.zeros(1, 1, 9, 9), patch.Places(np.array([0]), np.array([0]), np.array([np.pi / 2])))
    assert turned[0, 0, 1:8, 4].min() > 0.99
    assert turned[0, 0, 4, [1, 2, 6, 7]].max() < 0.01


def test_places_are_anywhere_it_fits():
    places = patch.place(500, (10, 14), 4, 22.5, np.random.default_rng(0))
    assert (places.top.min(), places.top.max(), places.left.min(), places.left.max()) == (0, 6, 0, 10)
    assert 0.35 < np.abs(places.turn).max() <= np.deg2rad(22.5)


def success(victim, prey, eps, **options):
    x, y = prey
    result = run(patch, victim, x, y, eps=eps, **options)
    assert (sizes(x, result.x_adv, "patch") <= eps).all()
    return (predict(victim, result.x_adv) != y).mean()


def test_larger_patches_win_more_on_the_bare_victim(victim, prey):
    small, large = success(victim, prey, 0.08, budget=25), success(victim, prey, 0.3, budget=40)
    assert large > 0.6
    assert small < large - 0.2


def test_it_is_the_training_that_wins(victim, prey):
    x, y = prey
    trained = success(victim, prey, 0.25, budget=40)
    blank = patch.put(
        torch.full((1, 14, 14), 0.5), rows(x), patch.place(64, (28, 28), 14, 0.0, np.random.default_rng(0))
    )
    assert trained > (predict(victim, blank.numpy()) != y).mean() + 0.15


def test_a_patch_works_on_images_it_never_saw(victim, prey):
    x, y = prey
    rng = np.random.default_rng(0)
    sticker = patch.train(victim, x[:32], y[:32], side=14, passes=60, rng=rng)
    stuck = patch.put(sticker, rows(x[32:]), patch.place(32, (28, 28), 14, 22.5, rng)).numpy()
    assert (predict(victim, stuck) != y[32:]).mean() > 0.4


def test_a_label_is_reached(victim, prey):
    x, y = prey
    result = run(patch, victim, x, y, eps=0.36, budget=50, label=3)
    assert (predict(victim, result.x_adv)[y != 3] == 3).mean() > 0.5


def test_less_than_a_pixel_is_nothing(victim, prey):
    with pytest.raises(ValueError, match="smaller than a pixel"):
        run(patch, victim, prey[0][:1], prey[1][:1], eps=0.001, budget=2)
