import numpy as np
import pytest

from guard.outputs.reverse_sigmoid import ReverseSigmoid
from tests.outputs.worlds import every, l1, leads, peaked


def published(probs, beta, gamma):
    """The paper's formula, with logit and sigmoid written out."""
    logit = np.log(probs / (1 - probs))
    bent = probs - beta * (1 / (1 + np.exp(-gamma * logit)) - 0.5)
    return bent / bent.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("beta", "gamma"), [(1.0, 0.1), (0.7, 0.2), (0.4, 1.0)])
def test_it_is_the_papers_where_the_argmax_stays(beta, gamma):
    probs = peaked(500, 10)
    wanted = published(probs, beta, gamma)
    kept = leads(wanted, probs)
    assert kept.mean() > 0.8
    out = ReverseSigmoid(beta, gamma).protect(probs, every(500))
    np.testing.assert_allclose(out[kept], wanted[kept], rtol=1e-9)


def test_the_argmax_stays_where_the_paper_loses_it():
    probs = peaked(2000, 100, most=4.0)  # a curve that falls below 0.03 turns flat answers over
    lost = ~leads(published(probs, 1.0, 0.1), probs)
    assert lost.sum() >= 10  # the control
    out = ReverseSigmoid().protect(probs, every(2000))
    assert leads(out, probs).all()
    assert (l1(out, probs)[lost] > 1e-3).all()  # shrunk, not left out


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_uniform_answer_is_not_reached(classes):
    probs = peaked(50, classes)
    out = ReverseSigmoid(1.0, 1.0).protect(probs, every(50))
    assert leads(out, probs).all()
    np.testing.assert_allclose(out, 1 / classes, atol=0.1)


def test_certain_answers():
    out = ReverseSigmoid().protect(np.eye(4), every(4))
    assert leads(out, np.eye(4)).all()
    assert np.isfinite(out).all()
    np.testing.assert_allclose(out[0], np.array([0.5, 0.5, 0.5, 0.5]) / 2, atol=0.02)  # the paper's is the exact tie


def test_a_thief_who_takes_answers_at_their_word_is_told_less():
    """Differences of log-probabilities, which equations are solved with, shrink by more than half."""
    probs = peaked(500, 10)
    out = ReverseSigmoid().protect(probs, every(500))
    spread = [np.ptp(np.log(p), axis=1).mean() for p in (probs, out)]
    assert spread[1] < spread[0] / 2
