"""What every store must do: a test file names a fixture `store` and imports these tests."""

import math

import numpy as np

from guard.evidence import Evidence
from guard.types import Alert, Component, Kept, Level, Sketch, Update
from tests.stores.bucket_contract import *  # noqa: F403
from tests.stores.token_contract import *  # noqa: F403

WIDTH, EMBEDDED = 6, 4


def position(value):
    return np.full(WIDTH, value, dtype=np.float32)


def row(*hashes, name=None, at=0.0):
    """A sketch; rows of equal hashes are one row unless they have names."""
    return Sketch(repr(name or hashes).encode(), np.array(hashes, dtype=np.uint64), position(at))


def kept(number=-1, at=0.0, label=0, confidence=0.5, direction=0, heard=True):
    embedding = np.zeros(EMBEDDED, dtype=np.float32)
    embedding[direction] = 1.0
    return Kept(number, position(at), embedding, label, confidence, heard)


async def history(store, *rows, now=0.0, scope="model", caller="a", cohorts=(), remember=True):
    return await store.exchange(scope, caller, cohorts, rows, now, remember=remember)


async def ask(store, *rows, **words):
    return [(match.overlap, match.duplicate) for match in (await history(store, *rows, **words)).matches]


async def tell(store, now=0.0, scope="model", caller="a", cohorts=(), **update):
    await store.credit(scope, caller, cohorts, Update(**update), now)


async def count(store, caller, monitor="one", now=0.0, scope="model"):
    """How many p-values the caller's evidence has."""
    evidence = (await history(store, caller=caller, now=now, scope=scope)).caller.evidence
    return evidence.get(monitor, Evidence()).count


def same(a, b):
    assert a.count == b.count
    np.testing.assert_allclose(a.log_sums, b.log_sums, rtol=1e-9, atol=1e-9)


# --- rows


async def test_overlap_is_the_largest_with_one_earlier_row(store):
    assert await ask(store, row(1, 2, 3, 4)) == [(0, False)]
    assert await ask(store, row(3, 4, 5, 6)) == [(2, False)]
    assert await ask(store, row(1, 2, 5, 6, 3)) == [(3, False)]  # 1 2 3 of the first, 3 5 6 of the second: not five
    assert await ask(store, row(9, 8)) == [(0, False)]


async def test_a_repeat_is_a_duplicate_and_kept_once(store):
    first = (await history(store, row(1, 2))).matches[0]
    again = await history(store, row(1, 2), row(1, 2))
    assert [match.duplicate for match in again.matches] == [True, True]
    assert [match.number for match in again.matches] == [first.number] * 2
    assert [match.neighbours for match in again.matches] == [(), ()]
    assert again.entries == 1


async def test_rows_of_one_request_see_those_before_them(store):
    got = await history(store, row(1, 2, 3, at=1.5), row(2, 3, 4), row(1, 2, 3), row(4, 9))
    assert [(m.overlap, m.duplicate) for m in got.matches] == [(0, False), (2, False), (3, True), (1, False)]
    first, second, third, _ = got.matches
    (near,) = second.neighbours
    assert third.number == first.number == near.number == near.component
    assert (near.overlap, near.label, len(near.owner)) == (2, -1, 8)
    np.testing.assert_array_equal(near.position, position(1.5))
    assert got.components == {m.number: Component() for m in (first, second)}


async def test_scopes_are_apart(store):
    await ask(store, row(1, 2))
    other = await history(store, row(1, 2), row(1, 3), scope="other")
    assert [(m.overlap, m.duplicate) for m in other.matches] == [(0, False), (1, False)]
    assert (await history(store)).entries == 1
    assert (await history(store, scope="other")).entries == 2
    assert (await history(store, scope="third")).entries == 0


async def test_neighbours_are_those_that_share_most(store):
    for size in range(1, 13):
        await ask(store, row(*range(size), 100 + size, at=float(size)), caller=f"caller {size % 2}")
    near = (await history(store, row(*range(12)))).matches[0].neighbours
    assert [one.overlap for one in near] == [12, 11, 10, 9, 8, 7, 6, 5]
    assert [float(one.position[0]) for one in near] == [12.0, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0, 5.0]
    owners = [one.owner for one in near]
    assert len(set(owners)) == 2
    assert owners[0] == owners[2]


async def test_of_equal_neighbours_the_latest_come_first(store):
    for number in range(3):
        await ask(store, row(1, 100 + number, at=float(number)))
    near = (await history(store, row(1, 5))).matches[0].neighbours
    assert [float(one.position[0]) for one in near] == [2.0, 1.0, 0.0]


async def test_without_remembering_nothing_changes(store):
    got = await history(store, row(1, 2, 3), row(1, 2, 3), remember=False)
    assert [(m.overlap, m.duplicate, m.number) for m in got.matches] == [(0, False, -1)] * 2
    assert got.entries == 0
    await ask(store, row(1, 2, 3))
    assert (await ask(store, row(1, 2, 3), now=5, remember=False))[0][1]
    assert await ask(store, row(2, 3, 4), remember=False) == [(2, False)]
    assert (await history(store)).entries == 1


async def test_a_hash_that_everybody_has_hides_no_neighbour(store):
    """Blank borders: hash 0 is in all rows; the rows' own hashes still find them."""
    await ask(store, *(row(0, 1000 + 2 * number, 1001 + 2 * number) for number in range(100)))
    assert await ask(store, row(0, 1000, 1001, 5)) == [(2, False)]
    assert await ask(store, row(0, 1196, 1197, 5)) == [(3, False)]


async def test_a_batch_of_rows_that_are_all_alike(store):
    """An attacker who batches must gain nothing: each row but the first is as near to an earlier one as can be."""
    alike = [row(*range(20), 1000 + number) for number in range(100)]
    assert await ask(store, *alike) == [(0, False)] + [(20, False)] * 99
    more = [row(*range(20), 2000 + number) for number in range(100)]
    assert await ask(store, *more) == [(20, False)] * 100


# --- clusters and labels


async def test_answers_label_rows(store):
    first = (await history(store, row(1, 2))).matches[0]
    await tell(store, answered=(kept(first.number, label=7),))
    assert (await history(store, row(1, 3))).matches[0].neighbours[0].label == 7


async def test_rows_join_components_that_gather_evidence(store):
    root = (await history(store, row(1, 2), caller="a")).matches[0].number
    second = (await history(store, row(1, 3), caller="b")).matches[0].number
    await tell(store, caller="b", joins={second: root}, components={root: (0.01,)})
    got = await history(store, row(3, 4), caller="c")
    (near,) = got.matches[0].neighbours
    assert near.component == root
    assert (got.components[root].rows, got.components[root].owners) == (2, 2)
    same(got.components[root].evidence, Evidence().add([0.01]))
    third = got.matches[0].number
    await tell(store, caller="c", joins={third: root}, components={root: (0.2, 0.03)})
    await tell(store, caller="c", components={root: (0.5,)})
    got = await history(store, row(4, 5), caller="a")
    assert (got.components[root].rows, got.components[root].owners) == (5, 3)
    same(got.components[root].evidence, Evidence().add([0.01, 0.2, 0.03, 0.5]))


async def test_owners_are_counted_up_to_64(store):
    root = (await history(store, row(1, 2))).matches[0].number
    for number in range(80):
        await tell(store, caller=f"caller {number}", components={root: (0.5,)})
    component = (await history(store, row(1, 3))).components[root]
    assert (component.rows, component.owners) == (81, 64)


async def test_rows_nobody_knows_of_are_credited_in_vain(store):
    await tell(store, joins={-1: 5, 12345: 6}, components={99: (0.5,)}, answered=(kept(-1), kept(123456)))
    assert (await history(store)).caller.rows == 2


# --- callers and cohorts


async def test_evidence_is_the_callers_own_by_scope_and_monitor(store):
    await tell(store, now=1.0, evidence={"one": (0.5, 0.01), "two": (0.3,)})
    await tell(store, now=2.0, evidence={"one": (1e-5,), "two": ()})
    got = (await history(store, now=3.0)).caller
    assert set(got.evidence) == {"one", "two"}
    same(got.evidence["one"], Evidence().add([0.5, 0.01, 1e-5]))
    same(got.evidence["two"], Evidence().add([0.3]))
    assert (got.since, got.rows, got.alert) == (1.0, 0, Alert())
    for scope, caller in (("other", "a"), ("model", "b")):
        assert not (await history(store, scope=scope, caller=caller, now=3.0)).caller.evidence


async def test_evidence_agrees_with_the_e_process_over_extremes(store):
    values = [1.0, 1.0 - 1e-7, 0.9999, 0.5, 1e-3, 1e-12, 1e-200, 0.0, 0.7, *np.linspace(0.001, 1.0, 200).tolist()]
    await tell(store, evidence={"one": tuple(values)})
    await tell(store, evidence={"one": (0.25,)})
    same((await history(store)).caller.evidence["one"], Evidence().add([*values, 0.25]))


async def test_cohorts_gather_what_their_callers_do(store):
    groups = ("global", "net:10.0.0.0/8")
    await tell(store, cohorts=groups, evidence={"one": (0.1,)}, answered=(kept(),), alert=Alert(Level.WATCH, 9.0))
    await tell(store, caller="b", cohorts=groups[:1], evidence={"one": (0.2,)})
    got = await history(store, caller="c", cohorts=(*groups, "tenant:x"))
    assert set(got.cohorts) == {*groups, "tenant:x"}
    same(got.cohorts["global"].evidence["one"], Evidence().add([0.1, 0.2]))
    same(got.cohorts[groups[1]].evidence["one"], Evidence().add([0.1]))
    assert not got.cohorts["tenant:x"].evidence
    assert (got.cohorts["global"].rows, got.cohorts["global"].alert) == (1, Alert())
    assert len(got.cohorts["global"].recent) == 0


async def test_a_caller_and_a_cohort_of_one_name_are_two(store):
    await tell(store, caller="x", cohorts=("x",), evidence={"one": (0.1,)}, restart=True)
    await tell(store, caller="x", evidence={"one": (0.1,)})
    got = await history(store, caller="x", cohorts=("x",))
    assert (got.caller.evidence["one"].count, got.cohorts["x"].evidence["one"].count) == (2, 1)


async def test_evidence_begins_anew(store):
    await tell(store, now=1.0, cohorts=("global",), evidence={"one": (0.1,), "two": (0.1,)}, answered=(kept(),))
    await tell(store, now=5.0, cohorts=("global",), evidence={"one": (0.2,)}, restart=True)
    got = await history(store, now=6.0, cohorts=("global",))
    assert set(got.caller.evidence) == {"one"}
    same(got.caller.evidence["one"], Evidence().add([0.2]))
    assert (got.caller.since, got.caller.rows, len(got.caller.recent)) == (5.0, 1, 1)
    assert got.cohorts["global"].evidence["one"].count == 2


async def test_windows_are_judged_once(store):
    await tell(store, cohorts=("global",), judged={"one": (50, 0.01)})
    await tell(store, cohorts=("global",), judged={"one": (50, 0.01)})
    await tell(store, cohorts=("global",), judged={"one": (40, 0.02)}, evidence={"one": (0.5,)})
    await tell(store, cohorts=("global",), judged={"one": (100, 0.03), "two": (1, 0.2)})
    got = await history(store, cohorts=("global",))
    assert got.caller.judged == {"one": 100, "two": 1}
    for past in (got.caller, got.cohorts["global"]):
        same(past.evidence["one"], Evidence().add([0.01, 0.5, 0.03]))
        same(past.evidence["two"], Evidence().add([0.2]))


async def test_alerts_are_kept_until_replaced(store):
    await tell(store, alert=Alert(Level.SUSPECT, 12.5))
    await tell(store, evidence={"one": (0.5,)})
    assert (await history(store)).caller.alert == Alert(Level.SUSPECT, 12.5)
    await tell(store, acting=Level.WATCH, held=7)
    assert (await history(store)).caller.alert == Alert(Level.SUSPECT, 12.5, Level.WATCH, 7)
    await tell(store, alert=Alert(Level.HOSTILE, 13.0))  # of a query that knew nothing of that
    assert (await history(store)).caller.alert == Alert(Level.HOSTILE, 13.0, Level.WATCH, 7)
    await tell(store, held=0)
    assert (await history(store)).caller.alert == Alert(Level.HOSTILE, 13.0, Level.WATCH)
    await tell(store, alert=Alert(), acting=Level.CLEAR)
    assert (await history(store)).caller.alert == Alert()


async def test_nobody_asks_ahead_for_another(store):
    """What an outcast sends is a repeat for nobody."""
    outcasts = (Alert(Level.HOSTILE, 9.0), Alert(acting=Level.HOSTILE), Alert(Level.WATCH, 0.0, Level.WATCH, 1))
    for i, alert in enumerate(outcasts):
        x = row(10 * i + 1, 10 * i + 2)
        await tell(store, caller="burnt", alert=alert, acting=alert.acting, held=alert.held)
        assert await ask(store, x, caller="burnt") == [(0, False)]
        assert await ask(store, x, caller="fresh") == [(0, False)]
        assert await ask(store, x, caller="other") == [(2, True)]  # the control: the fresh caller's was kept
    await tell(store, caller="burnt", alert=Alert(Level.SUSPECT), acting=Level.SUSPECT, held=0)
    await ask(store, row(5, 6), caller="burnt")
    assert await ask(store, row(5, 6), caller="fresh") == [(2, True)]


async def test_recent_rows_come_oldest_first(store):
    await tell(store, answered=(kept(at=0.125, label=3, confidence=0.75, direction=1),))
    await tell(store, answered=(kept(at=2.0, label=-1, confidence=math.nan), kept(at=3.0, label=1)))
    recent = (await history(store)).caller.recent
    assert len(recent) == (await history(store)).caller.rows == 3
    assert recent.positions[:, 0].tolist() == [0.125, 2.0, 3.0]
    assert recent.labels.tolist() == [3, -1, 1]
    np.testing.assert_allclose(recent.confidences, [0.75, math.nan, 0.5])
    np.testing.assert_allclose(recent.embeddings[0], [0.0, 1.0, 0.0, 0.0], atol=0.01)
    assert (recent.positions.shape, recent.embeddings.shape) == ((3, WIDTH), (3, EMBEDDED))
    assert (recent.labels.dtype, recent.confidences.dtype) == (np.int64, np.float64)


async def test_recent_rows_say_which_were_heard_and_no_row_was_whose_answer_nobody_knows(store):
    rows = [kept(label=label, heard=heard) for label in (-1, 0, 1, 999) for heard in (True, False)]
    await tell(store, answered=tuple(rows))
    recent = (await history(store)).caller.recent
    assert recent.labels.tolist() == [-1, -1, 0, 0, 1, 1, 999, 999]
    assert recent.heard.tolist() == [False, False, True, False, True, False, True, False]
    assert recent.last(3).heard.tolist() == [False, True, False]


async def test_recent_rows_are_at_most_256(store):
    for start in (0, 100, 200):
        await tell(store, answered=tuple(kept(at=float(start + i)) for i in range(100)))
    past = (await history(store)).caller
    assert past.rows == 300
    assert past.recent.positions[:, 0].tolist() == [float(i) for i in range(44, 300)]
    await tell(store, answered=tuple(kept(at=float(i)) for i in range(1000)))
    past = (await history(store)).caller
    assert past.rows == 1300
    assert past.recent.positions[:, 0].tolist() == [float(i) for i in range(744, 1000)]


async def test_nothing_to_credit_makes_no_caller(store):
    await tell(store, evidence={"one": ()})
    await tell(store)
    assert await store.past("model", "a") is None


async def test_rows_that_have_joined_another_are_counted(store):
    first, second = (match.number for match in (await history(store, row(1, 2, 3), row(2, 3, 4))).matches)
    assert (await history(store)).joined == 0
    await tell(store, joins={second: first})
    await tell(store, joins={second: first})
    got = await history(store)
    assert (got.joined, got.entries) == (1, 2)
    assert (await history(store, scope="other")).joined == 0
    await tell(store, joins={second: second})
    assert (await history(store)).joined == 0


# --- operators


async def test_operators_see_callers_and_forget_them(store):
    assert await store.callers("model") == []
    await tell(store, caller="a", cohorts=("global",), evidence={"one": (0.1,)}, answered=(kept(),))
    await tell(store, caller="b", alert=Alert(Level.HOSTILE, 3.0))
    await tell(store, caller="c", scope="other", evidence={"one": (0.1,)})
    known = dict(await store.callers("model"))
    assert set(known) == {"a", "b"}
    assert known["b"].alert.level is Level.HOSTILE
    assert (await store.past("model", "a")).evidence["one"].count == 1
    assert await store.past("model", "c") is None
    assert await store.forget("model", "a") is True
    assert await store.forget("model", "a") is False
    assert await store.past("model", "a") is None
    got = await history(store, cohorts=("global",))
    assert (got.caller.evidence, len(got.caller.recent), got.caller.rows) == ({}, 0, 0)
    assert got.cohorts["global"].evidence["one"].count == 1
    assert [name for name, _ in await store.callers("model")] == ["b"]
