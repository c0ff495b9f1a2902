import math
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.stores.buckets import SKEW_S, Buckets
from guard.stores.memory import MemoryStore
from guard.types import Bucket
from tests.stores.bucket_contract import NOW, Plain, rows, take

KEY = ("model", "a")


@pytest.fixture
def evicted():
    return []


async def test_past_max_callers_the_longest_unused_is_full_again(evicted):
    store = MemoryStore(max_callers=2, on_evict=evicted.append)
    for caller in "abac":  # a is refused the second time, and yet seen
        await take(store, rows(10.0), caller=caller)
    assert evicted == ["buckets"]
    assert [await take(store, rows(10.0), caller=caller) for caller in "ac"] == [(5.0,)] * 2
    assert await take(store, rows(10.0), caller="b") == (0.0,)
    assert evicted == ["buckets"] * 2


async def test_buckets_evict_no_evidence(evicted):
    store = MemoryStore(max_callers=2, on_evict=evicted.append)
    for caller in "abc":
        await take(store, rows(), caller=caller)
    assert (store.people, evicted) == (0, ["buckets"])


def test_the_full_are_forgotten_and_not_counted(evicted):
    buckets = Buckets(100, evicted.append)
    for number in range(50):
        buckets.take(("model", str(number)), (rows(10.0),), NOW, force=False)
    assert len(buckets) == 50
    for step in range(1, 7):
        buckets.take(KEY, (rows(10.0),), NOW + step, force=True)  # they take 5 s
    assert len(buckets) == 51
    left = []
    for step in range(6):
        buckets.take(KEY, (rows(10.0),), NOW + 5.1 + SKEW_S + step, force=False)
        left.append(len(buckets))
    assert left == [41, 31, 21, 11, 1, 1]
    assert evicted == []


def test_whoever_only_looks_is_not_remembered(evicted):
    buckets = Buckets(1, evicted.append)
    for number in range(5):
        assert buckets.take(("model", str(number)), (rows(0.0),), NOW, force=False) == (0.0,)
        assert buckets.take(("model", str(number)), (rows(11.0),), NOW, force=False) == (math.inf,)
    assert (len(buckets), evicted) == (0, [])


def test_a_callers_buckets_take_at_most_a_kilobyte(evicted):
    budget = tuple(rows(name=name) for name in ("second", "day", "bits"))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    buckets = Buckets(10_000, evicted.append)
    for number in range(10_000):
        buckets.take(("model", str(number)), budget, NOW, force=False)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 100 < used / len(buckets) <= 1024


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
def test_buckets_that_cannot_be(value):
    with pytest.raises(ValueError, match="a bucket's"):
        Bucket("rows", value, 1.0)
    with pytest.raises(ValueError, match="a bucket's"):
        Bucket("rows", 1.0, value)
    if value:
        with pytest.raises(ValueError, match="a bucket's"):
            Bucket("rows", 1.0, 1.0, value)


RATES = st.sampled_from([0.25, 1.0, 4.0, 16.0])
LIMITS = st.tuples(RATES, st.integers(1, 20).map(float))
COSTS = st.integers(0, 48).map(lambda halves: halves / 2)
CALLS = st.lists(
    st.tuples(
        st.integers(0, 40).map(lambda eighths: eighths / 8),  # seconds since the last
        st.dictionaries(st.sampled_from(["one", "two"]), COSTS, max_size=2),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(LIMITS, LIMITS, CALLS)
def test_agrees_with_arrival_times_whatever_comes(one, two, calls):
    limits, plain, buckets, now = {"one": one, "two": two}, Plain(), Buckets(10, lambda _: None), NOW
    for passed, costs, force in calls:
        now += passed
        asked = tuple(Bucket(name, *limits[name], cost) for name, cost in costs.items())
        expected = plain.take(asked, now, force=force)
        # a millionth of a burst is as good as nothing; other differences are of eighths of a second and whole rows
        assert buckets.take(KEY, asked, now, force=force) == pytest.approx(expected, abs=1e-4)


@settings(max_examples=200, deadline=None)
@given(LIMITS, st.lists(st.tuples(st.floats(0.0, SKEW_S), st.floats(0.01, 8.0)), max_size=60))
def test_grants_a_burst_and_the_rate_whatever_the_clocks_say(limit, calls):
    """Of clocks that are at most `SKEW_S` apart, in any order."""
    buckets, taken = Buckets(10, lambda _: None), 0.0
    for at, cost in calls:
        if buckets.take(KEY, (Bucket("one", *limit, cost),), NOW + at, force=False) == (0.0,):
            taken += cost
    spread = max((at for at, _ in calls), default=0.0) - min((at for at, _ in calls), default=0.0)
    assert taken <= limit[1] + limit[0] * spread + 1e-4


@settings(max_examples=200, deadline=None)
@given(LIMITS, st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_no_clock_locks_a_caller_out(limit, clocks):
    """Whatever was asked when, and in whatever debt he is: he has a burst after twice its duration and the skew."""
    buckets, bucket = Buckets(10, lambda _: None), Bucket("one", *limit, limit[1])
    for clock in clocks:
        buckets.take(KEY, (bucket,), NOW + clock, force=True)
    (wait,) = buckets.take(KEY, (bucket,), NOW, force=False)
    assert wait <= 2 * limit[1] / limit[0] + SKEW_S
    assert not wait or buckets.take(KEY, (bucket,), NOW + wait, force=False) == (0.0,)
