"""Substitutes grown from 150 digits: the arithmetic of a step, what rounds cost, and how far they get."""

import numpy as np
import pytest
import torch

from adversary.extraction import jbda, t_rnd
from tests.adversary.evasion.oracles import over
from tests.adversary.extraction.copies import agreement, made


def test_a_step_goes_along_the_sign_of_the_labels_gradient():
    w = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    x = np.array([[0.5, 0.5], [0.95, 0.02]], np.float32)
    moved = jbda.along(lambda z: z @ w.T, x, np.array([0, 1]), 0.1)
    assert np.allclose(moved, [[0.6, 0.4], [0.85, 0.12]])  # d(log p_0): towards w_0 - w_1 = (1, -5); p_1 the other way
    back = jbda.along(lambda z: z @ w.T, x, np.array([0, 1]), -0.1)
    assert np.allclose(back, [[0.4, 0.6], [1.0, 0.0]])  # and stays in [0, 1]


@pytest.mark.slow
def test_rounds_double_until_the_reservoir_holds_them(victim, pool):
    sent, _ = made(jbda, over(victim), pool[0], budget=2400, epochs=1)
    assert sent == [150, 300, 600, 1200, 1600, 2000, 2400]
    sent, _ = made(t_rnd, over(victim), pool[0], budget=1200, epochs=1)
    assert sent == [150, 300, 600, 1200]


@pytest.mark.slow
def test_it_grows_into_a_copy_of_the_bare_victim(victim, pool, unseen):
    """Papernot et al. 2017 have 81 % right on MNIST after six rounds."""
    _, copies = made(jbda, over(victim), pool[0], budget=2000)
    found = [agreement(copy, victim, unseen) for copy in copies]
    assert found[-1] > 0.75
    assert found[-1] > found[0]


@pytest.mark.slow
def test_random_targets_do_too(victim, pool, unseen):
    _, copies = made(t_rnd, over(victim), pool[0], budget=1200)
    assert agreement(copies[-1], victim, unseen) > 0.75


def test_other_labels_are_drawn_for_targets():
    drawn = t_rnd.others(np.repeat(np.arange(3), 50), 3, np.random.default_rng(0))
    assert (drawn != np.repeat(np.arange(3), 50)).all()
    assert set(drawn.tolist()) == {0, 1, 2}
