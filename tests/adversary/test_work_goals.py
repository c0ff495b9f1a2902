"""Units of attacks that are no evasions, and of those that work on all victims at once, against a tiny server."""

import grpc
import numpy as np
import pytest

from adversary import work
from adversary.attack import Guesses, Result
from adversary.campaign import Attack, Benign, Identities, Model
from adversary.catalogue import CATALOGUE, Entry
from adversary.runner import ANY, NEVER
from adversary.serving import Place
from adversary.unit import Task, Unit
from tests.adversary.test_runner_extraction import brightness
from tests.adversary.tiny import Tiny, serving

X = np.linspace(0.1, 0.4, 12, dtype=np.float32).reshape(3, 4)
Y = np.zeros(3, int)
BESIDE = {"beside_x": np.full((20, 4), 0.2, np.float32), "beside_y": np.zeros(20, int)}


@pytest.fixture
def tiny():
    with serving(Tiny(brightness, lambda x, n: grpc.StatusCode.PERMISSION_DENIED if x.max() > 0.95 else None)) as t:
        yield t


@pytest.fixture
def do(tiny, monkeypatch):
    def run(kind, family, function, arrays, *, budget=12, access="labels", **entry):
        made = Entry("fake", family, access, "linf", "made up", 0.3, budget, **entry)
        monkeypatch.setitem(CATALOGUE, "fake", made)
        monkeypatch.setattr(Entry, "function", property(lambda _: function))
        task = Task(
            Unit(kind, "guarded", "fake", 0, 0, 3), Model(name="tiny"), Place(tiny.address, None, "secret", (), ()),
            Attack(attack="fake"), Benign(every=5), Identities(), {"x": X, "y": Y, **BESIDE, **arrays}, 2,
        )  # fmt: skip
        return work.do(task).arrays

    return run


def callers(tiny):
    return {sent["x-api-key"] for sent in tiny.metadata if not sent["x-api-key"].startswith("beside-")}


def test_a_theft(tiny, do):
    pool = np.concatenate([X, np.full((1, 4), 0.99, np.float32), X + 0.5])

    def thief(oracle, x, y, *, budget, rng, classes):
        for row in x:
            oracle.labels(row[None])
        yield lambda z: np.full(len(z), classes - 1)

    pool_y = np.full(7, -1)
    found = do("steal", "extraction", thief, {"pool": pool, "pool_y": pool_y, "clean": np.array([0, 1, 0])})
    assert found["copied"].tolist() == [[1, 1, 1]]
    assert found["bare"].tolist() == [0, 1, 0]
    assert found["spent"].tolist() == [7]
    assert found["answered"].tolist() == [6]
    assert (found["flagged_at"].tolist(), found["sent"].tolist()) == ([4], [7])
    assert (found["flagged_rows"].tolist(), found["refused_rows"].tolist()) == ([1], [1])
    assert found["beside_labels"].tolist() == [0]  # one turn in seven rows
    assert len(callers(tiny)) == 1


def test_a_membership(tiny, do):
    def guess(oracle, x, y, *, budget, rng, own_x, own_y):
        return Guesses(x.mean(1) - own_x.mean(), np.full(len(x), len(oracle.labels(x))))

    member = np.array([True, False, True])
    given = {"candidates": X, "candidates_y": Y, "member": member, "own_x": X, "own_y": Y}
    found = do("infer", "membership", guess, given, budget=1)
    assert found["scores"].tolist() == pytest.approx((X.mean(1) - X.mean()).tolist())
    assert found["member"].tolist() == member.tolist()
    assert found["sent"].tolist() == [3]
    assert found["flagged_at"].tolist() == [NEVER]
    assert len(callers(tiny)) == 1


def test_an_inversion(tiny, do):
    def mirror(oracle, x, y, *, budget, rng):
        return Result(np.where(y[0], 0.9, 0.1) * np.ones_like(x) * np.linspace(0.9, 1.0, 4), np.array([0]))

    real = np.concatenate([np.linspace(0.0, 0.3, 4)[None], np.linspace(1.0, 0.7, 4)[None]] * 40).astype(np.float32)
    given = {"start": np.full((3, 4), 0.5, np.float32), "wanted": np.array([0, 1, 0]),
             "real_x": real, "real_y": np.arange(80) % 2}  # fmt: skip
    found = do("invert", "inversion", mirror, given, access="scores")
    assert found["answered"].tolist() == [0, 1, 0]
    assert found["recognised"].shape == (3,)
    assert found["likeness"].argmax(1).tolist() == [0, 0, 0]  # all rise from left to right, as class 0 does
    assert found["sent"].tolist() == [1, 1, 1]
    assert len(callers(tiny)) == 3


def test_an_attack_on_all_victims_at_once_asks_as_one_and_sends_as_many(tiny, do):
    def together(oracle, x, y, *, eps, budget, rng, own_x):
        for row in own_x:
            oracle.labels(row[None])
        return Result(x + np.array([0.0, 0.3, 0.55])[:, None], np.full(len(x), len(own_x)))

    own = np.full((4, 4), 0.3, np.float32)
    own[2] = 0.99
    found = do("hunt", "transfer", together, {"own_x": own, "own_y": Y, "clean": Y}, budget=4, joint=True)
    assert found["adversarial"].tolist() == [0, 1, 1]
    assert found["reached_at"].tolist() == [NEVER, 5, NEVER]  # the third goes past eps
    assert found["sent"].tolist() == [5, 5, 5]
    assert found["flagged_at"].tolist() == found["refused_at"].tolist() == [3, 3, 3]
    assert found["queries"].tolist() == [4, 4, 4]
    assert len(callers(tiny)) == 3


def test_a_trigger_is_stamped_without_a_model_and_only_its_own_label_counts(tiny, do):
    def trigger(target, x, y, *, eps, budget, rng, label=1):
        assert target is None
        return Result(x + 0.25, np.zeros(len(x), int), np.full(len(x), label))

    crafted = work.do(Task(
        Unit("craft", "", "fake", 0, 0, 3), Model(name="tiny"), None, _fake_entry(do, trigger), Benign(), Identities(),
        {"x": X, "y": Y}, 2,
    )).arrays  # fmt: skip
    assert crafted["aim"].tolist() == [1, 1, 1]
    sent = {"clean": np.array([0, 0, 0]), **crafted, "aim": np.array([ANY, 0, 1])}
    found = do("send", "backdoor", trigger, sent, access="nothing")
    assert found["aim"].tolist() == [ANY, 0, 1]
    assert found["adversarial"].tolist() == [0, 0, 1]
    assert found["reached_at"].tolist() == [NEVER, NEVER, 1]  # label 0 is the second's own: nothing to gain


def _fake_entry(do, function):
    """The attack as `do` registers it."""
    with pytest.raises(KeyError):  # a send without what was crafted
        do("send", "backdoor", function, {"clean": Y}, access="nothing")
    return Attack(attack="fake")
