"""QEBA by enlarged images and by low frequencies."""

import numpy as np
import pytest

from adversary.attack import norms
from adversary.bases import low_frequencies
from adversary.evasion import hop_skip_jump, qeba, qeba_dct
from tests.adversary.evasion.oracles import fooled, launch, linear, over

BOTH = pytest.mark.parametrize("module", [qeba, qeba_dct])


def size(result, x):
    return norms(result.x_adv - x, "l2")


@BOTH
def test_wins_close_by_on_the_bare_victim(victim, prey, module):
    x, y = prey[0][:12], prey[1][:12]
    result = launch(module, over(victim), x, y, eps=3.0, budget=2000)
    assert (fooled(victim, result.x_adv, y) & (size(result, x) <= 3.0)).mean() > 0.8


@BOTH
def test_saves_queries_over_hop_skip_jump(victim, prey, module):
    x, y = prey[0][:8], prey[1][:8]
    ours, hop = (launch(m, over(victim), x, y, eps=0.0, budget=700) for m in (module, hop_skip_jump))
    assert np.median(size(ours, x)) < np.median(size(hop, x))


@BOTH
def test_reaches_the_plane_where_the_normal_is_smooth(module):
    x = np.full((1, 1, 16, 16), 0.4, np.float32)
    w = low_frequencies(16, 16, 0.2).lift(np.random.default_rng(1).standard_normal((3, 3)))
    w /= np.linalg.norm(w)
    b = float((w * x).sum()) + 1.0
    result = launch(module, linear(w, b), x, np.array([0]), eps=0.0, budget=3000)
    assert size(result, x)[0] == pytest.approx(1.0, rel=0.1)


def test_probes_travel_in_batches_of_the_same_size_at_every_step():
    x = np.full((1, 16, 16), 0.4, np.float32)
    oracle = linear(np.ones((16, 16)), 0.5 * 256)
    launch(qeba, oracle, x, np.array([0]), eps=0.0, budget=2000, evaluations=40, batch=50)
    assert {n for n in oracle.calls[:-1] if n > 1} == {40}


@BOTH
@pytest.mark.parametrize("shape", [(16, 16, 3), (3, 16, 16), (16, 16)])
def test_any_layout_of_an_image_will_do(module, shape):
    x = np.full((1, *shape), 0.4, np.float32)
    oracle = linear(np.ones(shape), 0.5 * np.prod(shape))
    result = launch(module, oracle, x, np.array([0]), eps=0.0, budget=300)
    assert oracle.labels(result.x_adv).tolist() == [1]


def test_sides_shrink_to_a_half_or_a_quarter():
    assert qeba.shrink(32, 32) == 0.5
    assert qeba.shrink(224, 224) == 0.25


def test_a_given_start_is_used():
    x, start = np.full((1, 8, 8), 0.4, np.float32), np.ones((1, 8, 8), np.float32)
    result = launch(qeba, linear(np.ones((8, 8)), 32.0), x, np.array([0]), eps=0.0, budget=1, starts=start)
    assert np.array_equal(result.x_adv, start)
