import itertools
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from guard.stores.memory import MemoryStore
from guard.stores.overlap import WAYS
from guard.types import Kept, Sketch, Update
from tests.stores.contract import *  # noqa: F403
from tests.stores.contract import ask, count, history, kept, row, tell
from tests.stores.token_contract import T0, once


@pytest.fixture
def store():
    return MemoryStore()


class Evicted(list):
    """Counts what the store says it evicts."""

    def __call__(self, what):
        self.append(what)


async def test_old_rows_are_forgotten():
    evicted = Evicted()
    store = MemoryStore(ttl_s=10, on_evict=evicted)
    await ask(store, row(1, 2), now=0)
    assert await ask(store, row(1, 3), now=10) == [(1, False)]
    assert await ask(store, row(1, 2, name="late"), now=10.5) == [(1, False)]  # the second row's 1, not the first's 1 2
    assert evicted == ["entries"]
    assert await ask(store, row(1, 2), now=10.6) == [(2, False)]  # of the late row, and no duplicate


async def test_a_repeat_starts_its_age_anew():
    store = MemoryStore(ttl_s=10)
    await ask(store, row(1, 2), now=0)
    await ask(store, row(1, 2), now=8)
    assert await ask(store, row(1, 2), now=16) == [(2, True)]
    assert await ask(store, row(1, 2, 3), now=25) == [(2, False)]


async def test_a_stale_row_behind_a_fresh_one_is_new_again():
    evicted = Evicted()
    store = MemoryStore(ttl_s=10, on_evict=evicted)
    await ask(store, row(1), row(2), now=0)
    await ask(store, row(1), now=9)  # keeps the first alive, so that the second is not at the front
    assert await ask(store, row(2), now=12) == [(0, False)]
    assert await ask(store, row(2), now=13) == [(1, True)]
    assert store.entries == 2


async def test_past_max_entries_the_first_seen_goes():
    evicted = Evicted()
    store = MemoryStore(max_entries=2, on_evict=evicted)
    await ask(store, row(1), row(2), row(3))
    assert evicted == ["entries"]
    assert store.entries == 2
    assert await ask(store, row(1, 10), row(2, 10), row(3, 10), remember=False) == [(0, False), (1, False), (1, False)]


async def test_one_entry_of_room():
    store = MemoryStore(max_entries=1)
    for number in range(5):
        await ask(store, row(number))
        assert await ask(store, row(number)) == [(1, True)]
    assert store.entries == 1


async def test_a_request_larger_than_the_store():
    evicted = Evicted()
    store = MemoryStore(max_entries=4, on_evict=evicted)
    got = await ask(store, *(row(number, number + 1) for number in range(1000)))
    assert len(got) == 1000
    assert store.entries == 4
    assert len(evicted) == 996
    assert await ask(store, row(1, 2), row(998, 999)) == [(0, False), (2, True)]


@pytest.mark.parametrize("entries", [0, -1, 2**30 + 1])
def test_bounds_of_the_bound(entries):
    with pytest.raises(ValueError, match="max_entries"):
        MemoryStore(max_entries=entries)


async def test_numbers_may_pass_two_to_the_32():
    store = MemoryStore(max_entries=10)
    store._rows.next = store._rows._oldest = 2**32 - 3
    for number in range(30):
        expected = 1 if number else 0
        assert await ask(store, row(number, number + 1)) == [(expected, False)]
    assert await ask(store, row(0, 1), row(20, 21), remember=False) == [(0, False), (2, True)]


async def test_repeats_in_a_batch_hide_no_neighbour():
    store = MemoryStore()
    got = await ask(store, row(1, 2, 3), *[row(5, 6)] * 20, *[row(1, 2, 3)] * 20, row(1, 2, 9), row(5, 9))
    assert got[-2:] == [(2, False), (1, False)]


class Plain:
    """The store's rows without any cleverness."""

    def __init__(self):
        self.rows = {}

    def ask(self, sketch):
        own = set(sketch.hashes.tolist())
        if sketch.digest in self.rows:
            return len(own), True
        overlap = max((len(own & hashes) for hashes in self.rows.values()), default=0)
        self.rows[sketch.digest] = own
        return overlap, False


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(st.sets(st.integers(1, 40), min_size=1, max_size=4), min_size=1, max_size=5), min_size=1, max_size=8
    )
)
async def test_agrees_with_a_plain_store(requests):
    shared = Counter(itertools.chain.from_iterable(itertools.chain.from_iterable(requests)))
    assume(max(shared.values()) <= WAYS)  # of more common hashes only the latest rows are found
    store, plain = MemoryStore(max_entries=1000), Plain()
    for request in requests:
        rows = [row(*sorted(hashes)) for hashes in request]
        assert await ask(store, *rows) == [plain.ask(one) for one in rows]


async def test_stale_rows_that_still_wait_to_be_forgotten_do_not_count():
    store = MemoryStore(ttl_s=10)
    await ask(store, *(row(number, number + 5000) for number in range(2000)))
    assert await ask(store, row(1999, 6999), now=50) == [(0, False)]


async def test_matches_come_in_order():
    store = MemoryStore()
    many = [row(*range(10 * n, 10 * n + 10)) for n in range(600)]  # more than are looked up at once
    await ask(store, *many)
    near = [row(*range(10 * n, 10 * n + n % 10), 10**6, name=n) for n in range(600)]
    got = await ask(store, *near, remember=False)
    assert [overlap for overlap, _ in got] == [n % 10 for n in range(600)]
    assert await store.close() is None


async def test_past_max_callers_the_longest_unseen_goes():
    evicted = Evicted()
    store = MemoryStore(max_callers=2, on_evict=evicted)
    for now, caller in enumerate(["a", "b"]):
        await tell(store, now, caller=caller, evidence={"one": (0.5,)}, answered=(kept(),))
    await history(store, now=2.0)
    await tell(store, 3.0, caller="c", evidence={"one": (0.5,)})
    assert [await count(store, caller, now=4.0) for caller in "abc"] == [1, 0, 1]
    assert evicted == ["callers"]
    assert store._rings.rows == 1


async def test_callers_unseen_for_long_are_forgotten():
    evicted = Evicted()
    store = MemoryStore(ttl_s=10, on_evict=evicted)
    await tell(store, 0.0, caller="a", evidence={"one": (0.5,)})
    await tell(store, 5.0, caller="b", evidence={"one": (0.5,)})
    assert [await count(store, caller, now=10.5) for caller in "ab"] == [0, 1]
    assert evicted == ["callers"]


async def test_components_are_bounded_in_number_and_time():
    evicted = Evicted()
    store = MemoryStore(max_entries=2, ttl_s=10, on_evict=evicted)
    for number in (1, 2, 1, 3):
        await tell(store, float(number), components={number: (0.5,)})
    assert (store.components, evicted) == (2, ["components"])
    await history(store, now=12.0)
    assert (store.components, evicted) == (1, ["components"] * 2)


async def test_forgetting_is_spread_over_calls():
    store = MemoryStore(ttl_s=10)
    for start in range(0, 2500, 500):
        await ask(store, *(row(number) for number in range(start, start + 500)))
    left = []
    for step in range(4):
        await history(store, now=100.0 + step)
        left.append(store.entries)
    assert left == [1500, 500, 0, 0]


async def test_recent_rows_are_bounded_over_all_callers():
    store = MemoryStore(max_entries=10)
    for caller in "abc":
        await tell(store, caller=caller, answered=tuple(kept(at=float(i)) for i in range(4)))
    lengths = [len((await history(store, caller=caller)).caller.recent) for caller in "abc"]
    assert lengths == [0, 4, 4]  # the longest unheard of makes room
    await tell(store, caller="c", answered=tuple(kept(at=float(i)) for i in range(50)))
    assert (await history(store, caller="c")).caller.recent.positions[:, 0].tolist() == list(range(40, 50))
    assert store._rings.rows == 10


async def test_rows_of_another_shape_replace_a_callers_recent_ones():
    store = MemoryStore()
    await tell(store, answered=(kept(), kept()))
    other = Kept(-1, np.ones(9, np.float32), np.zeros(0, np.float32), 2, 0.5)
    await tell(store, answered=(other,))
    recent = (await history(store)).caller.recent
    assert (recent.positions.shape, recent.embeddings.shape) == ((1, 9), (1, 0))


async def test_a_stored_row_takes_at_most_a_kilobyte():
    """Arrays, dictionaries and recent rows of 20,000 rows of 200 callers, one row in twenty the root of a cluster."""
    rows, wide, embedded = 20_000, 48, 64
    rng = np.random.default_rng(0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    store = MemoryStore(max_entries=rows)
    for at in range(0, rows, 100):
        sketches = tuple(
            Sketch(rng.bytes(16), rng.integers(0, 2**63, 32, dtype=np.uint64), np.ones(wide, np.float32))
            for _ in range(100)
        )
        found = await history(store, *sketches, caller=str(at))
        numbers = [match.number for match in found.matches]
        answered = tuple(Kept(n, np.ones(wide, np.float32), np.ones(embedded, np.float32), 1, 0.5) for n in numbers)
        update = Update({"one": (0.5,) * 100}, {}, dict.fromkeys(numbers[::20], (0.5,)), {}, answered)
        await store.credit("model", str(at), ("global",), update, 0.0)
    del sketches, found, answered, update
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert store.entries == store._rings.rows == rows
    assert used / rows <= 1024


async def test_tokens_are_bounded_and_go_when_their_time_has_come():
    evicted = Evicted()
    store = MemoryStore(max_callers=3, on_evict=evicted)
    assert [await once(store, bytes([i]) * 16) for i in range(4)] == [True] * 4
    assert (evicted, len(store._tokens)) == (["tokens"], 3)
    assert await once(store, bytes([0]) * 16)  # evicted: new again
    assert not await once(store, bytes([3]) * 16)
    assert await once(store, b"x" * 16, now=T0 + 61, until=T0 + 121)
    assert len(store._tokens) == 1
