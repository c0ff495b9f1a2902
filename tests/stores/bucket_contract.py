"""What every store must do with token buckets; `tests.stores.contract` has these tests, too."""

import asyncio
import math
from fractions import Fraction

import numpy as np
import pytest

from guard.stores.buckets import SKEW_S
from guard.types import Bucket, Update

NOW = 1.8e9  # a day of our time, where doubles are 2.4e-7 s apart


async def take(store, *buckets, now=NOW, scope="model", caller="a", force=False):
    return await store.take(scope, caller, buckets, now, force=force)


def rows(cost=1.0, *, rate=2.0, burst=10.0, name="rows"):
    return Bucket(name, rate, burst, cost)


class Plain:
    """One caller's buckets in exact numbers, as theoretical arrival times: the other form of GCRA. No clock steps."""

    def __init__(self):
        self.arrivals = {}

    def take(self, buckets, now, *, force):
        now, waits, after = Fraction(now), [], {}
        for bucket in buckets:
            per_unit, cost, burst = 1 / Fraction(bucket.rate_per_s), Fraction(bucket.cost), Fraction(bucket.burst)
            arrival = max(self.arrivals.get(bucket.name, now), now)
            full_wait = arrival + (cost or burst / 10**6) * per_unit - now - burst * per_unit
            waits.append(math.inf if cost > burst else float(max(full_wait, 0)))
            after[bucket.name] = min(arrival + cost * per_unit, max(now + 2 * burst * per_unit, arrival))
        if force or not any(waits):
            self.arrivals |= after
        return tuple(waits)


async def test_a_burst_at_once_then_the_rate(store):
    for rate in (2.0, 3.0, 7.3):
        caller = f"rate {rate}"
        assert [await take(store, rows(rate=rate), caller=caller) for _ in range(10)] == [(0.0,)] * 10
        (wait,) = await take(store, rows(rate=rate), caller=caller)
        assert wait == pytest.approx(1 / rate)
        assert await take(store, rows(rate=rate), now=NOW + 0.9 * wait, caller=caller) != (0.0,)
        assert await take(store, rows(rate=rate), now=NOW + wait, caller=caller) == (0.0,)
        assert await take(store, rows(rate=rate), now=NOW + wait, caller=caller) != (0.0,)
        assert await take(store, rows(10.0, rate=rate), now=NOW + 1000.0, caller=caller) == (
            0.0,
        )  # not above the burst
        assert await take(store, rows(rate=rate), now=NOW + 1000.0, caller=caller) != (0.0,)


async def test_the_long_run_has_the_rate(store):
    got = 0
    for step in range(400):
        got += await take(store, rows(rate=2.0), now=NOW + step / 4) == (0.0,)
    assert got == 10 + 2 * 99.75 // 1


async def test_what_is_asked_again_after_the_wait_is_had(store):
    rng = np.random.default_rng(0)
    now = NOW
    for _ in range(100):
        bucket = rows(float(rng.uniform(0.1, 9.0)), rate=0.37)
        (wait,) = await take(store, bucket, now=now)
        if wait:
            now += wait
            assert await take(store, bucket, now=now) == (0.0,)


async def test_all_is_taken_or_nothing(store):
    small, large = rows(rate=1.0, burst=2.0, name="small"), rows(rate=0.5, burst=4.0, name="large")
    assert [await take(store, small, large) for _ in range(2)] == [(0.0, 0.0)] * 2
    assert [await take(store, small, large) for _ in range(5)] == [(1.0, 0.0)] * 5  # of the second nothing is taken
    assert [await take(store, large) for _ in range(3)] == [(0.0,), (0.0,), (2.0,)]
    assert await take(store, large, small) == (2.0, 1.0)
    assert await take(store, small, large, now=NOW + 1.0) == (0.0, 1.0)
    assert await take(store, small, now=NOW + 1.0) == (0.0,)
    assert await take(store) == ()


async def test_a_cost_of_nothing_only_looks(store):
    look, one = rows(0.0, burst=3.0), rows(burst=3.0)
    assert [await take(store, look) for _ in range(9)] == [(0.0,)] * 9
    assert [await take(store, one) for _ in range(2)] == [(0.0,)] * 2
    assert [await take(store, look) for _ in range(9)] == [(0.0,)] * 9
    assert await take(store, one) == (0.0,)
    (wait,) = await take(store, look)
    assert 0.0 < wait < 1e-5  # nothing is left just now
    assert await take(store, look, rows(name="other", burst=1.0)) == (wait, 0.0)
    assert await take(store, rows(name="other", burst=1.0)) == (0.0,)  # it was not taken
    assert await take(store, look, now=NOW + 0.1) == (0.0,)


async def test_what_costs_more_than_the_burst_is_never_had(store):
    assert await take(store, rows(10.5), rows(name="other", burst=1.0)) == (math.inf, 0.0)
    assert await take(store, rows(10.0), rows(name="other", burst=1.0)) == (0.0, 0.0)
    assert await take(store, rows(10.5), now=NOW + 1e6) == (math.inf,)


async def test_what_is_forced_makes_debt(store):
    assert await take(store, rows(4.0), force=True) == (0.0,)
    assert await take(store, rows(8.0), force=True) == (1.0,)
    assert await take(store, rows(1.0)) == (1.5,)  # 12 of 10 are used
    assert (await take(store, rows(0.0)))[0] == pytest.approx(1.0, abs=1e-5)
    assert await take(store, rows(1.0), now=NOW + 1.5) == (0.0,)


async def test_debt_is_at_most_one_burst_deep(store):
    assert await take(store, rows(1e9), force=True) == (math.inf,)
    for _ in range(5):
        await take(store, rows(7.0), force=True)
    assert await take(store, rows(10.0)) == (10.0,)  # 20 are used, by 2 a second
    assert await take(store, rows(10.0), now=NOW + 10.0) == (0.0,)


async def test_buckets_are_a_callers_own_by_scope_and_name(store):
    empty = rows(10.0)
    assert await take(store, empty) == (0.0,)
    assert await take(store, empty) == (5.0,)
    assert await take(store, empty, caller="b") == (0.0,)
    assert await take(store, empty, scope="other") == (0.0,)
    assert await take(store, rows(10.0, name="others")) == (0.0,)


async def test_what_is_used_outlasts_other_limits(store):
    """An operator changes them: what was used is used."""
    assert await take(store, rows(10.0)) == (0.0,)
    assert await take(store, rows(90.0, burst=100.0)) == (0.0,)
    assert await take(store, rows(burst=100.0, rate=4.0)) == (0.25,)
    assert await take(store, rows(10.0)) == (10.0,)  # of 100 used 20 count: a burst, and as much debt
    assert await take(store, rows(10.0, rate=1.0)) == (20.0,)


async def test_a_bucket_in_use_outlasts_another_that_is_full(store):
    day, second = rows(50.0, rate=100 / 86_400, burst=100.0, name="day"), rows(rate=10.0, burst=1.0, name="second")
    assert await take(store, day) == (0.0,)
    for step in range(1, 100):
        assert await take(store, second, now=NOW + step) == (0.0,)
    assert await take(store, day, now=NOW + 100.0) == (0.0,)
    assert await take(store, day, now=NOW + 1000.0) != (0.0,)


async def test_forgiving_refills_nothing(store):
    await take(store, rows(10.0))
    await store.credit("model", "a", (), Update(evidence={"one": (0.1,)}), NOW)
    assert await store.forget("model", "a")
    assert await take(store, rows(10.0)) == (5.0,)
    assert await store.past("model", "a") is None
    assert await store.callers("model") == []


async def test_many_at_once_get_one_burst(store):
    got = await asyncio.gather(*(take(store, rows(), rows(name="second", burst=8.0)) for _ in range(100)))
    assert got.count((0.0, 0.0)) == 8


async def test_clocks_that_differ_a_little_grant_no_more_than_one(store):
    """Ten seconds of two replicas, one of which is 5 s behind."""
    got = sum([await take(store, rows(), now=NOW + step / 10 - 5.0 * (step % 2)) == (0.0,) for step in range(100)])
    assert got == 10 + 2 * 9.8 // 1


async def test_a_clock_set_back_costs_no_more_than_its_bound(store):
    for back in (0.5 * SKEW_S, SKEW_S, 2 * SKEW_S, 1e9):
        caller = f"back {back}"
        await take(store, rows(20.0), force=True, caller=caller)
        now = NOW - back
        (wait,) = await take(store, rows(), now=now, caller=caller)
        assert wait == 5.5 + (back if back <= SKEW_S else 0.0)  # 20 are used, 9 may be, by 2 a second
        assert (await take(store, rows(), now=now + 5.0, caller=caller))[0] == pytest.approx(wait - 5.0)
        assert await take(store, rows(), now=now + wait, caller=caller) == (0.0,)


async def test_a_clock_set_forward_for_once_grants_one_burst(store):
    await take(store, rows(10.0))
    assert await take(store, rows(10.0), now=NOW + 1e6) == (0.0,)
    for _ in range(3):
        assert await take(store, rows(10.0)) == (5.0,)
    assert await take(store, rows(10.0), now=NOW + 5.0) == (0.0,)


async def test_agrees_with_arrival_times(store):
    """Steps, costs and rates are binary fractions, of which no sum is rounded."""
    rng, plain, now = np.random.default_rng(1), Plain(), NOW
    limits = {"one": (4.0, 8.0), "two": (0.5, 3.0), "three": (2.0, 20.0)}
    refused = 0
    for _ in range(300):
        now += float(rng.choice([0.0, 0.125, 0.5, 3.0]))
        names = [name for name in limits if rng.random() < 0.6]
        buckets = [Bucket(name, *limits[name], float(rng.choice([0.0, 0.5, 1.0, 3.0, 9.0]))) for name in names]
        force = bool(rng.random() < 0.1)
        expected = plain.take(buckets, now, force=force)
        assert await take(store, *buckets, now=now, force=force) == pytest.approx(expected, abs=1e-9)
        refused += any(expected) and not force
    assert 50 < refused < 250
