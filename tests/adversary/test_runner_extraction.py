"""What is counted of a thief, and what is asked of his copies."""

import grpc
import numpy as np
import pytest

from adversary import runner_extraction
from adversary.attack import BudgetSpent
from adversary.catalogue import Entry
from adversary.oracle import Endpoint, Oracle
from tests.adversary.tiny import Tiny, serving

ENTRY = Entry("thief", "extraction", "labels", "none", "made up", 0.0, 12)
POOL = np.linspace(0.0, 1.0, 48, dtype=np.float32).reshape(12, 4)
JUDGED = np.array([[0.1] * 4, [0.9] * 4, [0.4] * 4], np.float32)


def brightness(x):
    high = x.reshape(len(x), -1).mean(1)
    return np.stack([1.0 - high, high], axis=1)


def thief(oracle, x, y, *, budget, rng, every=4):
    """After each `every` rows a copy that says 1 above the darkest input that was answered so."""
    seen = []
    for rows in np.split(x[:budget], range(every, budget, every)):
        labels = oracle.labels(rows)
        seen += rows.mean(1)[labels == 1].tolist()
        bound = min(seen, default=2.0)
        yield lambda z, bound=bound: (z.mean(1) >= bound).astype(np.int64)


@pytest.fixture
def entry(monkeypatch):
    def give(function):
        monkeypatch.setattr(Entry, "function", property(lambda _: function))
        return ENTRY

    return give


def steal(entry, budget=12, refuse=lambda x, n: None, **options):
    with serving(Tiny(brightness, refuse)) as tiny, Oracle(Endpoint(tiny.address, "tiny"), budget) as oracle:
        return runner_extraction.steal(
            entry, oracle, POOL, np.zeros(12), judged=JUDGED, budget=budget, seed=0, **options
        )  # fmt: skip


def test_every_copy_is_asked_and_what_was_sent_before_it_is_counted(entry):
    told = []
    theft = steal(entry(thief), tell=lambda done, of, won: told.append((done, of)))
    assert theft.sent.tolist() == theft.answered.tolist() == [4, 8, 12]
    assert theft.labels.tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 0]]  # nothing bright was seen in the first four
    assert [record.rows for record in theft.trail] == [4, 4, 4]
    assert told == [(4, 12), (8, 12), (12, 12)]


def test_refused_rows_are_sent_and_not_answered(entry):
    theft = steal(entry(thief), refuse=lambda x, n: grpc.StatusCode.PERMISSION_DENIED if n == 2 else None)
    assert theft.sent.tolist() == [4, 8, 12]
    assert theft.answered.tolist() == [4, 4, 8]
    assert [record.refused for record in theft.trail] == [False, True, False]


def test_the_budget_is_the_oracles_not_the_thiefs(entry):
    def greedy(oracle, x, y, *, budget, rng):
        oracle.labels(x)
        oracle.labels(x[:1])
        yield lambda z: np.zeros(len(z), np.int64)

    with pytest.raises(BudgetSpent):
        steal(entry(greedy))


def test_who_has_no_copy_is_no_thief(entry):
    with pytest.raises(ValueError, match="made no copy"):
        steal(entry(lambda *_, **__: iter(())))


def test_a_copy_that_answers_in_another_shape_is_an_error(entry):
    def odd(oracle, x, y, *, budget, rng):
        yield lambda z: np.zeros((len(z), 2), np.int64)

    with pytest.raises(ValueError, match="labels 3 inputs with shape"):
        steal(entry(odd))
