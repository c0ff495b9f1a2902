import hashlib

import numpy as np
import pytest

from adversary.attack import BudgetSpent, Refused
from adversary.endpoint import Endpoint, OracleError
from adversary.ledger import Answered, Ended, Ledger
from tests.adversary.test_messages import answer, tongue

X = np.zeros((2, 3, 4, 5), np.float32)
OK = Ended("OK", answer([1, 2, 3, 4], [2, 2]), decision_id="d")
NOBODY = Ended("UNAVAILABLE", details="connection refused")


def ledger(budget=100, **options):
    made = Ledger(Endpoint("a:1", "m", **options), budget)
    made.open(tongue())
    return made


def tried(book, query, ended):
    book.start(query)
    return book.end(query, ended)


def test_an_answer_is_charged_recorded_and_told():
    book, told = ledger(identities=((), (), ())), []
    book.listeners.append(lambda *what: told.append(what))
    reply = tried(book, book.query(X, 4), OK)
    assert isinstance(reply, Answered)
    assert reply.y.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    (record,) = book.records
    assert (record.rows, record.status, record.decision_id, record.identity) == (2, "OK", "d", 1)
    assert record.digest == hashlib.sha256(X.tobytes()).hexdigest()
    assert not record.refused
    assert (book.spent, book.left) == (2, 98)
    assert [(x is X, r is reply, rec is record) for x, r, rec in told] == [(True, True, True)]


def test_nothing_is_made_that_the_budget_does_not_hold():
    book = ledger(budget=3)
    first, second = book.query(X), book.query(X)
    book.start(first)
    with pytest.raises(BudgetSpent):
        book.start(second)
    with pytest.raises(BudgetSpent, match="2 of 3 rows were sent; 2 more do not fit"):
        book.query(X)
    assert book.spent == 2


def test_a_call_that_nobody_took_is_tried_again_and_each_try_is_paid():
    book, told = ledger(retries=2), []
    book.listeners.append(lambda *what: told.append(what))
    query = book.query(X)
    waits = []
    for _ in range(2):
        assert tried(book, query, NOBODY) is None
        waits.append(query.backoff_s)
    assert isinstance(tried(book, query, OK), Answered)
    assert waits == pytest.approx([0.1, 0.3])
    assert [(record.status, record.tries, record.rows) for record in book.records] == [("OK", 3, 2)]
    assert (book.spent, book.again, len(told)) == (6, 4, 1)
    book.budget = 7
    with pytest.raises(BudgetSpent, match="6 of 7 rows were sent, 4 of them again because nobody took them; 2 more"):
        book.query(X)


def test_waits_grow_no_longer_than_a_second():
    query = ledger().query(X)
    query.tries = 50
    assert query.backoff_s == 1.0


@pytest.mark.parametrize(("retries", "budget", "tries"), [(2, 100, 3), (0, 100, 1), (5, 5, 2)])
def test_it_is_not_tried_more_often_than_is_allowed_nor_past_the_budget(retries, budget, tries):
    book = ledger(budget, retries=retries)
    query = book.query(X)
    for _ in range(tries - 1):
        assert tried(book, query, NOBODY) is None
    with pytest.raises(OracleError, match="UNAVAILABLE: connection refused"):
        tried(book, query, NOBODY)
    assert [(record.status, record.tries, record.refused) for record in book.records] == [("UNAVAILABLE", tries, False)]
    assert book.spent == 2 * tries <= budget


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"])
def test_a_refusal_is_never_tried_again(code):
    book = ledger(retries=9)
    assert tried(book, book.query(X), Ended(code, decision_id="d")) == Refused(code, "d")
    assert [record.refused for record in book.records] == [True]


@pytest.mark.parametrize("code", ["INTERNAL", "DEADLINE_EXCEEDED", "ABORTED", "UNKNOWN", "CANCELLED"])
def test_no_other_failure_is_tried_again(code):
    book = ledger(retries=9)
    with pytest.raises(OracleError, match=code):
        tried(book, book.query(X), Ended(code))
    assert len(book.records) == 1


def test_a_closed_ledger_makes_no_query():
    with pytest.raises(OracleError, match="not open"):
        Ledger(Endpoint("a:1", "m"), 1).query(X[:1])
