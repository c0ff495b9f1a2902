"""What every extraction keeps to: its budget, its batch, its seed, whatever the endpoint refuses."""

import inspect

import numpy as np
import pytest

from adversary.catalogue import CATALOGUE
from tests.adversary.evasion.oracles import over
from tests.adversary.extraction.copies import made

NAMES = sorted(name for name, entry in CATALOGUE.items() if entry.goal == "extraction")
QUICK = {"epochs": 1, "replays": 1}


def module(name):
    return inspect.getmodule(CATALOGUE[name].function)


def run(name, oracle, pool, budget=120, seed=0, **options):
    known = inspect.signature(CATALOGUE[name].function).parameters
    quick = {option: value for option, value in QUICK.items() if option in known}
    x, y = pool
    return made(module(name), oracle, x[:200], y[:200], budget=budget, seed=seed, **{**quick, "batch": 10, **options})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", [1, 7, 120])
def test_the_budget_and_the_batch_are_kept(name, budget, linear, pool):
    oracle = over(linear)
    sent, copies = run(name, oracle, pool, budget)
    assert oracle.sent <= budget
    assert max(oracle.calls, default=0) <= 10
    assert sent == sorted(sent)
    labels = copies[-1](pool[0][:5])
    assert labels.shape == (5,)
    assert labels.dtype == np.int64
    assert set(labels.tolist()) <= set(range(10))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_copy(name, linear, pool):
    first, again, other = (run(name, over(linear), pool, seed=seed)[1][-1](pool[0]) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    if name not in {"tramer", "data-free"}:  # one finds what there is, one nothing yet
        assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", NAMES)
def test_an_endpoint_that_refuses_everything_gives_nothing_away(name, linear, pool):
    oracle = over(linear, refuse=lambda sent, x: True)
    _, copies = run(name, oracle, pool)
    assert oracle.sent <= 120
    assert copies[-1](pool[0][:5]).shape == (5,)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_refused_now_and_then_is_done_without(name, linear, pool):
    oracle = over(linear, refuse=lambda sent, x: sent // 10 % 2 == 1)
    _, copies = run(name, oracle, pool)
    assert oracle.sent <= 120
    assert copies[-1](pool[0][:5]).shape == (5,)


@pytest.mark.parametrize("name", NAMES)
def test_an_earlier_copy_is_not_changed_by_what_is_learned_later(name, linear, pool):
    x, y = pool
    options = {option: 1 for option in QUICK if option in inspect.signature(CATALOGUE[name].function).parameters}
    steps = CATALOGUE[name].load_extraction()(
        over(linear), x[:200], y[:200], budget=400, rng=np.random.default_rng(0), classes=10, batch=10, **options
    )
    kept = [(copy, copy(x[:50])) for copy in steps]
    assert all(np.array_equal(copy(x[:50]), then) for copy, then in kept)
