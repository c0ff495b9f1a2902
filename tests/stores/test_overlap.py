from collections import Counter

import numpy as np
import pytest

from guard.stores.overlap import WAYS, OverlapTable, nearest, pairs_within


def words(*values):
    return np.array(values, dtype=np.uint64)


def numbers(*values):
    return np.array(values, dtype=np.uint32)


def found(table, hashes):
    positions, rows = table.candidates(table.places(hashes))
    return sorted(zip(positions.tolist(), rows.tolist(), strict=True))


def test_what_was_added_is_found_with_its_row():
    table = OverlapTable(100)
    table.add(table.places(words(11, 12, 13, 12)), numbers(1, 1, 1, 2))
    assert found(table, words(12, 99, 13)) == [(0, 1), (0, 2), (2, 1)]


def test_a_common_hash_keeps_the_latest_rows_only():
    table = OverlapTable(100)
    for row in range(1, 31):
        table.add(table.places(words(7)), numbers(row))
    assert found(table, words(7)) == [(0, row) for row in range(31 - WAYS, 31)]


def test_a_common_hash_in_one_batch_keeps_the_latest_rows_too():
    one_by_one, at_once = OverlapTable(100), OverlapTable(100)
    for row in range(1, 31):
        one_by_one.add(one_by_one.places(words(7)), numbers(row))
    at_once.add(at_once.places(np.full(30, 7, dtype=np.uint64)), np.arange(1, 31, dtype=np.uint32))
    assert found(at_once, words(7)) == found(one_by_one, words(7))
    at_once.add(at_once.places(words(7)), numbers(31))
    assert found(at_once, words(7)) == [(0, row) for row in range(32 - WAYS, 32)]


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_agrees_with_a_plain_index_while_there_is_room(batch):
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 1500, dtype=np.uint64).repeat(2)
    rows = rng.integers(1, 1000, 3000).astype(np.uint32)
    table = OverlapTable(1000)
    for start in range(0, 3000, batch):
        table.add(table.places(hashes[start : start + batch]), rows[start : start + batch])
    wanted = Counter(zip(hashes.tolist(), rows.tolist(), strict=True))
    positions, got = table.candidates(table.places(hashes[::2]))
    assert Counter(zip(hashes[::2][positions].tolist(), got.tolist(), strict=True)) == wanted


def test_a_full_table_keeps_nearly_all():
    """Steady state: a thousand rows of room, of ten thousand the last thousand are asked for."""
    rng = np.random.default_rng(0)
    table = OverlapTable(1000, expected=50)
    hashes = rng.integers(0, 2**63, (10_000, 50), dtype=np.uint64)
    for row, own in enumerate(hashes):
        table.add(table.places(own), np.full(50, row, dtype=np.uint32))
    kept = sum(len(table.candidates(table.places(hashes[row]))[0]) for row in range(9000, 10_000))
    assert kept / 50_000 > 0.94


def test_hashes_that_differ_in_high_or_low_bits_only_spread():
    """Buckets must not fill up because a monitor's hashes are poor in some of their bits."""
    for shift in (0, 20, 40):
        table = OverlapTable(200)
        hashes = np.arange(5000, dtype=np.uint64) << np.uint64(shift)
        table.add(table.places(hashes), np.ones(5000, dtype=np.uint32))
        assert len(table.candidates(table.places(hashes))[0]) > 4800


def test_nothing_in_nothing_out():
    table = OverlapTable(1)
    table.add(table.places(words()), numbers())
    assert found(table, words()) == []
    assert found(table, words(1, 2)) == []


def test_nearest_by_hand():
    queries = np.array([0, 0, 0, 2, 2, 0])
    rows = np.array([5, 6, 5, 6, 7, 5])
    assert [part.tolist() for part in nearest(queries, rows, 4)] == [[0, 0, 2, 2], [5, 6, 7, 6], [3, 1, 1, 1]]
    assert [part.tolist() for part in nearest(queries, rows, 1)] == [[0, 2], [5, 7], [3, 1]]
    assert [part.tolist() for part in nearest(queries[:0], rows[:0], 2)] == [[], [], []]


def test_pairs_within_a_request_by_hand():
    hashes, queries = words(7, 8, 7, 9, 8, 7), np.array([0, 0, 1, 1, 2, 2])
    positions, earlier = pairs_within(hashes, queries)
    assert sorted(zip(positions.tolist(), earlier.tolist(), strict=True)) == [(2, 0), (4, 0), (5, 0), (5, 1)]


def test_pairs_within_a_request_are_with_the_latest_before():
    positions, earlier = pairs_within(np.zeros(30, dtype=np.uint64), np.arange(30))
    assert sorted(earlier[positions == 20].tolist()) == list(range(20 - WAYS, 20))
    assert earlier[positions == 0].size == 0
    for few in (0, 1):
        assert pairs_within(np.zeros(few, dtype=np.uint64), np.arange(few))[0].size == 0
