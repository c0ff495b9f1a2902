"""Memberships and inversions: one caller or many, what is counted, what is measured of a rebuilt input."""

import numpy as np
import pytest

from adversary import runner_inversion, runner_membership
from adversary.attack import REFUSED, Guesses, Result
from adversary.catalogue import Entry
from adversary.gradients import one_thread
from adversary.oracle import Endpoint, Oracle
from tests.adversary.test_runner_extraction import brightness
from tests.adversary.tiny import Tiny, serving

GUESSER = Entry("guesser", "membership", "scores", "none", "made up", 0.0, 1)
MIRROR = Entry("mirror", "inversion", "scores", "none", "made up", 0.0, 6)
X = np.linspace(0.1, 0.8, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def be(monkeypatch):
    return lambda function: monkeypatch.setattr(Entry, "function", property(lambda _: function))


def asked(budget, call, **options):
    identities = tuple((("x-api-key", f"k{i}"),) for i in range(3))
    with serving(Tiny(brightness)) as tiny:
        with Oracle(Endpoint(tiny.address, "tiny", identities=identities), budget) as oracle:
            found = call(oracle, **options)
        return found, [sent["x-api-key"] for sent in tiny.metadata]


def test_a_membership_is_inferred_as_one_caller_and_what_is_no_number_says_nothing(be):
    def guess(oracle, x, y, *, budget, rng, own_x):
        scores = [oracle.probabilities(row[None])[0, 1] - own_x.mean() for row in x]
        return Guesses(np.array([scores[0], np.nan, scores[2]]), np.ones(3, int))

    be(guess)
    call = runner_membership.infer
    found, callers = asked(3, lambda o: call(GUESSER, o, X, np.zeros(3), budget=1, seed=0, own_x=np.full(2, 0.5)))
    assert found.scores.tolist() == pytest.approx([X[0].mean() - 0.5, 0.0, X[2].mean() - 0.5], abs=1e-6)
    assert found.queries.tolist() == [1, 1, 1]
    assert set(callers) == {"k0"}
    assert len(found.trail) == 3


def test_scores_of_another_number_are_an_error(be):
    be(lambda *_, **__: Guesses(np.zeros(2), np.zeros(2)))
    with pytest.raises(ValueError, match="scored 3 candidates with shape"):
        asked(3, lambda o: runner_membership.infer(GUESSER, o, X, np.zeros(3), budget=1, seed=0))


def test_each_class_is_rebuilt_by_a_caller_of_its_own_and_asked_afresh(be):
    def mirror(oracle, x, y, *, budget, rng):
        oracle.probabilities(x)
        return Result(np.full_like(x, 7.0 if y[0] else np.nan), np.array([1]))  # clipped to 1, and to 0

    be(mirror)
    start, wanted = np.full((3, 4), 0.5, np.float32), np.array([0, 1, 1])
    call = runner_inversion.invert
    found, callers = asked(6, lambda o: call(MIRROR, o, start, wanted, budget=1, seed=0))
    assert found.x.tolist() == [[0.0] * 4, [1.0] * 4, [1.0] * 4]
    assert found.answered.tolist() == [0, 1, 1]
    assert callers == ["k0", "k0", "k1", "k1", "k2", "k2"]
    assert [len(trail) for trail in found.trails] == [2, 2, 2]
    assert REFUSED not in found.answered


def test_likeness_is_the_correlation_with_each_class_mean():
    real_x = np.array([[0.0, 0.2, 0.4], [0.0, 0.4, 0.8], [0.9, 0.5, 0.1]], np.float32)
    real_y = np.array([0, 0, 1])
    found = runner_inversion.likeness(np.array([[0.1, 0.2, 0.3], [0.5, 0.5, 0.5]]), real_x, real_y, 2)
    assert found[0].tolist() == pytest.approx([1.0, -1.0])
    assert found[1].tolist() == [0.0, 0.0]  # grey resembles nothing


def test_real_digits_are_recognised_and_grey_is_not(data):
    own, test = data.clean, data.test
    with one_thread():
        real = np.float32(own.images[:2000, None] / 255.0)
        shown = np.float32(test.images[:200, None] / 255.0)
        labels = runner_inversion.recognised(shown, real, own.labels[:2000], 0)
        grey = runner_inversion.recognised(np.full_like(shown[:10], 0.5), real, own.labels[:2000], 0)
    assert (labels == test.labels[:200]).mean() > 0.85
    assert len(set(grey.tolist())) == 1
