from dataclasses import replace

import numpy as np
import pytest

from guard.monitors.own_neighbours import OwnNeighbours
from guard.types import AnswerMonitor, Past, Seen, Sketch
from tests.monitors.clean_world import CLASSES, at_work, clean, material, probs_of, recent, seen

LARGE = 3000
CENTRE = clean(1, 7, 0)[0]
SPREADS = np.array([0.2, 0.5, 0.8, 1.1, 1.4])


def rows(n, seed, label=None):
    """Class 0 is a dense one."""
    x, labels = clean(n, seed, label)
    return (CENTRE + SPREADS[labels][:, None] * x).astype(np.float32), labels


def known(n=LARGE):
    x, labels = rows(n, 0)
    return replace(material(n), x=x, probs=probs_of(labels), positions=lambda unit: (unit,))


WORKING = at_work(OwnNeighbours(), known())
NONE = np.zeros(0, np.uint64)


def sketched(places):
    return tuple(replace(row, sketch=Sketch(b"", NONE, place)) for row, place in zip(seen(places), places, strict=True))


def judge(places, labels, before, working=WORKING):
    own = Past() if before is None else Past(recent=recent(*before))
    return working.judge_answers(sketched(places), own, probs_of(labels))


def stepped(places, by):
    steps = np.random.default_rng(5).normal(size=places.shape)
    return (places + by * steps / np.linalg.norm(steps, axis=1, keepdims=True)).astype(np.float32)


def test_a_step_from_an_earlier_row_is_nearer_than_clean_rows_come():
    assert isinstance(WORKING, AnswerMonitor)
    before = rows(100, 1)
    benign = judge(*rows(1000, 2), before)
    steps = judge(stepped(before[0], 0.04), before[1], before)
    assert np.quantile(steps, 0.1) > np.quantile(benign, 0.99)


@pytest.mark.parametrize("label", [*range(CLASSES), None])
@pytest.mark.parametrize("many", [20, 200])
def test_clean_rows_are_so_near_no_more_often_than_said(label, many):
    """Whoever asks about a class alone, and however much he has asked."""
    found = np.concatenate([judge(*rows(300, 20 + i, label), rows(many, 40 + i, label)) for i in range(10)])
    for share in (0.1, 0.01):
        assert (found > -np.log(share)).mean() < 1.5 * share


def test_rows_that_were_answered_otherwise_do_not_count():
    place, label = rows(1, 3, 2)
    assert judge(place, label, (place, label))[0] > 5
    assert judge(place, label, (place, label + 1))[0] == 0


def test_who_has_sent_more_is_near_to_himself_more_often():
    places, labels = rows(100, 1, 1)
    one = stepped(places[:1], 0.1)
    alone, among = judge(one, labels[:1], (places[:1], labels[:1])), judge(one, labels[:1], (places, labels))
    assert alone[0] - among[0] == pytest.approx(np.log(100))


def test_what_has_no_earlier_rows_to_be_near_to_says_nothing():
    place, label = rows(1, 3)
    assert judge(place, label, None)[0] == 0
    assert judge(place, label, (np.zeros((1, 5), np.float32), label))[0] == 0  # kept by another sketcher
    assert WORKING.judge_answers((), Past(), np.zeros((0, CLASSES))).shape == (0,)


def test_what_is_beside_one_of_the_latest_rows_says_nothing():
    place, label = rows(1, 3, 2)
    (row,), own = sketched(place), Past(recent=recent(place, label))
    film = WORKING.judge_answers((replace(row, beside=True), row), own, probs_of(np.repeat(label, 2)))
    assert film[0] == 0 < film[1]


def test_the_same_place_is_finite():
    place, label = np.zeros((1, 12), np.float32), np.array([0])
    assert np.isfinite(judge(place, label, (place, label))).all()


def test_of_several_secrets_the_one_counts_by_which_rows_are_nearest():
    both = replace(known(), positions=lambda unit: (unit, unit / 2 + CENTRE / 2))
    place, label = rows(1, 3, 2)
    before = stepped(place, 0.1), label
    assert 0 < judge(place, label, before, at_work(OwnNeighbours(), both))[0] < judge(place, label, before)[0] - 1


def test_classes_with_few_rows_are_held_against_rows_that_share_a_class():
    x, _ = rows(400, 0)
    many = np.arange(400) // 8  # fifty classes of eight rows
    probs = np.eye(50)[many]
    working = at_work(OwnNeighbours(), replace(material(400), x=x, probs=probs, positions=lambda unit: (unit,)))
    one = Seen(Sketch(b"", NONE, x[0]), sketched(x[:1])[0].match)
    found = [
        working.judge_answers((one,), Past(recent=recent(stepped(x[:1], by), [0])), probs[:1])[0] for by in (0.001, 3.0)
    ]
    assert found[0] > 5
    assert found[1] < 1


def test_where_no_two_rows_share_a_class_nothing_is_near():
    x, _ = rows(60, 0)
    working = at_work(OwnNeighbours(), replace(material(60), x=x, probs=np.eye(60), positions=lambda unit: (unit,)))
    assert working.judge_answers(sketched(x[:1]), Past(recent=recent(x[:1], [0])), np.eye(60)[:1])[0] == 0


def test_what_cannot_be_learned_is_refused_in_words():
    with pytest.raises(ValueError, match="answers"):
        OwnNeighbours().learn(replace(known(), probs=None))
    with pytest.raises(ValueError, match="at least 40"):
        OwnNeighbours().learn(known(20))
    with pytest.raises(ValueError, match="none"):
        OwnNeighbours().learn(material())
