import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from guard.calibration import Evidence
from guard.stores.memory import MemoryStore
from guard.stores.overlap import WAYS
from guard.types import History, Match, Sketch


def row(*hashes, name=None):
    """A sketch; rows of equal hashes are one row unless they have names."""
    return Sketch(repr(name or hashes).encode(), np.array(hashes, dtype=np.uint64))


async def ask(store, *rows, now=0.0, scope="model", monitor="fingerprint", caller="a", remember=True):
    histories = await store.exchange(scope, caller, {monitor: rows}, now, remember=remember)
    return [(match.overlap, match.duplicate) for match in histories[monitor].matches]


class Evicted(list):
    """Counts what the store says it evicts."""

    def __call__(self, what):
        self.append(what)


async def test_overlap_is_the_largest_with_one_earlier_row():
    store = MemoryStore()
    assert await ask(store, row(1, 2, 3, 4)) == [(0, False)]
    assert await ask(store, row(3, 4, 5, 6)) == [(2, False)]
    assert await ask(store, row(1, 2, 5, 6, 3)) == [(3, False)]  # 1 2 3 of the first, 3 5 6 of the second: not five
    assert await ask(store, row(9, 8)) == [(0, False)]


async def test_any_callers_rows_count():
    store = MemoryStore()
    await ask(store, row(1, 2, 3), caller="a")
    assert await ask(store, row(1, 2, 9), caller="b") == [(2, False)]


async def test_a_repeat_is_a_duplicate_and_kept_once():
    store = MemoryStore()
    await ask(store, row(1, 2))
    assert [duplicate for _, duplicate in await ask(store, row(1, 2), row(1, 2))] == [True, True]
    assert store.entries == 1


async def test_rows_of_one_request_see_those_before_them():
    store = MemoryStore()
    got = await ask(store, row(1, 2, 3), row(2, 3, 4), row(1, 2, 3), row(4, 9))
    assert got[:2] == [(0, False), (2, False)]
    assert got[2][1]
    assert got[3] == (1, False)


async def test_scopes_and_monitors_are_apart():
    store = MemoryStore()
    await ask(store, row(1, 2))
    assert await ask(store, row(1, 2), scope="other") == [(0, False)]
    assert await ask(store, row(1, 2), monitor="other") == [(0, False)]
    assert await ask(store, row(1, 2), scope="mode", monitor="lfingerprint") == [(0, False)]
    assert store.entries == 4


async def test_without_remembering_nothing_changes():
    store = MemoryStore()
    assert await ask(store, row(1, 2, 3), row(1, 2, 3), remember=False) == [(0, False), (0, False)]
    assert store.entries == 0
    await ask(store, row(1, 2, 3))
    assert (await ask(store, row(1, 2, 3), now=5, remember=False))[0][1]
    assert await ask(store, row(2, 3, 4), remember=False) == [(2, False)]
    assert store.entries == 1


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
    store._next = 2**32 - 3
    for number in range(30):
        expected = 1 if number else 0
        assert await ask(store, row(number, number + 1)) == [(expected, False)]
    assert await ask(store, row(0, 1), row(20, 21), remember=False) == [(0, False), (2, True)]


async def test_a_hash_that_everybody_has_hides_no_neighbour():
    """Blank borders: hash 0 is in all rows; the rows' own hashes still find them."""
    store = MemoryStore()
    for number in range(100):
        await ask(store, row(0, 1000 + 2 * number, 1001 + 2 * number))
    assert await ask(store, row(0, 1000, 1001, 5)) == [(2, False)]
    assert await ask(store, row(0, 1196, 1197, 5)) == [(3, False)]


async def test_a_batch_of_rows_that_are_all_alike():
    """An attacker who batches must gain nothing: each row but the first is as near to an earlier one as can be."""
    store = MemoryStore()
    alike = [row(*range(20), 1000 + number) for number in range(500)]
    assert await ask(store, *alike) == [(0, False)] + [(20, False)] * 499
    more = [row(*range(20), 2000 + number) for number in range(500)]
    assert await ask(store, *more) == [(20, False)] * 500


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


async def test_evidence_is_the_callers_own_by_scope_and_monitor():
    store = MemoryStore()
    wanted = Evidence().add([0.5, -0.7]).add([1.0])
    await store.credit("model", "a", {"one": (0.5, -0.7), "two": (3.0,)}, 0.0)
    await store.credit("model", "a", {"one": (1.0,)}, 1.0)
    histories = await store.exchange("model", "a", {"one": (), "two": (), "three": ()}, 2.0)
    assert histories["one"] == History((), wanted.log_sum, 3)
    assert histories["two"].count == 1
    assert histories["three"] == History(())
    for scope, caller in (("other", "a"), ("model", "b")):
        assert (await store.exchange(scope, caller, {"one": ()}, 2.0))["one"] == History(())


async def test_nothing_to_credit_makes_no_caller():
    store = MemoryStore()
    await store.credit("model", "a", {"one": ()}, 0.0)
    await store.credit("model", "a", {}, 0.0)
    assert store.callers == 0


async def test_past_max_callers_the_longest_unseen_goes():
    evicted = Evicted()
    store = MemoryStore(max_callers=2, on_evict=evicted)
    for now, caller in enumerate(["a", "b"]):
        await store.credit("model", caller, {"one": (1.0,)}, now)
    await store.exchange("model", "a", {"one": ()}, 2.0)
    await store.credit("model", "c", {"one": (1.0,)}, 3.0)
    counts = {c: (await store.exchange("model", c, {"one": ()}, 4.0))["one"].count for c in "abc"}
    assert counts == {"a": 1, "b": 0, "c": 1}
    assert evicted == ["callers"]


async def test_callers_unseen_for_long_are_forgotten():
    evicted = Evicted()
    store = MemoryStore(ttl_s=10, on_evict=evicted)
    await store.credit("model", "a", {"one": (1.0,)}, 0.0)
    await store.credit("model", "b", {"one": (1.0,)}, 5.0)
    assert (await store.exchange("model", "a", {"one": ()}, 10.5))["one"].count == 0
    assert (await store.exchange("model", "b", {"one": ()}, 10.5))["one"].count == 1
    assert evicted == ["callers"]


async def test_forgetting_is_spread_over_calls():
    store = MemoryStore(ttl_s=10)
    for start in range(0, 2500, 500):
        await ask(store, *(row(number) for number in range(start, start + 500)))
    left = []
    for step in range(4):
        await store.exchange("model", "a", {}, 100.0 + step)
        left.append(store.entries)
    assert left == [1500, 500, 0, 0]
    assert await ask(MemoryStore(), row(1)) == [(0, False)]


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
    assert Match(*got[5]) == Match(5)
    assert list(itertools.islice((d for _, d in got), 3)) == [False] * 3
