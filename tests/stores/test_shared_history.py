"""An attack that alternates between two workers: seen by both where they share history, later where they do not."""

import numpy as np
import pytest

from guard.engine import Engine
from guard.monitors.fingerprint import Fingerprint
from guard.profile import Space
from guard.settings import Model
from guard.stores.memory import MemoryStore
from guard.types import Action, Alert, Answer, Query
from tests.core.helpers import profile_of
from tests.stores.test_valkey import empty, make, port  # noqa: F401 - fixtures

SECRET = b"the same for all workers of one model"
GREY = Space("nhw", (0.0,), (1.0,), certain=True)
QUERIES = 40


def engine() -> Engine:
    profile = profile_of({("monitor", "fingerprint"): (Fingerprint(), np.linspace(0.0, 0.05, 2000))}, space=GREY)
    settings = {
        "name": "m",
        "profile": "p",
        "mode": "enforce",
        "policy": {"lag_rows": 1},
        "monitors": [{"stage": "fingerprint"}],
    }
    return Engine(Model.model_validate(settings), profile, SECRET)


def attack():
    """Steps of noise around one image."""
    rng = np.random.default_rng(2)
    image = rng.random((28, 28))
    return [np.clip(image + 0.003 * rng.standard_normal((1, 28, 28)), 0, 1).astype(np.float32) for _ in range(QUERIES)]


async def first_refusals(stores) -> list[int]:
    """At which query each of two workers, asked in turns, first refuses."""
    workers, first = [(engine(), store) for store in stores], [QUERIES, QUERIES]
    for i, x in enumerate(attack()):
        worker, store = workers[i % 2]
        query = worker.admit(Query(x, "mallory", "m", str(i), now=float(i)))
        sketches = worker.sketch(query)
        history = await store.exchange("m", "mallory", ("global",), sketches, float(i))
        decision = worker.decide(query, history, sketches)
        await store.credit("m", "mallory", ("global",), decision.update, float(i))
        if decision.action is Action.DENY:
            first[i % 2] = min(first[i % 2], i)
            continue
        conclusion = worker.conclude(decision, Answer(np.array([[0.9, 0.1, 0.0]])))
        await store.credit("m", "mallory", ("global",), conclusion.update, float(i))
    return first


async def answered_behind_a_burner(store) -> int:
    """How many steps another account has answered, each of which a burner account has asked just before."""
    worker, answered = engine(), 0
    for i, x in enumerate(attack()):
        for caller in ("burner", "mallory"):
            query = worker.admit(Query(x, caller, "m", f"{i} {caller}", now=float(i)))
            sketches = worker.sketch(query)
            history = await store.exchange("m", caller, ("global",), sketches, float(i))
            decision = worker.decide(query, history, sketches)
            await store.credit("m", caller, ("global",), decision.update, float(i))
            if decision.action is not Action.DENY:
                conclusion = worker.conclude(decision, Answer(np.array([[0.9, 0.1, 0.0]])))
                await store.credit("m", caller, ("global",), conclusion.update, float(i))
                answered += caller == "mallory"
    return answered


async def test_an_account_that_asks_ahead_hides_nobody(monkeypatch):
    assert await answered_behind_a_burner(MemoryStore()) < QUERIES / 2
    monkeypatch.setattr(Alert, "outcast", False)  # the control: what it asked is a repeat for the other
    assert await answered_behind_a_burner(MemoryStore()) == QUERIES


@pytest.fixture
def two(make):  # noqa: F811
    return make(), make()


async def test_two_workers_on_one_valkey_see_one_attack(two):
    shared = await first_refusals(two)
    alone = await first_refusals((MemoryStore(), MemoryStore()))
    one = await first_refusals((both := MemoryStore(), both))
    assert shared == one  # as one process would have it
    assert max(shared) - min(shared) == 1
    assert max(shared) < min(alone) < QUERIES  # each alone sees every other query
