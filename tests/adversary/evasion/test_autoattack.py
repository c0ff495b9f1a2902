"""AutoAttack: every row wins that any of its parts wins; the parts run only on what is left."""

import numpy as np
import pytest

from adversary.attack import Result
from adversary.evasion import apgd, apgd_t, autoattack, fab, square
from adversary.gradients import predict
from tests.adversary.evasion.models import run


def test_is_at_least_as_strong_as_its_strongest_part(victim, prey):
    x, y = prey[0][:24], prey[1][:24]
    won = predict(victim, run(autoattack, victim, x, y, eps=0.1, budget=691).x_adv) != y
    by_apgd = predict(victim, run(apgd, victim, x, y, eps=0.1, budget=10).x_adv) != y
    assert (won >= by_apgd).all()
    assert 0.2 < won.mean() < 1.0


def test_wins_always_on_the_bare_victim(victim, prey):
    x, y = prey[0][:24], prey[1][:24]
    result = run(autoattack, victim, x, y, eps=0.3, budget=6910)
    assert (predict(victim, result.x_adv) != y).all()
    assert result.queries.max() <= 101


@pytest.fixture
def staged(monkeypatch):
    """Parts that win one row each, the first given, and tell how many rows they saw with what budget."""
    seen = []

    def part(name):
        def attack(target, x, y, *, eps, budget, rng):
            seen.append((name, len(x), budget))
            x_adv = x + np.float32(0.01)
            x_adv[0] = 1.0 - x[0]
            return Result(x_adv, np.full(len(x), budget))

        return attack

    for module in (apgd, apgd_t, fab, square):
        monkeypatch.setattr(module, "attack", part(module.__name__.rpartition(".")[2]))
    return seen


def dark(x):
    """Class 1 where the mean passes 0.5; the same told by logits of four classes."""
    mean = x.flatten(1).mean(1, keepdim=True)
    return 100.0 * (mean - 0.5) * (x.new_tensor([[-1.0, 1.0, 0.0, 0.0]]))


def test_each_part_sees_what_withstood_those_before_with_its_share_of_the_budget(staged):
    x = np.full((5, 1, 4, 4), 0.2, np.float32)
    result = run(autoattack, dark, x, np.zeros(5, int), eps=0.9, budget=6910)
    assert staged == [("apgd", 5, 101), ("apgd_t", 4, 909), ("fab", 3, 900), ("square", 2, 5000)]
    assert result.queries.tolist() == [101, 1010, 1910, 6910, 6910]
    assert predict(dark, result.x_adv).tolist() == [1, 1, 1, 1, 0]
    assert result.x_adv[4].max() == pytest.approx(0.21)  # Auto-PGD's best try


def test_a_part_that_goes_past_eps_wins_nothing(staged):
    x = np.full((2, 1, 4, 4), 0.2, np.float32)
    run(autoattack, dark, x, np.zeros(2, int), eps=0.1, budget=6910)
    assert [rows for _, rows, _ in staged] == [2, 2, 2, 2]
