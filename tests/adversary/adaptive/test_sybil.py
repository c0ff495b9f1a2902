"""Sybil: a monitor that bans callers by what they sent stops one caller, and not the same attack by many."""

import numpy as np
import pytest

from adversary.catalogue import CATALOGUE
from adversary.gradients import predict
from tests.adversary.adaptive.defences import known

sybil = CATALOGUE["sybil-square"].load()


def run(oracle, x, y, *, eps=0.2, budget=400, seed=0, **options):
    return sybil(oracle, x, y, eps=eps, budget=budget, rng=np.random.default_rng(seed), **options)


def test_many_callers_get_through_where_one_is_banned(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    won, banned = [], []
    for identities in (1, 40):
        oracles = [known(victim, radius=3.0, most=5) for _ in x]
        found = [run(o, x[i : i + 1], y[i : i + 1], identities=identities).x_adv for i, o in enumerate(oracles)]
        won.append((predict(victim, np.concatenate(found)) != y).mean())
        banned.append(sum(len(o.banned) for o in oracles))
    assert won[0] <= 0.4
    assert won[1] > 0.8
    assert banned[0] > 0


def test_callers_take_turns_row_by_row(victim, prey):
    oracle = known(victim)
    run(oracle, prey[0][:1], prey[1][:1], eps=1e-3, budget=7, identities=3)
    assert oracle.callers == [0, 1, 2, 0, 1, 2, 0]


def test_a_batch_is_dealt_out_in_a_call_a_caller(victim, prey):
    oracle = known(victim)
    result = run(
        oracle, prey[0][:1], prey[1][:1], eps=1e-3, budget=51, identities=10, base="nes", options={"samples": 50}
    )
    assert result.queries.tolist() == [51]
    assert oracle.calls == [6] + [5] * 9
    assert oracle.callers == sorted(oracle.callers)


def test_answers_come_back_to_their_rows(victim, prey):
    """The same attack as one caller: what many are told, put together, is what one is told."""
    x, y = prey[0][:1], prey[1][:1]
    options = {"base": "nes", "options": {"samples": 20}, "budget": 100}
    one, many = (run(known(victim), x, y, identities=k, **options) for k in (1, 7))
    assert np.allclose(one.x_adv, many.x_adv, atol=1e-5)


def test_callers_may_come_at_random(victim, prey):
    oracle = known(victim)
    run(oracle, prey[0][:1], prey[1][:1], eps=1e-3, budget=200, identities=5, order="random")
    counts = np.bincount(oracle.callers, minlength=5)
    assert counts.min() > 20
    assert oracle.callers[:10] != [0, 1, 2, 3, 4] * 2


def test_each_victim_has_callers_of_its_own_and_the_caller_is_put_back(victim, prey):
    oracle = known(victim)
    oracle.use(2)
    run(oracle, prey[0][:1], prey[1][:1], eps=1e-3, budget=20, identities=4)
    assert sorted(set(oracle.callers)) == [8, 9, 10, 11]
    assert oracle.identity == 2


def test_an_order_that_is_none_is_an_error(victim, prey):
    with pytest.raises(ValueError, match="in-turn or random"):
        run(known(victim), prey[0][:1], prey[1][:1], order="backwards")


def test_refusals_of_some_callers_are_no_information_about_the_others_rows(victim, prey):
    x, y = prey[0][:1], prey[1][:1]
    oracle = known(victim, banned={1, 2})
    result = run(oracle, x, y, eps=0.3, budget=300, identities=3, base="nes", options={"samples": 12, "batch": 12})
    assert np.isfinite(result.x_adv).all()
    assert not np.array_equal(result.x_adv, x)
