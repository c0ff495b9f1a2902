"""Averaging: noise that keeps the label but bends the scores starves Square; repeats see through it."""

import numpy as np
import pytest
import torch

from adversary.catalogue import CATALOGUE
from adversary.gradients import predict
from tests.adversary.evasion.oracles import InMemory, linear


def noisy(model, sigma, seed):
    """Noise on the logits that leaves the largest where it is."""
    rng = np.random.default_rng(seed)

    def logits(x):
        with torch.no_grad():
            z = model(torch.from_numpy(x)).numpy().astype(np.float64)
        bent = z + sigma * rng.standard_normal(z.shape)
        for row, true in zip(bent, z.argmax(1), strict=True):
            most = row.argmax()
            row[[true, most]] = row[[most, true]]
        return bent

    return InMemory(logits)


def success(victim, x, y, sigma, repeats, rows):
    attack = CATALOGUE["averaging-square"].load()
    won = []
    for i in range(len(x)):
        oracle, one = noisy(victim, sigma, i), slice(i, i + 1)
        rng = np.random.default_rng([0, i])
        result = attack(oracle, x[one], y[one], eps=0.25, budget=rows * repeats, rng=rng, repeats=repeats)
        won.append(predict(victim, result.x_adv)[0] != y[i])
    return np.mean(won)


def test_repeats_win_back_what_noise_took(victim, prey):
    x, y = prey[0][:10], prey[1][:10]
    plain = success(victim, x, y, 0.0, 1, 80)
    starved = success(victim, x, y, 0.5, 1, 80)
    averaged = success(victim, x, y, 0.5, 15, 80)
    assert starved <= plain - 0.4
    assert averaged >= starved + 0.3


@pytest.mark.parametrize(("jitter", "different"), [(0.0, 1), (0.01, 5)])
def test_jitter_makes_every_copy_a_query_of_its_own(jitter, different):
    oracle, shown = linear(np.ones((4, 4)), 9.0), []
    original = oracle.logits
    oracle.logits = lambda x: shown.append(x.tobytes()) or original(x)
    x = np.full((1, 1, 4, 4), 0.5, np.float32)
    CATALOGUE["averaging-square"].load()(
        oracle, x, np.array([0]), eps=0.01, budget=5, rng=np.random.default_rng(0), repeats=5, jitter=jitter
    )
    assert len(shown) == 5
    assert len(set(shown)) == different
