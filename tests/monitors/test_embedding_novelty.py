import numpy as np
import pytest

from guard.monitors.embedding_novelty import EmbeddingNovelty
from guard.types import AnswerMonitor, Past
from tests.monitors.clean_world import CLASSES, WIDTH, at_work, clean, material, of_length_one, probs_of, seen

WORKING = at_work(EmbeddingNovelty())


def judge(rows, labels):
    return WORKING.judge_answers(seen(rows), Past(), probs_of(labels))


def test_what_lies_elsewhere_is_new_and_clean_rows_are_not():
    assert isinstance(WORKING, AnswerMonitor)
    rng = np.random.default_rng(1)
    foreign = of_length_one(rng.normal(size=(300, WIDTH)))
    benign = judge(*clean(300, 2))
    assert np.median(judge(foreign, rng.integers(0, CLASSES, 300))) > np.quantile(benign, 0.95)


@pytest.mark.parametrize("label", range(CLASSES))
def test_one_class_alone_is_as_usual_as_all(label):
    """Scores are about -ln of a share: about 5 % of clean rows of any class pass -ln 0.05."""
    assert (judge(*clean(600, 3, label)) > -np.log(0.05)).mean() < 0.12


def test_a_row_of_another_class_than_answered_is_new():
    rows, labels = clean(200, 4)
    assert np.median(judge(rows, (labels + 1) % CLASSES)) > np.median(judge(rows, labels)) + 2


def test_a_class_without_clean_rows_is_held_against_all():
    rows, labels = clean(50, 4)
    given = material()
    few = EmbeddingNovelty().learn(given)
    assert few["reference"].dtype == np.float16
    lacking = at_work(EmbeddingNovelty(rows=60), given)  # twelve of a class: none speaks for itself
    assert not len(lacking.groups.known)
    assert np.isfinite(lacking.judge_answers(seen(rows), Past(), probs_of(labels))).all()
