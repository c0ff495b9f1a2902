from dataclasses import replace

import grpc
import numpy as np
import pytest

from adversary import work
from adversary.attack import REFUSED, Result
from adversary.campaign import Attack, Benign, Identities, Model
from adversary.runner import ANY, NEVER
from adversary.serving import Place
from adversary.unit import Task, Unit
from adversary.victims.mnist import CHECKPOINT
from adversary.work import Done, Failed
from tests.adversary.tiny import Tiny, serving

X = np.linspace(0.1, 0.4, 12, dtype=np.float32).reshape(3, 4)
Y = np.zeros(3, int)
BESIDE = np.full((20, 4), 0.2, np.float32) + np.linspace(0, 0.1, 20, dtype=np.float32)[:, None]


def brightness(x):
    high = x.reshape(len(x), -1).mean(1)
    return np.stack([1.0 - high, high], axis=1)


@pytest.fixture
def tiny():
    with serving(Tiny(brightness, lambda x, n: grpc.StatusCode.PERMISSION_DENIED if x.max() > 0.95 else None)) as t:
        yield t


def task(tiny, kind, *, attack=None, arrays=None, per="victim", keys=(), start=0, every=5, headers=()):
    unit = Unit(kind, "guarded", attack.attack if attack else "", 0, start, start + len(X))
    given = {"x": X, "y": Y, "clean": Y, "beside_x": BESIDE, "beside_y": np.zeros(20, int), **(arrays or {})}
    place = Place(tiny.address, None, "secret", headers, keys)
    return Task(
        unit,
        Model(name="tiny", onnx=CHECKPOINT),
        place,
        attack,
        Benign(every=every, callers=2),
        Identities(per=per),
        given,
        classes=2,
    )


def fake(monkeypatch, function):
    """The attack `square` with another function."""
    entry = type(Attack(attack="square").entry)
    monkeypatch.setattr(entry, "function", property(lambda _: function))
    return Attack(attack="square", eps=0.3, budget=12)


def ramp(target, x, y, *, eps, budget, rng, identities=1):
    """Twelve rows, three a call, ever brighter; ends within eps on the far side."""
    for value in (0.1, 0.3, 0.55, 0.99):
        target.labels(np.full((3, *x.shape[1:]), value, np.float32))
    return Result(np.clip(x + 0.3, 0, 1), np.array([12]))


def who(tiny):
    return [sent["x-api-key"] for sent in tiny.metadata]


def test_clean_answers_come_from_callers_of_their_own(tiny):
    done = work.do(task(tiny, "clean"))
    assert done.arrays["labels"].tolist() == [0, 0, 0]
    names = who(tiny)
    assert len(set(names)) == 3
    assert all(name.startswith("clean-0-") for name in names)


def test_where_an_endpoint_lives_on_no_name_is_used_twice(tiny):
    work.do(task(tiny, "clean"))
    work.do(task(tiny, "clean"))
    assert len(set(who(tiny))) == 6


def test_keys_and_headers_of_the_campaign(tiny):
    work.do(task(tiny, "clean", keys=("k1", "k2"), headers=(("authorization", "me"),)))
    assert set(who(tiny)) == {"k1", "k2"}
    assert {sent["authorization"] for sent in tiny.metadata} == {"me"}


def test_honest_callers_take_turns(tiny):
    x = np.concatenate([X, np.full((1, 4), 0.99, np.float32)])
    done = work.do(task(tiny, "benign", arrays={"x": x, "y": np.zeros(4, int)}))
    assert done.arrays["labels"].tolist() == [0, 0, 0, REFUSED]
    assert done.arrays["flagged"].tolist() == [False, False, False, True]
    assert done.arrays["caller"].tolist() == [0, 1, 0, 1]
    assert not done.arrays["caller_flagged"].any()  # who says so is Guard's own log
    assert len(set(who(tiny))) == 2


def test_what_was_crafted_is_sent(tiny):
    attack = Attack(attack="pgd", eps=0.3)
    x_adv = np.stack([X[0] + 0.3, np.full(4, 0.99, np.float32), X[2] + 0.3])
    done = work.do(
        task(tiny, "send", attack=attack, arrays={"x_adv": x_adv, "queries": np.full(3, 40), "aim": np.full(3, ANY)})
    )
    found = done.arrays
    assert found["adversarial"].tolist() == [0, REFUSED, 1]
    assert found["refused_at"].tolist() == found["flagged_at"].tolist() == [NEVER, 1, NEVER]
    assert found["reached_at"].tolist() == [NEVER, NEVER, 1]
    assert found["sent"].tolist() == [1, 1, 1]
    assert found["flagged_rows"].tolist() == [0, 1, 0]
    assert len(tiny.requests) == 3


def test_a_hunt_with_company(tiny, monkeypatch):
    done = work.do(task(tiny, "hunt", attack=fake(monkeypatch, ramp)))
    found = done.arrays
    assert found["sent"].tolist() == [13, 13, 13]
    assert found["flagged_at"].tolist() == [12, 12, 12]
    assert found["flagged_rows"].tolist() == [3, 3, 3]
    assert found["reached_at"].tolist() == [NEVER, 13, 7]  # the second only by what it hands back
    assert len(found["beside_labels"]) == 39 // 5
    assert found["beside_labels"].tolist() == [0] * 7
    assert not found["beside_flagged"].any()
    callers = who(tiny)
    assert len({name for name in callers if name.startswith("beside-")}) == 1
    assert len({name for name in callers if name.startswith("square-")}) == 3
    first = [name.startswith("beside-") for name in callers]
    assert first[:6] == [False, False, True, False, False, True]  # after rows 6 and 10 are 5 and 10


def test_no_company_where_none_is_wanted(tiny, monkeypatch):
    done = work.do(task(tiny, "hunt", attack=fake(monkeypatch, ramp), every=0))
    assert len(done.arrays["beside_labels"]) == 0


def test_one_caller_for_a_whole_attack(tiny, monkeypatch):
    work.do(task(tiny, "hunt", attack=fake(monkeypatch, ramp), per="attack", every=0))
    assert len(set(who(tiny))) == 1


def test_an_attack_of_many_callers_gets_them(tiny, monkeypatch):
    def split(target, x, y, *, eps, budget, rng, identities=4):
        first = target.identity * identities
        for i in range(identities):
            target.use(first + i)
            target.labels(x)
        return Result(x, np.array([identities]))

    work.do(task(tiny, "hunt", attack=fake(monkeypatch, split), every=0))
    assert len(set(who(tiny))) == 12


def test_victims_of_a_later_chunk_have_streams_and_names_of_their_own(tiny, monkeypatch):
    def noisy(target, x, y, *, eps, budget, rng):
        return Result((x + rng.uniform(0, 0.1, x.shape)).astype(np.float32), np.array([0]))

    attack = fake(monkeypatch, noisy)
    one = work.do(task(tiny, "hunt", attack=attack)).arrays["x_adv"]
    other = work.do(task(tiny, "hunt", attack=attack, start=3)).arrays["x_adv"]
    again = work.do(task(tiny, "hunt", attack=attack)).arrays["x_adv"]
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert len(set(who(tiny))) == 9


def test_progress_is_told(tiny, monkeypatch):
    told = []
    work.do(task(tiny, "hunt", attack=fake(monkeypatch, ramp)), lambda *now: told.append(now))
    assert [now[:2] for now in told] == [(1, 3), (2, 3), (3, 3)]


def crafting(prey, name, **options):
    x, y = prey[0][:8], prey[1][:8]
    unit = Unit("craft", "", name, 0, 0, 8)
    attack = Attack(attack=name, **options)
    return Task(unit, Model(name="mnist", onnx=CHECKPOINT), None, attack, Benign(), Identities(), {"x": x, "y": y}, 10)


def test_crafting_is_done_on_the_models_file(prey):
    made = work.do(crafting(prey, "pgd", budget=3, options={"step": 0.05})).arrays
    assert made["x_adv"].shape == (8, 1, 28, 28)
    assert np.abs(made["x_adv"] - prey[0][:8]).max() <= 0.3 + 1e-6
    assert made["queries"].tolist() == [3] * 8


def test_a_transfer_attack_is_crafted_on_the_attackers_own_network(prey, data):
    from adversary.data import mnist

    own = {"own_x": mnist.unit(data.clean.images[:1000]), "own_y": data.clean.labels[:1000]}
    plain = crafting(prey, "mi-fgsm")
    made = [work.do(replace(plain, arrays={**plain.arrays, **own})).arrays["x_adv"] for _ in range(2)]
    assert np.array_equal(*made)
    on_the_victim = work.do(crafting(prey, "bim")).arrays["x_adv"]
    assert not np.array_equal(made[0], on_the_victim)
    with pytest.raises(KeyError):
        work.do(plain)


def test_whatever_fails_is_told_and_not_raised(tiny, monkeypatch):
    def broken(target, x, y, **_):
        raise RuntimeError("boom")

    assert work.attempt(task(tiny, "hunt", attack=fake(monkeypatch, broken))) == Failed("RuntimeError: boom")
    assert isinstance(work.attempt(task(tiny, "clean")), Done)


@pytest.mark.parametrize("loader", ["nonsense", "no.module:f", "adversary.work:nothing"])
def test_a_loader_that_is_not_there_is_named(loader):
    with pytest.raises(ValueError, match=r"model\.torch"):
        work.torch_model(Model(name="m", torch=loader))
