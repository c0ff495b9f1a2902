"""Query blinding: transformed queries still lead to a success, and look less alike to a stateful defence."""

import numpy as np
import pytest

from adversary.adaptive.query_blinding import blinded
from adversary.attack import norms
from adversary.catalogue import CATALOGUE
from adversary.gradients import predict
from tests.adversary.adaptive.defences import Similar, refused_share
from tests.adversary.evasion.oracles import over

blinding = CATALOGUE["query-blinding-square"].load()


def test_without_a_defence_it_succeeds(victim, prey):
    x, y = prey[0][:15], prey[1][:15]
    result = blinding(over(victim), x, y, eps=0.3, budget=1500, rng=np.random.default_rng(0))
    assert (predict(victim, result.x_adv) != y).mean() > 0.8
    assert norms(result.x_adv - x, "linf").max() <= 0.3 + 1e-5


def test_a_stateful_defence_recognises_fewer_of_its_queries(victim, prey):
    x, y, rng = prey[0][:1], prey[1][:1], np.random.default_rng(0)
    options = {"batch": 1, "samples": 20}
    plain, hidden = over(victim, refuse=Similar(1.0)), over(victim, refuse=Similar(1.0))
    CATALOGUE["nes"].load()(plain, x, y, eps=0.3, budget=500, rng=rng, **options)
    blinding(hidden, x, y, eps=0.3, budget=500, rng=rng, base="nes", copies=1, options=options)
    assert refused_share(plain) > 0.95
    assert refused_share(hidden) < 0.75


def test_it_pays_with_what_small_differences_would_have_told(victim, prey):
    x, y = prey[0][:16], prey[1][:16]
    options = {"samples": 20}
    plain = CATALOGUE["nes"].load()(over(victim), x, y, eps=0.25, budget=600, rng=np.random.default_rng(0), **options)
    hidden = blinding(
        over(victim), x, y, eps=0.25, budget=600, rng=np.random.default_rng(0), base="nes", copies=1, options=options
    )
    found = [(predict(victim, result.x_adv) != y).mean() for result in (plain, hidden)]
    assert found[0] >= 0.65
    assert found[1] <= 0.35


def test_a_success_on_transforms_alone_does_not_count(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    result = blinding(over(victim), x, y, eps=0.1, budget=300, rng=np.random.default_rng(0), copies=1, strength=3.0)
    wrong = predict(victim, result.x_adv) != y
    assert (result.queries[~wrong] > 290).all()  # it went on until the budget was spent
    assert (~wrong).any()


@pytest.mark.parametrize("shape", [(1, 28, 28), (16, 16, 3), (12,)])
def test_transforms_keep_shape_and_bounds_and_differ(shape):
    x = np.random.default_rng(0).uniform(0.0, 1.0, (40, *shape)).astype(np.float32)
    first, again = (blinded(x, np.random.default_rng(seed)) for seed in (1, 1))
    assert first.shape == x.shape
    assert first.min() >= 0.0
    assert first.max() <= 1.0
    assert np.array_equal(first, again)
    assert not any(np.array_equal(a, b) for a, b in zip(first, x, strict=True))


def test_strength_scales_the_transforms():
    x = np.random.default_rng(0).uniform(0.2, 0.6, (60, 1, 16, 16))
    changes = [np.abs(blinded(x, np.random.default_rng(2), strength) - x).mean() for strength in (0.0, 0.3, 1.0)]
    assert changes[0] == pytest.approx(0.0, abs=1e-6)
    assert changes[1] < 0.6 * changes[2]
