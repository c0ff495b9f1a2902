"""Calls that nobody took, in the units of a campaign: what is found is the same, or the unit fails and says why."""

import grpc
import numpy as np

from adversary import work
from adversary.campaign import Attack, Benign, Identities, Model
from adversary.plan import Task, Unit
from adversary.serving import Place
from tests.adversary.tiny import Tiny, serving

X = np.random.default_rng(0).uniform(0.2, 0.4, (3, 1, 6, 6)).astype(np.float32)
Y = np.zeros(3, int)


def brightness(x):
    high = x.reshape(len(x), -1).mean(1)
    return np.stack([1.0 - high, high], axis=1)


def done(kind, *busy, budget=60, eps=0.5):
    """A unit's arrays, or why it failed, where these calls find the server busy."""
    refuse = lambda x, n: grpc.StatusCode.UNAVAILABLE if n in busy else None
    attack = Attack(attack="square", eps=eps, budget=budget) if kind == "hunt" else None
    arrays = {"x": X, "y": Y, "clean": Y, "beside_x": X[:0], "beside_y": Y[:0]}
    with serving(Tiny(brightness, refuse, shape=(-1, 1, 6, 6))) as tiny:
        place = Place(tiny.address, None, "secret", (), ())
        unit = Unit(kind, "guarded", "square" if attack else "", 0, 0, 3)
        task = Task(unit, Model(name="tiny"), place, attack, Benign(), Identities(), arrays, classes=2)
        return work.attempt(task), len(tiny.requests)


def test_an_attack_finds_the_same_in_as_many_queries():
    (quiet, calls), (busy, more) = done("hunt"), done("hunt", 2, 3, 9)
    assert more == calls + 3
    assert quiet.arrays.keys() == busy.arrays.keys()
    for name, values in quiet.arrays.items():
        assert np.array_equal(values, busy.arrays[name]), name
    assert quiet.arrays["queries"].sum() > 9


def test_a_budget_that_tries_ate_up_is_no_result():
    """Every victim costs all its queries: the last row is spent on a try."""
    assert isinstance(done("hunt", budget=3, eps=0.05)[0], work.Done)
    failed, _ = done("hunt", 2, budget=3, eps=0.05)
    assert failed.reason.startswith("BudgetSpent: 12 of 12 rows were sent, 1 of them again")


def test_honest_callers_are_not_asked_more_than_they_have():
    failed, calls = done("benign", 1)
    assert failed.reason.startswith("BudgetSpent: 3 of 3 rows were sent, 1 of them again")
    assert calls == 3
