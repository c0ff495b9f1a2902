"""What OARS's variants share: the search for the least accepted size, and the way back to the boundary."""

import numpy as np
import pytest

from adversary.adaptive.oars import Search, least_accepted, retreat, start
from adversary.attack import BudgetSpent, Meter
from tests.adversary.adaptive.defences import Similar
from tests.adversary.evasion.oracles import linear


def counted(refused):
    """A refusing function that remembers what it was asked."""
    asked = []

    def ask(size):
        asked.append(size)
        return refused(size)

    return ask, asked


def test_the_least_accepted_size_is_found():
    ask, asked = counted(lambda size: size < 0.3)
    assert least_accepted(ask, 0.0, 1.0, Search(10, 4, 0.0)) == pytest.approx(0.3, abs=1e-3)
    assert asked.count(0.5) == 4  # every try, where it is accepted
    assert asked.count(0.25) == 1  # a single refusal is enough


def test_a_share_of_refusals_may_be_allowed():
    asked = []

    def every_second(size):
        asked.append(size)
        return len(asked) % 2 == 0

    assert least_accepted(every_second, 0.0, 1.0, Search(3, 10, 0.5)) == 0.125
    assert least_accepted(every_second, 0.0, 1.0, Search(3, 10, 0.4)) == 1.0


def test_a_defence_that_refuses_all_leaves_the_largest_size():
    assert least_accepted(lambda size: True, 0.0, 1.0, Search(10, 20, 0.05)) == 1.0


def test_the_way_back_ends_at_the_boundary_or_at_the_first_refusal():
    x, point = np.zeros((1, 2, 2)), np.ones((1, 2, 2))
    plane = linear(np.ones((2, 2)), 1.0)  # crossed a quarter of the way
    assert retreat(Meter(plane, 0, 100, 1), x, point, 1e-3).max() == pytest.approx(0.25, abs=1e-3)
    guarded = linear(np.ones((2, 2)), 1.0, refuse=Similar(0.4))  # the way is 2 long: 1, then .5, then .25 to the last
    back = retreat(Meter(guarded, 0, 100, 1), x, point, 1e-3)
    assert back.max() == 0.5
    assert guarded.refuse.refusals == 1


def test_a_start_that_is_no_use_is_replaced_by_noise():
    x = np.zeros((1, 2, 2))
    meter = Meter(linear(np.ones((2, 2)), 1.0), 0, 100, 1)
    found = start(meter, x, np.random.default_rng(0), given=np.zeros((1, 2, 2)))
    assert found.sum() == pytest.approx(1.0, abs=0.01)
    with pytest.raises(BudgetSpent):
        start(Meter(linear(np.ones((2, 2)), 5.0), 0, 20, 1), x, np.random.default_rng(0), given=None)
