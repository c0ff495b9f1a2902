"""RayS: signs, flipped block by block."""

from itertools import islice

import numpy as np
import pytest

from adversary.attack import norms
from adversary.evasion import rays
from tests.adversary.evasion.oracles import fooled, launch, linear, over


def test_wins_on_the_bare_victim_within_few_queries(victim, prey):
    x, y = prey[0][:20], prey[1][:20]
    result = launch(rays, over(victim), x, y, eps=0.3, budget=1000)
    assert (fooled(victim, result.x_adv, y) & (norms(result.x_adv - x, "linf") <= 0.3)).mean() > 0.8
    assert np.median(result.queries) < 300


def test_finds_the_corner_of_a_plane():
    w = np.array([1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0, 1.0])
    x = np.full((1, 8), 0.5, np.float32)
    result = launch(rays, linear(w, float(x[0] @ w) + 1.6), x, np.array([0]), eps=0.0, budget=1000)
    assert norms(result.x_adv - x, "linf")[0] == pytest.approx(0.2, abs=0.002)
    assert np.array_equal(np.sign(result.x_adv - x)[0], np.sign(w))


def test_blocks_halve_down_to_single_values_and_begin_again():
    found = [(b.start, b.stop) for b in islice(rays.blocks(5), 1 + 2 + 3 + 5 + 5)]
    assert found[:6] == [(0, 5), (0, 3), (3, 5), (0, 2), (2, 4), (4, 5)]
    assert found[6:11] == found[11:16] == [(i, i + 1) for i in range(5)]


def test_one_query_dismisses_a_worse_direction():
    x = np.full((1, 2), 0.5, np.float32)
    oracle = linear([1.0, 1.0], 1.2)
    launch(rays, oracle, x, np.array([0]), eps=0.0, budget=100)
    searched = oracle.calls
    assert set(searched) == {1}
    stubborn = linear([1.0, 1.0], 5.0)  # nothing is adversarial: a query a block
    launch(rays, stubborn, x, np.array([0]), eps=0.0, budget=7)
    assert stubborn.sent == 7


def test_more_queries_come_closer(victim, prey):
    x, y = prey[0][:4], prey[1][:4]
    early, late = (norms(launch(rays, over(victim), x, y, eps=0.0, budget=b).x_adv - x, "linf") for b in (60, 600))
    assert (late < early).all()
