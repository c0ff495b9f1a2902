from dataclasses import replace

import grpc
import numpy as np
import pytest

from adversary import attack, runner
from adversary.attack import REFUSED, Result
from adversary.catalogue import CATALOGUE
from adversary.oracle import Endpoint, Oracle, Record
from tests.adversary.tiny import Tiny, serving

ENTRY = replace(CATALOGUE["pgd"], name="fake", eps=0.2)


def brightness(x):
    """Label 1 where the mean passes 0.5."""
    high = x.reshape(len(x), -1).mean(1)
    return np.stack([1.0 - high, high], axis=1)


def of(entry, attack):
    """The entry with another function."""

    class Other(type(entry)):
        def load(self):
            return attack

    return Other(**{name: getattr(entry, name) for name in entry.__dataclass_fields__})


def fake(entry, x_adv):
    """An entry whose attack always claims x_adv."""
    return of(entry, lambda target, x, y, **_: Result(np.broadcast_to(x_adv, x.shape), np.full(len(x), 5)))


@pytest.fixture
def tiny():
    with serving(Tiny(brightness, lambda x, n: grpc.StatusCode.PERMISSION_DENIED if x.max() > 0.95 else None)) as t:
        yield t


def oracle(tiny, **options):
    return Oracle(Endpoint(tiny.address, "tiny", **options), 1000)


X = np.full((2, 4), 0.4, np.float32)
Y = np.array([0, 0])


def judge(tiny, x_adv, eps=0.2, x=X, y=Y):
    with oracle(tiny) as o:
        return runner.judge(ENTRY, o, x, y, x_adv=np.asarray(x_adv, np.float32), eps=eps, queries=np.zeros(len(x)))


def test_success_is_a_wrong_answer_within_eps(tiny):
    outcome = judge(tiny, [[0.55] * 4, [0.45] * 4])
    assert outcome.success.tolist() == [True, False]
    assert outcome.linf.tolist() == pytest.approx([0.15, 0.05], abs=1e-6)
    assert outcome.l2.tolist() == pytest.approx([0.3, 0.1], abs=1e-6)


def test_a_perturbation_past_eps_is_no_success(tiny):
    assert judge(tiny, [[0.7] * 4, [0.59] * 4]).success.tolist() == [False, True]


def test_a_refusal_is_no_success_and_is_detection(tiny):
    outcome = judge(tiny, [[0.96] * 4, [0.55] * 4], eps=1.0)
    assert outcome.success.tolist() == [False, True]
    assert outcome.adversarial.tolist() == [REFUSED, 1]
    assert outcome.detected_at.tolist() == [1, runner.NEVER]


def test_what_is_wrong_when_clean_is_not_attacked(tiny):
    outcome = judge(tiny, [[0.55] * 4, [0.55] * 4], y=np.array([0, 1]))
    assert outcome.attacked.tolist() == [True, False]
    assert outcome.success.tolist() == [True, False]


def test_what_is_sent_is_clipped_and_finite(tiny):
    outcome = judge(tiny, [[2.0] * 4, [np.nan] * 4])
    assert outcome.x_adv.tolist() == [[1.0] * 4, [0.0] * 4]


def test_every_judging_query_travels_alone(tiny):
    judge(tiny, [[0.55] * 4, [0.45] * 4])
    assert [x.shape for x in tiny.inputs] == [(1, 4)] * 4


def test_the_controls_clean_labels_save_the_queries(tiny):
    with oracle(tiny, identities=((("who", "a"),), (("who", "b"),))) as o:
        given = np.full((2, 4), 0.55, np.float32)
        outcome = runner.judge(ENTRY, o, X, Y, x_adv=given, eps=0.2, queries=np.zeros(2), clean=np.array([0, 3]))
    assert outcome.success.tolist() == [True, False]
    assert sorted(sent["who"] for sent in tiny.metadata) == ["a", "b"]


def test_a_lying_attack_wins_nothing(tiny):
    with oracle(tiny) as o:
        outcome = runner.hunt(fake(ENTRY, 0.45), o, X, Y, eps=0.2, budget=5, seed=0)
    assert outcome.success.tolist() == [False, False]
    assert outcome.queries.tolist() == [5, 5]


def test_a_hunt_goes_victim_by_victim_as_different_callers(tiny):
    told = []
    with oracle(tiny, identities=((("who", "a"),), (("who", "b"),))) as o:
        outcome = runner.hunt(
            fake(ENTRY, 0.55), o, np.full((3, 4), 0.4, np.float32), np.zeros(3, int), eps=0.2, budget=5, seed=0,
            tell=lambda *progress: told.append(progress),
        )  # fmt: skip
    assert outcome.success.all()
    assert [sent["who"] for sent in tiny.metadata] == ["a", "a", "b", "b", "a", "a"]
    assert told == [(1, 3, 1), (2, 3, 2), (3, 3, 3)]


def test_a_hunt_leaves_alone_what_is_wrong_when_clean(tiny):
    with oracle(tiny) as o:
        outcome = runner.hunt(fake(ENTRY, 0.55), o, X, np.array([1, 0]), eps=0.2, budget=5, seed=0)
    assert outcome.attacked.tolist() == [False, True]
    assert outcome.queries.tolist() == [0, 5]
    assert len(tiny.requests) == 3


def test_a_victims_outcome_does_not_depend_on_the_others(tiny):
    x = np.random.default_rng(3).uniform(0.2, 0.5, (3, 4)).astype(np.float32)
    entry = CATALOGUE["hop-skip-jump"]

    def hunt(rows):
        with oracle(tiny) as o:
            return runner.hunt(entry, o, rows, np.zeros(len(rows), int), eps=0.01, budget=80, seed=1)

    together = hunt(x)
    alone = hunt(x[:1])
    assert np.array_equal(together.x_adv[:1], alone.x_adv)
    assert together.queries[0] == alone.queries[0]


def test_first_refusal_counts_rows():
    def record(rows, status):
        return Record(rows, "", 0.0, 0.0, status, "", 0)

    assert runner.first_refusal([record(5, "OK"), record(3, "PERMISSION_DENIED"), record(9, "PERMISSION_DENIED")]) == 8
    assert runner.first_refusal([record(5, "OK")]) == runner.NEVER
    assert runner.first_refusal([]) == runner.NEVER


def test_craft_repeats_itself_by_seed(victim, prey):
    x, y = prey[0][:4], prey[1][:4]

    def craft(seed):
        return runner.craft(CATALOGUE["pgd"], victim, x, y, eps=0.3, budget=2, seed=seed)

    assert np.array_equal(craft(1).x_adv, craft(1).x_adv)
    assert not np.array_equal(craft(1).x_adv, craft(2).x_adv)
    assert attack.norms(craft(1).x_adv - x, "linf").max() <= 0.3 + 1e-6


def test_what_was_answered_wrongly_within_eps_is_seen_even_where_the_end_fails():
    """Answers twelve rows, then refuses: the walk had its input by then, the judging query is refused."""

    def walk(target, x, y, *, eps, budget, rng):
        for value in (0.9, 0.45, 0.55, 0.3):
            target.labels(np.full((3, *x.shape[1:]), value, np.float32))
        return Result(np.full(x.shape, 0.55, np.float32), np.array([12]))

    refuse = lambda x, n: grpc.StatusCode.PERMISSION_DENIED if n > 5 else None
    with serving(Tiny(brightness, refuse)) as tiny, oracle(tiny) as o:
        outcome = runner.hunt(of(ENTRY, walk), o, X[:1], Y[:1], eps=0.2, budget=12, seed=0)
    assert outcome.reached_at.tolist() == [7]
    assert not outcome.success.any()
    assert outcome.detected_at.tolist() == [13]
    assert [record.rows for record in outcome.trails[0]] == [3, 3, 3, 3, 1]


def test_known_clean_labels_and_the_number_of_the_first_victim(tiny):
    def noisy(target, x, y, *, eps, budget, rng):
        return Result((x + rng.uniform(0, 0.2, x.shape)).astype(np.float32), np.array([0]))

    def hunt(x, y, clean, first):
        with oracle(tiny) as o:
            return runner.hunt(
                of(ENTRY, noisy), o, x, y, eps=0.2, budget=1, seed=3, clean=np.array(clean), first=first
            ).x_adv

    whole = hunt(X, Y, [0, 0], 0)
    assert np.array_equal(hunt(X[1:], Y[1:], [0], 1), whole[1:])
    assert np.array_equal(hunt(X, Y, [0, 9], 0)[1], X[1])


def test_a_send_reaches_at_its_first_query(tiny):
    outcome = judge(tiny, [[0.55] * 4, [0.45] * 4])
    assert outcome.reached_at.tolist() == [1, runner.NEVER]
    assert [len(trail) for trail in outcome.trails] == [1, 1]
