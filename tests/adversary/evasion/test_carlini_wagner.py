import numpy as np
import pytest
import torch

from adversary.attack import norms
from adversary.evasion import carlini_wagner, fgsm
from adversary.gradients import predict


def run(model, x, y, budget, **options):
    options = {"eps": np.inf, **options}
    return carlini_wagner.attack(model, x, y, budget=budget, rng=np.random.default_rng(0), **options)


def plane(x):
    """Class 1 where x0 + x1 > 1; the plane is (x0 + x1 - 1) / sqrt(2) away."""
    score = 4.0 * (x.sum(1) - 1.0)
    return torch.stack([torch.zeros(len(x)), score], dim=1)


def test_finds_the_distance_to_a_plane():
    x = np.array([[0.8, 0.6], [0.5, 0.9]], np.float32)
    result = run(plane, x, np.array([1, 1]), 2000, search_steps=8)
    assert predict(plane, result.x_adv).tolist() == [0, 0]
    assert norms(result.x_adv - x, "l2") == pytest.approx([0.4 / np.sqrt(2)] * 2, abs=0.02)


def test_steps_that_fall_settle_where_steps_of_one_size_do_not():
    """A boundary 0.1 from a grey image, as far as CIFAR-10's are, and curved: farther off every way but straight on."""
    x = np.full((1, 3072), 0.5, np.float32)
    weights = torch.from_numpy(np.random.default_rng(0).standard_normal(3072).astype(np.float32))
    weights /= weights.norm()

    def curved(images):
        delta = images - 0.5
        along = delta @ weights
        score = 40.0 * (along + 0.1 + 5.0 * (delta.square().sum(1) - along.square()))
        return torch.stack([torch.zeros(len(images)), score], dim=1)

    falling, fixed = (
        norms(run(curved, x, np.array([1]), 1000, **options).x_adv - x, "l2")[0]
        for options in ({}, {"learning_rate": 0.05})
    )
    assert falling == pytest.approx(0.1, rel=0.02)
    assert fixed > 1.3 * falling


def test_wins_always_on_the_bare_victim_and_stays_close(victim, prey):
    x, y = prey[0][:24], prey[1][:24]
    result = run(victim, x, y, 400)
    assert (predict(victim, result.x_adv) != y).all()
    sizes = norms(result.x_adv - x, "l2")
    assert np.median(sizes) < 2.0
    jump = fgsm.attack(victim, x, y, eps=0.3, budget=1, rng=np.random.default_rng(0))
    assert np.median(sizes) < 0.5 * np.median(norms(jump.x_adv - x, "l2"))
    assert result.x_adv.min() >= 0.0
    assert result.x_adv.max() <= 1.0


def test_kappa_buys_a_margin_with_distance(victim, prey):
    x, y = prey[0][:12], prey[1][:12]
    near, sure = run(victim, x, y, 400), run(victim, x, y, 400, kappa=5.0)
    with torch.no_grad():
        logits = victim(torch.from_numpy(sure.x_adv)).numpy()
    own = logits[np.arange(len(y)), y]
    logits[np.arange(len(y)), y] = -np.inf
    assert (logits.max(1) - own >= 5.0 - 1e-3).all()
    assert norms(sure.x_adv - x, "l2").mean() > norms(near.x_adv - x, "l2").mean()


def test_targets_are_reached(victim, prey):
    x, y = prey[0][:12], prey[1][:12]
    targets = (y + 1) % 10
    result = run(victim, x, y, 500, targets=targets)
    assert (predict(victim, result.x_adv) == targets).mean() > 0.9


def test_what_is_farther_than_eps_stays_where_it_was(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    result = run(victim, x, y, 100, eps=0.01)
    assert np.array_equal(result.x_adv, x)


def test_the_budget_is_shared_among_the_search_steps(victim, prey):
    assert run(victim, prey[0][:1], prey[1][:1], 23).queries.tolist() == [20]
    with pytest.raises(ValueError, match="5 search steps"):
        run(victim, prey[0][:1], prey[1][:1], 4)
    assert run(victim, prey[0][:0], prey[1][:0], 10).x_adv.shape == (0, 1, 28, 28)
