from dataclasses import replace

import numpy as np
import pytest

from guard.monitors.low_confidence import LowConfidence
from guard.types import AnswerMonitor, Past
from tests.monitors.clean_world import CLASSES, at_work, material, probs_of


def sure(n, seed, labels, more=0.0):
    """Class 0 is a hard one."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(np.where(labels == 0, 1.5, 4.0) - more, 0.7, n)
    return probs_of(labels, (1 / (1 + np.exp(-odds)))[:, None] * 0.7 + 0.29)


LABELS = np.arange(2000) % CLASSES
WORKING = at_work(LowConfidence(), replace(material(2000), probs=sure(2000, 0, LABELS)))


def judge(labels, seed, more=0.0):
    return WORKING.judge_answers((), Past(), sure(len(labels), seed, labels, more))


@pytest.mark.parametrize("label", range(CLASSES))
def test_a_hard_class_alone_is_as_usual_as_all(label):
    assert (judge(np.full(1000, label), 1) > -np.log(0.05)).mean() == pytest.approx(0.05, abs=0.03)


def test_unsure_answers_stand_out():
    assert isinstance(WORKING, AnswerMonitor)
    assert np.median(judge(LABELS, 2, more=2.0)) > np.quantile(judge(LABELS, 3), 0.95)


def test_answers_of_0_and_1_are_finite():
    assert np.isfinite(WORKING.judge_answers((), Past(), np.eye(CLASSES))).all()


def test_labels_only_is_refused_in_words():
    with pytest.raises(ValueError, match="labels only"):
        LowConfidence().learn(replace(material(), probs=None))
