"""What every adaptive query attack must keep, whatever it finds: budget, bounds, seed, and its nerve when refused."""

import numpy as np
import pytest

from adversary.attack import REFUSED, Result
from adversary.catalogue import CATALOGUE
from tests.adversary.adaptive.defences import known

NAMES = sorted(n for n, e in CATALOGUE.items() if e.family == "adaptive" and e.access != "gradients")
BUDGET = 150


def run(name, oracle, x, y, *, budget=BUDGET, seed=0, **options) -> Result:
    entry = CATALOGUE[name]
    return entry.load()(oracle, x, y, eps=1e-3, budget=budget, rng=np.random.default_rng(seed), **options)


def test_all_are_here():
    assert len(NAMES) == 12


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_back_has_the_shape_type_and_bounds_of_x_which_is_left_alone(name, victim, prey):
    x, y = prey[0][:2], prey[1][:2]
    before = x.copy()
    result = run(name, known(victim), x, y)
    assert result.x_adv.shape == x.shape
    assert result.x_adv.dtype == np.float32
    assert result.x_adv.min() >= 0.0
    assert result.x_adv.max() <= 1.0
    assert result.queries.shape == (2,)
    assert np.array_equal(x, before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", [1, 2, 57, BUDGET])
def test_nothing_is_sent_past_the_budget_and_all_that_is_sent_is_told(name, victim, prey, budget):
    oracle = known(victim)
    result = run(name, oracle, prey[0][:1], prey[1][:1], budget=budget)
    assert result.queries.tolist() == [oracle.sent]
    assert oracle.sent <= budget
    if budget == BUDGET:
        assert oracle.sent > BUDGET / 2


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_everything(name, victim, prey):
    x, y = prey[0][:1], prey[1][:1]
    first, again, other = (run(name, known(victim), x, y, seed=seed, budget=550) for seed in (0, 0, 1))
    assert np.array_equal(first.x_adv, again.x_adv)
    assert first.queries.tolist() == again.queries.tolist()
    assert not np.array_equal(first.x_adv, other.x_adv)


@pytest.mark.parametrize("name", NAMES)
def test_an_endpoint_that_never_answers_gives_nothing_and_harms_nothing(name, victim, prey):
    oracle = known(victim, refuse=lambda sent, x: True)
    result = run(name, oracle, prey[0][:1], prey[1][:1])
    assert result.queries.tolist() == [oracle.sent]
    assert oracle.sent <= BUDGET
    assert np.isfinite(result.x_adv).all()


@pytest.mark.parametrize("name", NAMES)
def test_refusals_on_the_way_are_survived(name, victim, prey):
    asked = []

    def every_third(sent, x):
        asked.append(len(x))
        return len(asked) % 3 == 0

    oracle = known(victim, refuse=every_third)
    result = run(name, oracle, prey[0][:1], prey[1][:1], budget=400)
    assert result.queries.tolist() == [oracle.sent]
    assert oracle.sent <= 400
    assert np.isfinite(result.x_adv).all()


@pytest.mark.parametrize("name", [n for n in NAMES if CATALOGUE[n].access == "labels"])
def test_what_a_decision_attack_hands_back_was_answered_wrongly(name, victim, prey):
    x, y = prey[0][:1], prey[1][:1]
    result = run(name, known(victim), x, y, budget=400)
    assert not np.array_equal(result.x_adv, x)
    assert known(victim).labels(result.x_adv)[0] not in {REFUSED, y[0]}
